import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { systemClock } from "#kernel/clock.ts";
import { openMoment } from "./open-moment.ts";
import { openWriteLog } from "./open-write-log.ts";
import { noPoints } from "./point-store.ts";
import type { SegmentFile, SegmentFolder } from "./segment-folder.ts";
import { SimulatedDisk } from "./simulated-folder.fixture.ts";

/** Holds calls back until they are let go, one by one. */
class Gate {
  closed = false;
  readonly waiting: (() => void)[] = [];

  async pass(): Promise<void> {
    if (this.closed) await new Promise<void>((resolve) => void this.waiting.push(resolve));
  }

  async letOneGo(): Promise<void> {
    while (this.waiting.length === 0) await new Promise((resolve) => void setImmediate(resolve));
    this.waiting.shift()?.();
  }
}

const gated = (folder: SegmentFolder, writes: Gate, syncs: Gate): SegmentFolder => ({
  ...folder,
  create: async (name) => {
    const file: SegmentFile = await folder.create(name);
    return {
      ...file,
      write: async (buffers, position) => {
        await writes.pass();
        await file.write(buffers, position);
      },
      sync: async () => {
        await syncs.pass();
        await file.sync();
      },
    };
  },
});

test("a flush vouches for what was written before it, not for what is being written", async () => {
  const [writes, syncs] = [new Gate(), new Gate()];
  const log = await openWriteLog({
    folder: gated(new SimulatedDisk().folder(), writes, syncs),
    group: "g",
    logKey: randomBytes(32),
    clock: systemClock,
    points: noPoints,
    limits: { fullFrameBytes: 1000 },
  });
  await log.addVolume("a", 100_000);
  await log.markContinuous("a", 0);
  writes.closed = true;
  syncs.closed = true;
  const data = randomBytes(1500);
  const first = await log.write("a", 0, data);
  await writes.letOneGo();
  while (syncs.waiting.length === 0) await new Promise((resolve) => void setImmediate(resolve));
  // The first flush runs; two full frames come meanwhile.
  const second = await log.write("a", 2000, data);
  const third = await log.write("a", 4000, data.subarray(0, 10));
  await writes.letOneGo();
  await log.write("a", 6000, data);
  await log.write("a", 8000, data);
  while (writes.waiting.length === 0) await new Promise((resolve) => void setImmediate(resolve));
  await syncs.letOneGo();
  await first.durable;
  // The second flush is for the second frame; the next one is held back in its write.
  await syncs.letOneGo();
  await second.durable;
  assert.equal(log.lastRecord.sequence, second.sequence);
  await using moment = await openMoment(log, "a", { sequence: second.sequence });
  assertSameBytes(await moment.read(2000, 1500), data);
  writes.closed = false;
  syncs.closed = false;
  for (const gate of [writes, syncs]) for (const go of gate.waiting.splice(0)) go();
  await third.durable;
  await log.close();
});
