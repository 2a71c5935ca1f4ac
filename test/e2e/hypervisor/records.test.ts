import assert from "node:assert/strict";
import { test } from "node:test";
import type { Machine } from "#hypervisor/machine.ts";
import { get, serveFile, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const SIZE = 64 * 1024 * 1024;

/** The last record that the guest has said is durable. */
async function acknowledged(machine: Machine): Promise<number> {
  const lines = (await machine.console(4096)).toString().split("\n");
  // The last line may not be whole yet.
  const last = lines.slice(0, -1).findLast((line) => line.startsWith("ack "));
  return Number(last?.slice(4).trim() ?? 0);
}

async function acknowledgedBeyond(machine: Machine, number: number): Promise<number> {
  for (;;) {
    const now = await acknowledged(machine);
    if (now > number) return now;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

test(
  "a guest that writes flat out is killed: every record it acknowledged while capture was continuous is at the target",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const writer = "#!/bin/sh\necho serving\nexec record-writer /disks/data 0\n";
    const spec = webGuest("writer", port, { disks: [{ id: "data", content }], userData: writer });
    const machine = await host.create(spec);
    await machine.start(t.signal);
    await acknowledgedBeyond(machine, 20);
    await using target = await serveFile(stage, "replica.raw", SIZE);
    const capture = await host
      .disksOf("writer")
      .startCapture("data", { target: target.location, stallLimitMs: 600 });
    await capture.reached("continuous", t.signal);

    for (let round = 0; round < 3; round++) {
      const before = await acknowledged(machine);
      target.stop();
      await capture.reached("behind", t.signal);
      // The guest goes on without its target.
      await acknowledgedBeyond(machine, before + 20);
      target.goOn();
      const { lastSync } = await capture.reached("continuous", t.signal);
      t.diagnostic(`resynchronised ${lastSync?.bytes ?? 0} bytes in ${lastSync?.tookMs ?? 0} ms`);
      assert.ok((lastSync?.bytes ?? SIZE) < SIZE / 4);
    }
    const began = Date.now();
    const from = await acknowledged(machine);
    const until = await acknowledgedBeyond(machine, from + 50);
    t.diagnostic(`${Math.round((until - from) / ((Date.now() - began) / 1000))} captured records a second`);

    process.kill(machine.record.process?.pid ?? 0, "SIGKILL");
    await stage.notice("machine.died");
    const last = await acknowledged(machine);
    await target.kill();

    // Another guest, on what the target has.
    const reader = await host.create(
      webGuest("reader", port, {
        disks: [{ id: "data", content: { kind: "existing", path: target.path, format: "raw" } }],
      }),
    );
    await reader.start(t.signal);
    const text = await get(port, "/cgi-bin/records", t.signal);
    t.diagnostic(`${last} were acknowledged; the replica has ${text}`);
    const [, torn, missing, found] = /torn=(\d+) missing=(\d+) last=(\d+)/.exec(text) ?? [];
    assert.ok(Number(found) >= last, text);
    assert.equal(Number(missing), 0);
    // One that was on its way when the guest died was not acknowledged.
    assert.ok(Number(torn) === 0 || Number(found) + Number(torn) > last, text);
  },
);
