// The devcloud's host of real guests, over its socket, keeps the contract of disk hosts.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { diskHostConformance } from "#cloud/disk-host.conformance.ts";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { until } from "#testing/until.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { clientOf, makeVolume } from "./ec2-calls.ts";
import { skip, Stage } from "./stage.ts";

const ports = { clock: systemClock, random: systemRandom, log: silentLog, reconnectMs: 0 };

const open = async (uri: string) => {
  const { address, exportName } = parseNbdUri(uri);
  return openNbdClient({ address, exportName, ...ports });
};

diskHostConformance(
  "guests of a devcloud",
  async () => {
    const stage = new Stage("ec2", "127.87.0.0/16", 168);
    const ready = await stage.start();
    const client = clientOf(ready);
    const host = openHostClient({ socketPath: ready.hostSocket });
    const servers: ChildProcess[] = [];
    return {
      host,
      open,
      volume: () => makeVolume(client),
      serve: async (content) => {
        const path = join(stage.data, `content-${servers.length}.raw`);
        writeFileSync(path, content);
        truncateSync(path, 1024 ** 3);
        const args = ["--persistent", "--shared=8", "--format=raw", `--socket=${path}.sock`, path];
        servers.push(spawn("qemu-nbd", args, { stdio: ["ignore", "ignore", "inherit"] }));
        const uri = `nbd+unix:///?socket=${path}.sock`;
        await until("the source", async () => {
          const device = await open(uri).catch(() => undefined);
          await device?.[Symbol.asyncDispose]();
          return device;
        });
        return uri;
      },
      [Symbol.asyncDispose]: async () => {
        client.destroy();
        await host[Symbol.asyncDispose]();
        await stage[Symbol.asyncDispose]();
        for (const server of servers) {
          const gone = once(server, "exit");
          server.kill("SIGKILL");
          await gone;
        }
      },
    };
  },
  { skip },
);
