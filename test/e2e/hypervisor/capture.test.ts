import assert from "node:assert/strict";
import { test } from "node:test";
import { freePort, get, sameContent, serveFile, skip, Stage, webGuest } from "./stage.ts";

const SIZE = 64 * 1024 * 1024;

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
      .startCapture("data", { target: target.location, stallLimitMs: 1000 });
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
    assert.ok(slowestMs < 1500, `${slowestMs} ms`);
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
