// A bare host on another machine: its agent is reached over HTTPS, its disks and their sources by NBD over TLS, by those alone who may.
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { diskHostConformance } from "#cloud/disk-host.conformance.ts";
import { openHypervisorCloud } from "#drivers/hypervisor/hypervisor-cloud.ts";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { hostClientOf, placeOf } from "#main/host-place.ts";
import { loadClientTls } from "#nbd/load-client-tls.ts";
import { type NbdClient, openNbdClient } from "#nbd/nbd-client.ts";
import { until } from "#testing/until.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { freePorts } from "../../../demo/free-ports.ts";
import { skip } from "../devcloud-qemu/stage.ts";
import { HostUnderTest } from "./host-under-test.ts";
import { certify } from "./machines-apart.ts";
import { request } from "./one-server.ts";

const ports = { clock: systemClock, random: systemRandom, log: silentLog, reconnectMs: 0 };

async function open(uri: string): Promise<NbdClient> {
  const parsed = parseNbdUri(uri);
  const tls = await loadClientTls(parsed);
  const { address, exportName } = parsed;
  return openNbdClient({ ...ports, address, exportName, ...(tls && { tls }) });
}

interface Apart extends AsyncDisposable {
  readonly host: HostUnderTest;
  readonly url: string;
}

