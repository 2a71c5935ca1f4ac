import assert from "node:assert/strict";
import { test } from "node:test";
import { get, sameContent, serveFile, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const SIZE = 64 * 1024 * 1024;

test(
  "capture goes on over restarts of agent, target and machine, and costs what changed",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const machine = await host.create(webGuest("web", port, { disks: [{ id: "data", content }] }));
    await machine.start(t.signal);
    await using target = await serveFile(stage, "replica.raw", SIZE);
    const target1 = { target: target.location };
    const capture = await host.disksOf("web").startCapture("data", target1);
    assert.equal((await capture.reached("continuous", t.signal)).lastSync?.bytes, SIZE);
    await get(port, "/cgi-bin/count", t.signal);

    // The agent goes while all is well: what the guest writes is mirrored all the same.
    await stage.closeHost();
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
    const second = await stage.openHost();
    await second.resumed;
    const adopted = second.disksOf("web").capture("data");
    const known = await adopted.reached("continuous", t.signal);
    assert.ok((known.lastSync?.bytes ?? SIZE) < SIZE / 4, `${known.lastSync?.bytes} bytes after a new agent`);

    // The target dies while no agent is there.
    await stage.closeHost();
    await target.kill();
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "3");
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "4");
    await target.start();
    const third = await stage.openHost();
    await third.resumed;
    const again = await third.disksOf("web").capture("data").reached("continuous", t.signal);
    assert.ok(
      (again.lastSync?.bytes ?? SIZE) < SIZE / 4,
      `${again.lastSync?.bytes} bytes after a new target`,
    );
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "5");

    // The machine is turned off and on: the bitmap is kept in the image.
    const here = third.machine("web");
    await here.stop(10_000);
    await sameContent(`${here.folder}/disk-data.qcow2`, "qcow2", target.path, "raw");
    await here.start(t.signal);
    const third2 = await third.disksOf("web").capture("data").reached("continuous", t.signal);
    assert.ok((third2.lastSync?.bytes ?? SIZE) < SIZE / 4, `${third2.lastSync?.bytes} bytes after a restart`);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "6");

    // QEMU is killed: its bitmap was not written back and says nothing. All is copied again, and said so.
    process.kill(here.record.process?.pid ?? 0, "SIGKILL");
    await stage.notice("machine.died");
    await here.start(t.signal);
    const full = await third.disksOf("web").capture("data").reached("continuous", t.signal);
    assert.equal(full.lastSync?.bytes, SIZE);
    assert.match(full.lastSync?.reason ?? "", /not written back/);

    // While no agent watches, a target that stands still holds what the guest writes; the next agent frees it at once.
    await stage.closeHost();
    target.stop();
    const held = get(port, "/cgi-bin/count", t.signal);
    const fourth = await stage.openHost();
    const last = fourth.disksOf("web").capture("data");
    await last.reached("behind", t.signal);
    await held;
    target.goOn();
    assert.equal((await last.reached("continuous", t.signal)).lastSync?.kind, "bitmap");

    // The same call again changes nothing; another target begins anew; the end takes the bitmaps along.
    assert.equal(
      await fourth.disksOf("web").startCapture("data", target1),
      fourth.disksOf("web").capture("data"),
    );
    await fourth.disksOf("web").stopCapture("data");
    assert.deepEqual(fourth.machine("web").record.captures, {});
  },
);
