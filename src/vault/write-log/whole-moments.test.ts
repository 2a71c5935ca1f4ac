// Which moments of a group may be named, and what is said of them.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { CaptureTarget } from "./capture-target.ts";
import { cutGroup, type FreezePort } from "./cut-group.ts";
import { foldLog } from "./fold-log.ts";
import { MemoryPoints } from "./memory-points.fixture.ts";
import { openMoment } from "./open-moment.ts";
import { pruneLog } from "./prune-log.ts";
import { lastWholeMoment } from "./whole-moments.ts";
import { diskBytes, newFolder, openLog, twoDisks } from "./write-log.fixture.ts";

test("while a volume is synchronised no moment of the group is offered, and what was moved is said", async (t) => {
  const log = await openLog(t);
  const { a, b } = await twoDisks(log);
  await a.write(0, randomBytes(4096));
  const before = log.lastRecord;
  assert.deepEqual(await lastWholeMoment(log), { ...before });
  await b.beginSynchronisation("bitmap_lost");
  await b.write(0, Buffer.alloc(8192));
  await a.write(9000, randomBytes(10));
  assert.deepEqual(b.status.state, "synchronising");
  assert.deepEqual((await lastWholeMoment(log))?.sequence, before.sequence);
  await assert.rejects(openMoment(log, "b", { sequence: log.lastRecord.sequence }), {
    code: "state.conflict",
  });
  await assert.rejects(cutGroup(log, { name: "x" }), /b \(bitmap_lost\)/);
  const done = await b.completeSynchronisation();
  assert.equal(done.movedBytes, 8192);
  assert.equal((await lastWholeMoment(log))?.sequence, done.sequence);
  assert.equal((await lastWholeMoment(log, before.timeMs))?.sequence, before.sequence);
  await log.releaseVolume("b");
  await a.write(1, Buffer.from("on"));
  assert.equal((await lastWholeMoment(log))?.sequence, log.lastRecord.sequence);
  await assert.rejects(openMoment(log, "b", { sequence: log.lastRecord.sequence }), {
    code: "state.conflict",
  });
});

test("a volume that was never whole, or not since it was taken again, holds up no other volume's moments", async (t) => {
  const log = await openLog(t);
  const { a } = await twoDisks(log);
  await log.addVolume("c", diskBytes);
  const c = new CaptureTarget(log, "c");
  await c.write(0, randomBytes(4096));
  await a.write(0, randomBytes(4096));
  const withoutC = log.lastRecord;
  assert.deepEqual(await lastWholeMoment(log), { ...withoutC });
  assert.deepEqual(await log.lastWhole(), { ...withoutC });
  await assert.rejects(openMoment(log, "c", { sequence: withoutC.sequence }), { code: "state.conflict" });
  await using _other = await openMoment(log, "b", { sequence: withoutC.sequence });
  await c.completeSynchronisation();
  await using _whole = await openMoment(log, "c", { sequence: log.lastRecord.sequence });

  await log.releaseVolume("c");
  await log.markSynchronising("c", "requested");
  await c.write(0, randomBytes(4096));
  assert.equal(c.status.reason, "taken_again");
  assert.deepEqual(await lastWholeMoment(log), { ...log.lastRecord });
  await c.completeSynchronisation();
  await c.beginSynchronisation("interruption");
  await a.write(0, randomBytes(4096));
  const before = (await log.lastWhole())?.sequence ?? 0;
  assert.ok(before < log.lastRecord.sequence, "one that was whole does hold them up");
  assert.deepEqual(await lastWholeMoment(log), await log.lastWhole());
});

test("no volume of a group is whole yet: there is no moment", async (t) => {
  const log = await openLog(t);
  await log.addVolume("a", diskBytes);
  await new CaptureTarget(log, "a").write(0, randomBytes(10));
  assert.equal(await log.lastWhole(), undefined);
  await assert.rejects(cutGroup(log, { name: "x" }), { code: "state.conflict" });
});

test("the window asks that the last whole moment be held before it leaves it", async (t) => {
  const points = new MemoryPoints();
  const path = await newFolder(t);
  const log = await openLog(t, { path, points });
  const { a, b } = await twoDisks(log);
  await a.write(0, randomBytes(10));
  const whole = log.lastRecord;
  await b.beginSynchronisation("interruption");
  const window = { windowMs: -1, windowBytes: 1e9 };
  const left = new Set<number>();
  const leaving = async ({ sequence }: { sequence: number }): Promise<void> => {
    await using held = await openMoment(log, "a", { sequence });
    assert.equal(held.sequence, sequence, "it can still be opened");
    left.add(sequence);
  };
  for (let round = 0; round < 3; round += 1) {
    await a.write(0, randomBytes(10));
    await log.endSegment();
    await foldLog(log);
    await pruneLog(log, window, { leaving });
  }
  assert.deepEqual([...left], [whole.sequence]);
  await assert.rejects(
    openMoment(log, "a", { sequence: whole.sequence }),
    { code: "not_found" },
    "behind the window it is told as such, whatever the window's beginning says of the volume",
  );
  await assert.rejects(openMoment(log, "b", { sequence: whole.sequence }), { code: "not_found" });
  await log.close();
  const again = await openLog(t, { path, points });
  assert.equal(await again.lastWhole(), undefined, "nothing in the log says so any more");
});

test("a cut under frozen file systems is application-consistent; a freeze that fails or lasts says so, and thaws", async (t) => {
  const log = await openLog(t);
  await twoDisks(log);
  const calls: string[] = [];
  const port = (freeze: () => Promise<void>): FreezePort => ({
    freeze: async () => {
      calls.push("freeze");
      await freeze();
    },
    thaw: async () => void calls.push("thaw"),
  });
  const good = await cutGroup(log, { name: "good", freeze: port(async () => {}) });
  assert.deepEqual([good.consistency, good.sequence], ["application", log.lastRecord.sequence]);
  const refused = port(() => Promise.reject(new OperationalError("machine.failing", "no agent answers")));
  const failed = await cutGroup(log, { name: "failed", freeze: refused });
  assert.deepEqual([failed.consistency, failed.reason], ["crash", "no agent answers"]);
  const hangs = await cutGroup(log, {
    name: "hangs",
    freeze: port(() => new Promise(() => {})),
    freezeLimitMs: 20,
  });
  assert.equal(hangs.consistency, "crash");
  assert.match(hangs.reason ?? "", /within 20 ms/);
  assert.deepEqual(calls, ["freeze", "thaw", "freeze", "thaw", "freeze", "thaw"]);
});

test("time never goes back in the log", async (t) => {
  let offset = 0;
  const clock: Clock = { ...systemClock, now: () => Date.now() + offset };
  const log = await openLog(t, { clock });
  await twoDisks(log);
  const first = await log.write("a", 0, Buffer.from("x"));
  offset = -3_600_000;
  const second = await log.write("a", 0, Buffer.from("y"));
  assert.ok(second.timeMs >= first.timeMs);
});
