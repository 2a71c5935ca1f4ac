// QEMU's own guest agent, put on a disk of the small guest, in the place of the guest's own: what we ask of agents is what it answers.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { get, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const environment = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };

function where(program: string): string | null {
  try {
    return execFileSync("which", [program], { env: environment, encoding: "utf8" }).trim();
  } catch {
    return null;
  }
}

const agent = where("qemu-ga");
const missing = skip === false && agent === null ? "missing: qemu-ga (qemu-guest-agent)" : skip;
if (missing !== false && process.env["UNDERSTUDY_STRICT"] === "1") throw new Error(missing);

/** The agent with every library that it is linked to: the guest has none. */
function agentDisk(stage: Stage, program: string): string {
  const files = join(stage.folder, "agent");
  mkdirSync(join(files, "lib"), { recursive: true });
  copyFileSync(program, join(files, "qemu-ga"));
  for (const [, path = ""] of execFileSync("ldd", [program], { encoding: "utf8" }).matchAll(
    /(\/\S+) \(0x/gu,
  )) {
    copyFileSync(path, join(files, "lib", basename(path)));
  }
  const image = join(stage.folder, "agent.raw");
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-d", files, image, "64M"], {
    env: environment,
    stdio: "ignore",
  });
  return image;
}

const startsIt = `#!/bin/sh
httpd -h /www
echo serving
for port in /sys/class/virtio-ports/*; do
  [ "$(cat $port/name)" = org.qemu.guest_agent.0 ] && device=/dev/\${port##*/}
done
cd /disks/agent
# The guest's own holds the port as long as it, or a program that it has started, lives; it may also begin only now.
while :; do
  killall -9 guest-agent 2>/dev/null
  lib/ld-linux-x86-64.so.2 --library-path lib ./qemu-ga -m virtio-serial -p $device -t /run
  usleep 100000
done
`;

test(
  "QEMU's own agent freezes, thaws, runs and answers as it is asked to",
  { skip: missing, timeout: 180_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const machine = await host.create(
      webGuest("web", port, {
        disks: [
          { id: "data", content: { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } },
          { id: "agent", content: { kind: "copy", path: agentDisk(stage, agent ?? ""), format: "raw" } },
        ],
        guestAgent: true,
        userData: startsIt,
        ready: { consoleLine: "serving", withinMs: 120_000, attempts: 1 },
      }),
    );
    await machine.start(t.signal);
    // The guest's own agent does not know the question.
    let version: string | undefined;
    while (version === undefined) {
      t.signal.throwIfAborted();
      try {
        const info = (await machine.agent.ask("guest-info", undefined, t.signal)) as { version?: string };
        version = info.version;
      } catch (error) {
        assert.ok(isOperational(error), String(error));
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
    t.diagnostic(`qemu-ga ${version}`);
    await get(port, "/cgi-bin/count", t.signal);
    assert.equal(await machine.agent.freeze(t.signal), 2);
    const held = get(port, "/cgi-bin/count", t.signal);
    const pause = new Promise((resolve) => setTimeout(resolve, 500, "held"));
    assert.equal(await Promise.race([held, pause]), "held");
    await machine.agent.ping(t.signal);
    assert.equal(await machine.agent.thaw(t.signal), 2);
    assert.match(await held, /^\d+$/u);
    const ran = await machine.agent.exec("/bin/sh", ["-c", "echo out; echo err >&2; exit 3"], t.signal);
    assert.deepEqual(ran, { exitCode: 3, stdout: "out\n", stderr: "err\n" });
    assert.equal(await machine.agent.thaw(t.signal), 0, "nothing is left to be let go");
  },
);
