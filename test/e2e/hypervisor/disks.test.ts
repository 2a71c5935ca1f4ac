import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { get, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const MIB = 1024 * 1024;

test(
  "disks come, grow and go while the guest runs, and are copied at a moment it holds still for",
  { skip, timeout: 90_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const machine = await host.create(
      webGuest("web", port, { disks: [{ id: "data", content }], guestAgent: true, display: true }),
    );
    await machine.start(t.signal);
    const disks = host.disksOf("web");
    const { agent } = machine;
    await agent.ping(t.signal);
    const inGuest = async (script: string): Promise<string> => {
      const result = await agent.exec("/bin/sh", ["-c", script], t.signal);
      assert.equal(result.exitCode, 0, `${script}: ${result.stderr}`);
      return result.stdout.trim();
    };
    assert.deepEqual(await agent.exec("/bin/sh", ["-c", "echo no >&2; exit 3"]), {
      exitCode: 3,
      stdout: "",
      stderr: "no\n",
    });

    // Attached; the guest finds it by its serial.
    const extra = { id: "extra", content: { kind: "blank", sizeBytes: 16 * MIB } } as const;
    await disks.attach(extra, t.signal);
    await disks.attach(extra, t.signal);
    const settled = "while ! disk-of extra >/dev/null; do usleep 20000; done";
    assert.match(await inGuest(`${settled}; disk-of extra`), /^\/dev\/vd/);
    const sectors = "cat /sys/class/block/$(basename $(disk-of extra))/size";
    assert.equal(await inGuest(sectors), String((16 * MIB) / 512));
    await disks.grow("extra", 32 * MIB, t.signal);
    await inGuest(`while [ $(${sectors}) != ${(32 * MIB) / 512} ]; do usleep 20000; done`);
    await inGuest("echo kept | dd of=$(disk-of extra) conv=notrunc,fsync 2>/dev/null");
    await disks.detach("extra", t.signal);
    await inGuest("! disk-of extra");
    await disks.attach({ ...extra, content: { kind: "blank", sizeBytes: 32 * MIB } }, t.signal);
    assert.equal(await inGuest(`${settled}; head -c 4 $(disk-of extra)`), "kept");

    // A disk that was there at the start can go as well.
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    const crashed = join(stage.folder, "crash.qcow2");
    const quiet = join(stage.folder, "quiet.qcow2");
    await disks.snapshot([{ disk: "data", path: crashed }], { signal: t.signal });
    await agent.freeze(t.signal);
    assert.equal(await agent.ask("guest-fsfreeze-status"), "frozen");
    const begun = Promise.withResolvers<void>();
    const options = { begun: () => begun.resolve(), signal: t.signal };
    const kept = disks.snapshot([{ disk: "data", path: quiet }], options);
    await Promise.race([begun.promise, kept]);
    await agent.thaw(t.signal);
    await kept;
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
    // What was frozen needs no recovery; what was not does.
    assert.match(superblockOf(stage, crashed), /needs_recovery/);
    assert.doesNotMatch(superblockOf(stage, quiet), /needs_recovery/);

    await inGuest("umount /disks/data");
    await disks.detach("data", t.signal);
    await inGuest("! disk-of data");

    const screen = await machine.screenshot(t.signal);
    assert.equal(screen.subarray(1, 4).toString(), "PNG");
  },
);

function superblockOf(stage: Stage, qcow2: string): string {
  const raw = join(stage.folder, "look.raw");
  execFileSync("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", qcow2, raw]);
  return execFileSync("dumpe2fs", ["-h", raw], {
    env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` },
    stdio: ["ignore", "pipe", "ignore"],
  }).toString();
}
