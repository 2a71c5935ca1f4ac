import assert from "node:assert/strict";
import { test } from "node:test";
import { get, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

test(
  "a machine boots, serves, stands still, goes on, and turns off in order",
  { skip, timeout: 90_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const machine = await host.create(webGuest("web", port, { disks: [{ id: "data", content }] }));
    const started = performance.now();
    await machine.start(t.signal);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    t.diagnostic(`first answer after ${Math.round(performance.now() - started)} ms`);

    await machine.pause();
    assert.equal(machine.state, "paused");
    await assert.rejects(get(port, "/cgi-bin/count", AbortSignal.timeout(700)));
    await machine.resume();
    // The paused guest may have counted the request that was given up.
    const counted = Number(await get(port, "/cgi-bin/count", t.signal));
    assert.ok(counted === 2 || counted === 3, `counted ${counted}`);

    const before = performance.now();
    await machine.stop(10_000);
    t.diagnostic(`turned off after ${Math.round(performance.now() - before)} ms`);
    assert.equal(machine.state, "off");
    assert.match((await machine.console()).toString(), /reboot: Power down/);

    // The volume is as it was left.
    await machine.start(t.signal);
    assert.equal(Number(await get(port, "/cgi-bin/count", t.signal)), counted + 1);
  },
);

test(
  "a guest that does not become ready is started again, and given up with what it printed",
  { skip, timeout: 60_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const ready = { consoleLine: "what nobody prints", withinMs: 700, attempts: 2 };
    const machine = await host.create(webGuest("hung", await freePort(), { ready }));
    await assert.rejects(machine.start(t.signal), {
      code: "machine.failing",
      message: /did not become ready/,
    });
    assert.equal(stage.notices.filter(({ code }) => code === "machine.boot_hung").length, 2);
    assert.equal(stage.notices.length, 2, "its end is nobody's death");
    assert.equal(machine.state, "off");
    assert.equal(machine.record.power, "off");
    assert.equal(machine.record.process, null);
  },
);
