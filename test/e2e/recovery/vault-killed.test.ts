import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { inspectDisk } from "#hypervisor/create-disk.ts";
import type { Machine } from "#hypervisor/machine.ts";
import { get, skip, Stage, webGuest } from "../hypervisor/stage.ts";
import { VaultStage } from "./vault-stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const MIB = 1024 * 1024;
const sizeBytes = 160 * MIB;
/** So slow that the death is in the middle. */
const copySpeed = 12 * MIB;
const outageMs = 10_000;

/** A guest that writes records as fast as it may, and one that only reads: its ballast's checksum, by HTTP. */
const writer = "#!/bin/sh\nhttpd -h /www\necho serving\nexec record-writer /disks/data 2\n";
const reader = `#!/bin/sh
cat >/www/cgi-bin/sum <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
md5sum /disks/data/ballast 2>&1
END
chmod 755 /www/cgi-bin/sum
httpd -h /www
echo serving
`;

/** The last record that the guest was told is durable. */
async function acknowledged(machine: Machine): Promise<number> {
  const lines = (await machine.console(4096)).toString().split("\n");
  // The last line may not be whole yet.
  const last = lines.slice(0, -1).findLast((line) => line.startsWith("ack "));
  return Number(last?.slice(4).trim() ?? 0);
}

async function acknowledgedBeyond(machine: Machine, number: number, signal: AbortSignal): Promise<number> {
  for (;;) {
    const now = await acknowledged(machine);
    if (now > number) return now;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** An ext4 image with a counter that stands at 41 and ballast; answers its path and the ballast's checksum. */
function makeDisk(folder: string): { readonly path: string; readonly md5: string } {
  const [path, content] = [join(folder, "point.raw"), join(folder, "content")];
  mkdirSync(content);
  const ballast = randomBytes(112 * MIB);
  writeFileSync(join(content, "ballast"), ballast);
  writeFileSync(join(content, "count"), "41\n");
  const size = `${sizeBytes / MIB}M`;
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-F", "-d", content, path, size], {
    env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` },
    stdio: "ignore",
  });
  return { path, md5: createHash("md5").update(ballast).digest("hex") };
}

test(
  "the vault is killed in the middle of two live recoveries, for ten seconds: nothing that a guest was told is written is lost",
  { skip, timeout: 150_000 },
  async (t) => {
    await using stage = new Stage();
    const { path, md5 } = makeDisk(stage.folder);
    await using vault = await VaultStage.open(stage.folder);
    const source = await vault.serve(
      "volume",
      await vault.takeIn("volume", path, sizeBytes, t.signal),
      t.signal,
    );
    const host = await stage.openHost();
    const disks = [{ id: "data", content: { kind: "live", source, sizeBytes } } as const];
    const ports = { writes: await freePort(), reads: await freePort() };
    const began = performance.now();
    const say = (what: string): void =>
      t.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s: ${what}`);
    const [writes, reads] = await Promise.all([
      host.create(webGuest("writes", ports.writes, { disks, userData: writer })),
      host.create(webGuest("reads", ports.reads, { disks, userData: reader })),
    ]);
    await Promise.all([writes.start(t.signal), reads.start(t.signal)]);
    await acknowledgedBeyond(writes, 20, t.signal);
    assert.equal(await get(ports.reads, "/cgi-bin/count", t.signal), "42");
    say("both guests have answered");
    const copies = await Promise.all(
      ["writes", "reads"].map((id) =>
        host.disksOf(id).startBackgroundCopy("data", { bytesPerSecond: copySpeed }),
      ),
    );
    while (copies.some(({ progress }) => progress.doneBytes < sizeBytes / 5))
      await new Promise((resolve) => setTimeout(resolve, 50));
    for (const { progress } of copies) {
      assert.equal(progress.state, "copying");
      assert.ok(progress.doneBytes < (sizeBytes * 4) / 5, "in the middle");
    }

    const from = stage.notices.length;
    await vault.kill();
    const atDeath = await acknowledged(writes);
    say(`the vault is dead; ${atDeath} records were acknowledged`);
    // What is not here yet is asked for while nobody has it: the guest waits, and is not told of an error.
    const asked = fetch(`http://127.0.0.1:${ports.reads}/cgi-bin/sum`, { signal: t.signal });
    await stage.notice("copy.waiting", from);
    await new Promise((resolve) => setTimeout(resolve, outageMs));
    const inOutage = await acknowledged(writes);
    say(`${inOutage - atDeath} records were acknowledged while the vault was dead`);
    for (const { progress } of copies) assert.notEqual(progress.state, "complete");
    await vault.start();
    say("served again");
    assert.equal((await (await asked).text()).split(" ")[0], md5, "read across the death");
    await acknowledgedBeyond(writes, inOutage, t.signal);
    await Promise.all(copies.map(({ complete }) => complete));
    say("both copies are complete");

    // The source was let go: nobody misses it.
    await vault.kill();
    assert.equal(await get(ports.reads, "/cgi-bin/count", t.signal), "43");
    const last = await acknowledgedBeyond(writes, await acknowledged(writes), t.signal);
    const died = stage.notices.length;
    process.kill(writes.record.process?.pid ?? 0, "SIGKILL");
    await stage.notice("machine.died", died);
    const final = await acknowledged(writes);
    assert.ok(final >= last);
    await reads.stop(10_000);
    for (const machine of [writes, reads]) {
      const [disk] = machine.spec.disks;
      assert.ok(disk);
      assert.equal((await inspectDisk(machine.folder, disk)).source, undefined);
    }

    // Another start, with nothing but the image.
    await writes.update(({ spec }) => ({ spec: { ...spec, userData: reader } }));
    await Promise.all([writes.start(t.signal), reads.start(t.signal)]);
    const text = await get(ports.writes, "/cgi-bin/records", t.signal);
    say(`${final} were acknowledged; the disk has ${text}`);
    const [, torn, missing, found] = /torn=(\d+) missing=(\d+) last=(\d+)/.exec(text) ?? [];
    assert.ok(Number(found) >= final, text);
    assert.equal(Number(missing), 0, text);
    // One that was on its way when the guest died was not acknowledged.
    assert.ok(Number(torn) === 0 || Number(found) + Number(torn) > final, text);
    assert.equal(await get(ports.reads, "/cgi-bin/count", t.signal), "44");
    for (const port of [ports.writes, ports.reads])
      assert.equal((await get(port, "/cgi-bin/sum", t.signal)).split(" ")[0], md5);
  },
);
