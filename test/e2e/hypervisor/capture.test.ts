import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { appendFileSync } from "node:fs";
import { test } from "node:test";
import { get, sameContent, serveFile, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const SIZE = 64 * 1024 * 1024;
const STALL_LIMIT_MS = 1000;
/** What an emulated guest's own part may take on a busy machine. Without a limit the write would be held until the target goes on. */
const BUSY_MS = 5000;

test(
  "a stalled target is given up within the limit, and brought up to date from the bitmap",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const machine = await host.create(webGuest("web", port, { disks: [{ id: "data", content }] }));
    await machine.start(t.signal);
    await using target = await serveFile(stage, "replica.raw", SIZE);
    const capture = await host
      .disksOf("web")
      .startCapture("data", { target: target.location, stallLimitMs: STALL_LIMIT_MS });
    const seeded = await capture.reached("continuous", t.signal);
    assert.equal(seeded.lastSync?.bytes, SIZE);
    t.diagnostic(`first copy: ${JSON.stringify(seeded.lastSync)}`);
    await get(port, "/cgi-bin/count", t.signal);

    // The target stands still: it takes connections and answers nothing.
    target.stop();
    let slowestMs = 0;
    for (let request = 0; request < 8; request++) {
      const began = performance.now();
      await get(port, "/cgi-bin/count", t.signal);
      slowestMs = Math.max(slowestMs, performance.now() - began);
    }
    t.diagnostic(`slowest request while the target stood still: ${Math.round(slowestMs)} ms`);
    assert.ok(slowestMs < STALL_LIMIT_MS + BUSY_MS, `${slowestMs} ms`);
    const behind = capture.status;
    assert.equal(behind.state, "behind");
    assert.notEqual(behind.behindSince, null);
    await stage.notice("capture.behind");

    target.goOn();
    const again = await capture.reached("continuous", t.signal);
    t.diagnostic(`resynchronisation: ${JSON.stringify(again.lastSync)}`);
    assert.match(again.lastSync?.reason ?? "", /did not answer/);
    assert.ok((again.lastSync?.bytes ?? SIZE) < 8 * 1024 * 1024, "only what changed is moved");
    await get(port, "/cgi-bin/count", t.signal);

    // The target dies, and comes back at the same place.
    await target.kill();
    await get(port, "/cgi-bin/count", t.signal);
    await capture.reached("behind", t.signal);
    await target.start();
    await capture.reached("continuous", t.signal);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "12");

    await machine.stop(10_000);
    await sameContent(`${machine.folder}/disk-data.qcow2`, "qcow2", target.path, "raw");
  },
);

test(
  "a target that stalls in the middle of the first copy holds no write longer than the limit either",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    // A file system, and data behind it that takes its time.
    const path = stage.dataImage("data.raw", 64);
    appendFileSync(path, randomBytes(SIZE));
    const content = { kind: "copy", path, format: "raw" } as const;
    const machine = await host.create(
      webGuest("web", port, { disks: [{ id: "data", content }], guestAgent: true }),
    );
    await machine.start(t.signal);
    // 8 MiB/s: the first copy takes eight seconds.
    await using target = await serveFile(
      stage,
      "replica.raw",
      2 * SIZE,
      ["--filter=rate"],
      ["rate=64M"],
      await freePort(),
    );
    const limits = { target: target.location, stallLimitMs: STALL_LIMIT_MS };
    const capture = await host.disksOf("web").startCapture("data", limits);
    await capture.reached("seeding", t.signal);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    target.stop();
    // A block that the copy has not come to must be copied before it is written: this write waits for the target itself.
    const script = "dd if=/dev/zero of=$(disk-of data) bs=4096 seek=32000 count=1 conv=notrunc,fsync";
    const large = "dd if=/dev/zero of=/disks/data/large bs=1M count=8 conv=fsync";
    const began = performance.now();
    const written = await machine.agent.exec("/bin/sh", ["-c", `${large} && ${script}`], t.signal);
    const slowestMs = performance.now() - began;
    assert.equal(written.exitCode, 0, written.stderr);
    t.diagnostic(`the write took, while the target stood still: ${Math.round(slowestMs)} ms`);
    assert.ok(slowestMs < STALL_LIMIT_MS + BUSY_MS, `${slowestMs} ms`);
    assert.equal(capture.status.state, "behind");
    assert.equal(machine.state, "running");
    target.goOn();
    const { lastSync } = await capture.reached("continuous", t.signal);
    assert.equal(lastSync?.kind, "full");
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
    await machine.stop(10_000);
    await sameContent(`${machine.folder}/disk-data.qcow2`, "qcow2", target.path, "raw");
  },
);