async function hostApart(addresses: string): Promise<Apart> {
  const [api = 0, disks = 0] = await freePorts(2);
  const host = await HostUnderTest.open({ addresses, apart: { api, disks } });
  await host.start();
  return {
    host,
    url: `https://127.0.0.1:${api}`,
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

const within = (): AbortSignal => AbortSignal.timeout(20_000);

diskHostConformance(
  "a bare host on another machine",
  async () => {
    const apart = await hostApart("127.67.1.0/24");
    const { certificates } = apart.host;
    const mine = join(certificates, "control");
    const host = hostClientOf({ url: apart.url, certificates: mine }, undefined);
    const servers: ChildProcess[] = [];
    let volumes = 0;
    return {
      host,
      // What the host is told has no folder of ours.
      open: (uri) => open(uri.includes("?") ? uri : `${uri}?tls-certificates=${mine}`),
      volume: async () => {
        volumes += 1;
        const made = await apart.host.cloud.create(
          request("volume", { sizeGiB: 1 }, `volume ${volumes}`),
          within(),
        );
        return made.resource.id;
      },
      serve: async (content) => {
        const path = join(apart.host.folder, `content-${servers.length}.raw`);
        writeFileSync(path, content);
        truncateSync(path, 1024 ** 3);
        const [port = 0] = await freePorts(1);
        const tls = `tls-creds-x509,id=tls,endpoint=server,verify-peer=on,dir=${mine}`;
        const args = ["--persistent", "--shared=8", "--format=raw", "--object", tls, "--tls-creds=tls"];
        const where = ["--bind=127.0.0.1", `--port=${port}`, path];
        servers.push(spawn("qemu-nbd", [...args, ...where], { stdio: ["ignore", "ignore", "inherit"] }));
        const uri = `nbds://127.0.0.1:${port}/`;
        await until("the source", async () => {
          const device = await open(`${uri}?tls-certificates=${mine}`).catch(() => undefined);
          await device?.[Symbol.asyncDispose]();
          return device;
        });
        return uri;
      },
      [Symbol.asyncDispose]: async () => {
        await host[Symbol.asyncDispose]();
        await apart[Symbol.asyncDispose]();
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

test(
  "a volume that a run writes into goes on being served when the agent is killed",
  { skip, timeout: 120_000 },
  async () => {
    await using apart = await hostApart("127.69.0.0/24");
    const { host, url } = apart;
    await using client = hostClientOf({ url, certificates: join(host.certificates, "control") }, undefined);
    const { id } = (await host.cloud.create(request("volume", { sizeGiB: 1 }, "data"), within())).resource;
    const { uri } = await client.exportVolume(id, within());
    const parsed = parseNbdUri(uri);
    const tls = await loadClientTls(parsed);
    const { address, exportName } = parsed;
    const options = { ...ports, address, exportName, reconnectMs: 60_000, repeatWrites: true };
    await using device = await openNbdClient({ ...options, ...(tls && { tls }) });
    const content = Buffer.alloc(1024 ** 2, "written");
    const pieces = 40;
    for (let n = 0; n < pieces; n += 1) {
      if (n === 10) {
        await host.kill();
        void host.start();
      }
      await device.write(n * content.length, content);
    }
    for (let n = 0; n < pieces; n += 1)
      assert.ok((await device.read(n * content.length, content.length)).equals(content), `piece ${n}`);
    await client.endExport(id, within());
  },
);

test(
  "a capture to where the host cannot go any more is told of, and can be replaced",
  { skip, timeout: 120_000 },
  async () => {
    await using apart = await hostApart("127.70.0.0/24");
    const { host } = apart;
    await using client = openHostClient({ socketPath: host.socket });
    const make = async (name: string): Promise<string> =>
      (await host.cloud.create(request("volume", { sizeGiB: 1 }, name), within())).resource.id;
    const [one, other] = [await make("one"), await make("other")];
    const capture = (volumeId: string, uri: string) =>
      client.startCapture({ volumeId, uri, stallLimitMs: 1000 }, within());
    await capture(one, "nbds://127.0.0.1:9/one");
    await capture(other, "nbd+unix:///other?socket=/nowhere.sock");
    await host.stop();
    const config = readFileSync(host.configPath, "utf8");
    writeFileSync(host.configPath, config.replace(/, remote: \{.*\}\}/u, "}"));
    await host.start();
    const states = async (): Promise<readonly string[]> =>
      (await client.captures(within())).map(({ volumeId, state, reason }) =>
        [volumeId === one ? "one" : "other", state, reason].join(" "),
      );
    const [first = "", second = ""] = (await states()).toSorted();
    assert.match(first, /^one interrupted this host has no certificates to show: set `remote.certificates`/u);
    assert.equal(second, "other synchronising not_attached");
    await assert.rejects(capture(one, "nbds://127.0.0.1:9/two"), { code: "input.invalid" });
    await capture(one, "nbd+unix:///one?socket=/nowhere.sock");
    assert.deepEqual((await states()).toSorted(), [
      "one synchronising not_attached",
      "other synchronising not_attached",
    ]);
  },
);

test("strangers reach nothing of a host, whatever they show", { skip, timeout: 120_000 }, async () => {
  await using apart = await hostApart("127.68.0.0/24");
  const { host, url } = apart;
  const mine = join(host.certificates, "control");
  const identify = async (certificates: string): Promise<unknown> => {
    const cloud = openHypervisorCloud({ place: placeOf({ url, certificates }), outbound: false });
    try {
      return await cloud.identify(within());
    } finally {
      await cloud.close();
    }
  };
  assert.deepEqual(await identify(mine), { account: "metal", endpoint: url });
  // Of the same CA, for a name that is not listed: a host's own, say.
  await assert.rejects(identify(join(host.certificates, "metal")), /add it to `callers`/u);
  // Of another CA, which calls itself and us what it likes.
  const forged = join(host.folder, "forged");
  certify(forged, ["control"]);
  await assert.rejects(identify(join(forged, "control")), { code: "cloud.unreachable" });
  // Another's certificate, and our CA to believe the host.
  const mixed = join(host.folder, "mixed");
  mkdirSync(mixed);
  for (const [from, name] of [
    [mine, "ca-cert.pem"],
    [join(forged, "control"), "client-cert.pem"],
    [join(forged, "control"), "client-key.pem"],
  ] as const)
    writeFileSync(join(mixed, name), readFileSync(join(from, name)));
  await assert.rejects(identify(mixed), { code: "cloud.unreachable" });

  const made = await host.cloud.create(request("volume", { sizeGiB: 1 }, "data"), within());
  const { id } = made.resource;
  await using client = hostClientOf({ url, certificates: mine }, undefined);
  const { uri } = await client.exportVolume(id, within());
  await using device = await open(uri);
  await device.write(0, Buffer.from("written from outside"), { fua: true });
  const bare = uri.replace(/\?.*/u, "");
  await assert.rejects(open(bare.replace("nbds:", "nbd:")), "in the clear");
  for (const folder of [join(host.certificates, "metal"), join(forged, "control"), mixed])
    await assert.rejects(open(`${bare}?tls-certificates=${folder}`), folder);
  const other = bare.replace(id, "vol-00000000000000000");
  await assert.rejects(open(`${other}?tls-certificates=${mine}`), { code: "not_found" });
  await client.endExport(id, within());
  await assert.rejects(open(uri), { code: "not_found" });

  // What strangers send before they have shown anything.
  const { hostname, port } = new URL(url);
  const garbage = execFileSync(
    "bash",
    ["-c", `head -c 100000 /dev/urandom | timeout 5 cat >/dev/tcp/${hostname}/${port}; echo sent`],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  assert.equal(garbage.toString().trim(), "sent");
  assert.deepEqual(await identify(mine), { account: "metal", endpoint: url });
});
