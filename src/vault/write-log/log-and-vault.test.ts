/** The log together with a vault: folding into points, shipping, cuts, the capture's disk, and recovery from the store alone. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { faultyStorage } from "#vault/storage/faulty-storage.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { newVault } from "#vault/vault.fixture.ts";
import { CaptureTarget } from "./capture-target.ts";
import { cutGroup, type FreezePort } from "./cut-group.ts";
import { foldLog } from "./fold-log.ts";
import { LogKeeper, type LogNotice } from "./keep-log.ts";
import { logLag } from "./log-lag.ts";
import { MemoryPoints } from "./memory-points.fixture.ts";
import { openLogArchive, restoreLogFolder } from "./open-log-archive.ts";
import { type LogHistory, openMoment } from "./open-moment.ts";
import { openSegmentFolder } from "./open-segment-folder.ts";
import { noPoints, type PointStore } from "./point-store.ts";
import { pruneLog } from "./prune-log.ts";
import { LogShipper } from "./ship-log.ts";
import { vaultPoints } from "./vault-points.ts";
import { lastWholeMoment, oldestWholeMoment } from "./whole-moments.ts";
import { openWriteLog } from "./open-write-log.ts";
import type { OpenWriteLogOptions, WriteLog } from "./write-log.ts";

const logKey = randomBytes(32);
const diskBytes = 3 * 1024 * 1024;

async function newFolder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "write-log-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

async function openLog(
  t: TestContext,
  options: Partial<OpenWriteLogOptions> & { path?: string } = {},
): Promise<WriteLog> {
  const folder = openSegmentFolder(options.path ?? (await newFolder(t)));
  const log = await openWriteLog({
    folder,
    group: "shop",
    logKey,
    clock: systemClock,
    points: noPoints,
    ...options,
  });
  t.after(() => log.close());
  return log;
}

async function twoDisks(log: WriteLog): Promise<{ a: CaptureTarget; b: CaptureTarget }> {
  await log.addVolume("a", diskBytes);
  await log.addVolume("b", diskBytes);
  const [a, b] = [new CaptureTarget(log, "a"), new CaptureTarget(log, "b")];
  await a.completeSynchronisation();
  await b.completeSynchronisation();
  return { a, b };
}

const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => void setTimeout(resolve, 5));
};

test("folded, pruned, shipped: the store alone brings back each second's disk", async (t) => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const points = vaultPoints(vault);
  const log = await openLog(t, { points });
  const { a, b } = await twoDisks(log);
  await using shipper = await LogShipper.open(log, storage);
  const shadows: { sequence: number; a: Buffer; b: Buffer }[] = [];
  let [onA, onB] = [Buffer.alloc(diskBytes), Buffer.alloc(diskBytes)];
  for (let round = 0; round < 12; round += 1) {
    const data = randomBytes(100_000);
    const at = (round * 250_001) % (diskBytes - data.length);
    await a.write(at, data);
    await b.write(at + 7, data.subarray(0, 5000));
    await b.zero(at + 100, 50);
    onA = Buffer.from(onA);
    onB = Buffer.from(onB);
    data.copy(onA, at);
    data.copy(onB, at + 7, 0, 5000);
    onB.fill(0, at + 100, at + 150);
    shadows.push({ sequence: log.lastRecord.sequence, a: onA, b: onB });
    if (round % 4 === 2) await foldLog(log);
    if (round % 3 === 1) await log.endSegment();
  }
  await shipper.shipAll();
  assert.equal(logLag(log, shipper).unshippedMs, 0);
  assert.equal((await points.list("shop", "a")).length, 3);
  await log.close();
  await using archive = await openLogArchive({ storage, group: "shop", logKey, points });
  for (const shadow of shadows)
    for (const id of ["a", "b"] as const) {
      await using moment = await openMoment(archive, id, { sequence: shadow.sequence });
      assert.ok((await moment.read(0, diskBytes)).equals(shadow[id]), `${id} at ${shadow.sequence}`);
    }
});

test("the window: what points hold and nobody reads goes, in the folder and in the store", async (t) => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const log = await openLog(t, { points: vaultPoints(vault) });
  const { a } = await twoDisks(log);
  await using shipper = await LogShipper.open(log, storage);
  await a.write(0, randomBytes(1000));
  const early = log.lastRecord.sequence;
  await log.endSegment();
  await a.write(2000, randomBytes(1000));
  await log.endSegment();
  await a.write(4000, randomBytes(1000));
  await shipper.shipAll();
  const none = { windowMs: -1, windowBytes: 0 };
  const shipped = async (): Promise<number> => (await Array.fromAsync(storage.list("log/"))).length;
  assert.equal((await pruneLog(log, none)).segments, 0, "nothing is folded yet");
  assert.equal(await shipped(), 3);
  const reader = await openMoment(log, "a", { sequence: early });
  await foldLog(log);
  assert.equal(
    (await pruneLog(log, none, { removing: (segment) => shipper.remove(segment) })).segments,
    0,
    "a reader stands on it",
  );
  assert.equal((await reader.read(0, 1000)).length, 1000);
  await reader[Symbol.asyncDispose]();
  let late: Awaited<ReturnType<typeof openMoment>> | undefined;
  const meanwhile = async (): Promise<void> => {
    late ??= await openMoment(log, "a", { sequence: early });
  };
  assert.equal(
    (await pruneLog(log, none, { removing: meanwhile })).segments,
    0,
    "a reader came while it was to go",
  );
  assert.equal((await late?.read(0, 1000))?.length, 1000);
  await late?.[Symbol.asyncDispose]();
  await a.write(6000, randomBytes(10));
  const pruned = await pruneLog(log, none, { removing: (segment) => shipper.remove(segment) });
  assert.equal(pruned.segments, 3);
  assert.deepEqual(
    pruned.needed.map(({ volumeId }) => volumeId),
    ["a", "b"],
  );
  assert.equal(await shipped(), 0);
  await assert.rejects(openMoment(log, "a", { sequence: early }), { code: "not_found" });
  assert.equal((await log.read("a", 0, 8000)).length, 8000);
  const oldest = await oldestWholeMoment(log, log.volumes());
  assert.equal(oldest?.sequence, pruned.needed[0]?.sequence);
});

test("a log older than its points or its shipped segments is not gone on with", async (t) => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const points = vaultPoints(vault);
  const log = await openLog(t, { points });
  const { a } = await twoDisks(log);
  const shipper = await LogShipper.open(log, storage);
  await a.write(0, randomBytes(1000));
  await foldLog(log);
  await shipper.shipAll();
  await shipper[Symbol.asyncDispose]();
  const rolledBack = await openLog(t, { points: noPoints });
  await rolledBack.addVolume("a", diskBytes);
  await assert.rejects(LogShipper.open(rolledBack, storage), { code: "vault.damaged" });
  const path = await newFolder(t);
  const begun = await openLog(t, { path });
  await begun.addVolume("a", diskBytes);
  await begun.close();
  await assert.rejects(openLog(t, { path, points }), { code: "vault.damaged" });
});

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

test("what two prunes at once both look at goes once, and nothing else with it", async (t) => {
  const points = new MemoryPoints();
  const log = await openLog(t, { points });
  const { a } = await twoDisks(log);
  for (let round = 0; round < 4; round += 1) {
    await a.write(0, randomBytes(10));
    await log.endSegment();
  }
  await foldLog(log);
  const copies = new Set(log.shelf.segments.map(({ name }) => name));
  const window = { windowMs: -1, windowBytes: 1e9 };
  const removing = async ({ name }: { name: string }): Promise<void> => {
    await new Promise((resolve) => void setTimeout(resolve, 5));
    copies.delete(name);
  };
  await Promise.all([pruneLog(log, window, { removing }), pruneLog(log, window, { removing })]);
  assert.deepEqual(
    [...copies],
    log.shelf.segments.map(({ name }) => name),
  );
});

test("a first copy that is broken off stays one, and its zeroes cost nothing", async (t) => {
  const log = await openLog(t);
  await log.addVolume("a", diskBytes);
  const a = new CaptureTarget(log, "a");
  await a.write(0, Buffer.alloc(1024 * 1024));
  assert.ok(log.shelf.segments.every(({ end }) => end.position < 10_000));
  await a.beginSynchronisation("interruption");
  assert.equal(a.status.reason, "first_copy");
  assert.deepEqual(await a.extents(0, diskBytes), [{ offset: 0, length: diskBytes, kind: "hole" }]);
});

test("a folder that was lost comes back from the store, and the log goes on", async (t) => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const points = vaultPoints(vault);
  const first = await openLog(t, { points });
  const before = await twoDisks(first);
  await before.a.write(0, Buffer.from("before"));
  await foldLog(first);
  await before.a.write(6, Buffer.from(" the loss"));
  const shipped = await LogShipper.open(first, storage);
  await shipped.shipAll();
  await shipped[Symbol.asyncDispose]();
  const lost = first.lastRecord;
  await first.close();
  const anew = await openLog(t, { points });
  await assert.rejects(anew.addVolume("a", diskBytes), { code: "state.conflict" });
  const after = await openLog(t, { startAfter: { sequence: 1000, timeMs: 0 } });
  await after.addVolume("c", 10);
  await assert.rejects(LogShipper.open(after, storage), { code: "state.conflict" });
  const path = await newFolder(t);
  const folder = openSegmentFolder(path);
  const restored = await restoreLogFolder({ storage, group: "shop", logKey }, folder);
  assert.equal(restored.lastSequence, lost.sequence);
  await folder.close();
  const log = await openLog(t, { points, path });
  const a = new CaptureTarget(log, "a");
  assert.equal((await a.read(0, 15)).toString(), "before the loss");
  await a.write(0, Buffer.from("BEFORE"));
  await using shipper = await LogShipper.open(log, storage);
  await shipper.shipAll();
  await using archive = await openLogArchive({ storage, group: "shop", logKey, points });
  await using moment = await openMoment(archive, "a", { sequence: log.lastRecord.sequence });
  assert.equal((await moment.read(0, 15)).toString(), "BEFORE the loss");
});

test("a log begun after an earlier one's points does not stand on them", async (t) => {
  await using vault = await newVault(memoryStorage());
  const points = vaultPoints(vault);
  const first = await openLog(t, { points });
  const { a } = await twoDisks(first);
  await a.write(0, Buffer.alloc(100, 1));
  await foldLog(first);
  const { sequence, timeMs } = first.lastRecord;
  const log = await openLog(t, { points, startAfter: { sequence: sequence + 10, timeMs } });
  await log.addVolume("a", diskBytes);
  const again = new CaptureTarget(log, "a");
  await again.completeSynchronisation();
  await again.write(50, Buffer.alloc(10, 2));
  await using moment = await openMoment(log, "a", { sequence: log.lastRecord.sequence });
  const want = Buffer.concat([Buffer.alloc(50), Buffer.alloc(10, 2), Buffer.alloc(40)]);
  assert.deepEqual(await moment.read(0, 100), want);
  await foldLog(log);
  assert.deepEqual(await again.read(0, 100), want);
});

test("a guest's disk grows and shrinks: what was cut off does not come back", async (t) => {
  const log = await openLog(t);
  const { a } = await twoDisks(log);
  await a.write(diskBytes - 100, Buffer.alloc(100, 1));
  const full = log.lastRecord.sequence;
  await log.resizeVolume("a", diskBytes - 50);
  await assert.rejects(a.write(diskBytes - 50, Buffer.alloc(1)), { code: "disk.range" });
  await log.resizeVolume("a", diskBytes);
  assert.deepEqual(
    await a.read(diskBytes - 100, 100),
    Buffer.concat([Buffer.alloc(50, 1), Buffer.alloc(50)]),
  );
  await using moment = await openMoment(log, "a", { sequence: full });
  assert.deepEqual(await moment.read(diskBytes - 100, 100), Buffer.alloc(100, 1));
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

test("the keeper folds when it is due; a position that should move and does not is an alarm, and its end is told", async (t) => {
  let broken = true;
  const storage = faultyStorage(memoryStorage(), (operation, _, name) =>
    broken && operation === "put" && name.startsWith("log/") ? "before" : "none",
  );
  await using vault = await newVault(storage);
  const log = await openLog(t, { points: vaultPoints(vault) });
  const { a } = await twoDisks(log);
  await using shipper = await LogShipper.open(log, storage);
  const notices: LogNotice[] = [];
  const window = { windowMs: 3_600_000, windowBytes: 1e9 };
  const notify = (notice: LogNotice): void => void notices.push(notice);
  await using keeper = new LogKeeper({ log, shipper, window, foldBytes: 300_000, stallMs: 300, notify });
  for (let at = 0; at < 5; at += 1) await a.write(at * 100_000, randomBytes(100_000));
  await log.endSegment();
  await until(() => notices.some(({ code, raised }) => code === "log.shipping_stalled" && raised));
  broken = false;
  await until(() => notices.some(({ code, raised }) => code === "log.shipping_stalled" && !raised));
  await until(() => keeper.lag().foldedSequence === log.lastRecord.sequence);
  assert.equal(keeper.lag().unshippedMs, 0);
});

test("memory asks for a fold, and writers wait for it rather than fill memory", async (t) => {
  const storage: BlobStorage = memoryStorage();
  await using vault = await newVault(storage);
  const log = await openLog(t, { points: vaultPoints(vault), limits: { extents: 50 } });
  const { a } = await twoDisks(log);
  await using keeper = new LogKeeper({ log, window: { windowMs: 0, windowBytes: 0 }, notify: () => {} });
  let most = 0;
  for (let count = 0; count < 400; count += 1) {
    await a.write((count * 7919) % (diskBytes - 10), Buffer.from([count]));
    most = Math.max(most, log.extents);
  }
  assert.ok(most <= 110, `${most} extents`);
  assert.ok(keeper.lag().foldedSequence > 0);
});

test("an idle log is marked; an old segment is ended and shipped without further writes", async (t) => {
  const storage = memoryStorage();
  const log = await openLog(t, { limits: { segmentAgeMs: 200 } });
  const { a } = await twoDisks(log);
  await using shipper = await LogShipper.open(log, storage);
  await a.write(0, randomBytes(100));
  await until(() => shipper.shippedSequence === log.lastRecord.sequence);
});

/** A clock that goes back. */
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

test("one process owns the folder", async (t) => {
  const path = await newFolder(t);
  await openLog(t, { path });
  assert.throws(() => openSegmentFolder(path), { code: "store.failing" });
});

test("a reader that goes does not end the base that the others read from", async (t) => {
  const points = new MemoryPoints();
  const opened: (AbortSignal | undefined)[] = [];
  const watched: PointStore = {
    list: (group, id) => points.list(group, id),
    write: (point) => points.write(point),
    open: (point, signal) => {
      opened.push(signal);
      return points.open(point);
    },
  };
  const log = await openLog(t, { points: watched });
  const { a } = await twoDisks(log);
  await a.write(0, Buffer.alloc(4096, 5));
  await foldLog(log);
  opened.length = 0;
  await log.read("a", 0, 10, new AbortController().signal);
  assert.deepEqual(opened, [undefined]);
});

test("a reader of the present that waits for its base while a fold ends sees the new base", async (t) => {
  const memory = new MemoryPoints();
  const gate = Promise.withResolvers<void>();
  let opened = 0;
  const points: PointStore = {
    list: (group, volume) => memory.list(group, volume),
    write: (point) => memory.write(point),
    open: async (point) => {
      opened += 1;
      await gate.promise;
      return memory.open(point);
    },
  };
  const log = await openLog(t, { points });
  await log.addVolume("a", 1000);
  const a = new CaptureTarget(log, "a");
  await a.write(0, Buffer.alloc(1000, 1));
  await foldLog(log);
  await a.write(0, Buffer.alloc(10, 2));
  const { sequence, timeMs } = log.lastRecord;
  const reading = a.read(0, 1000);
  await until(() => opened === 1);
  const facts = { id: "newer", group: "shop", volumeId: "a", sequence, timeMs, sizeBytes: 1000, whole: true };
  const [base] = await memory.list("shop", "a");
  const source = await openMoment(
    { ...historyOf(log), points: memory },
    "a",
    { sequence },
    { evenIncomplete: true },
  );
  const newer = await memory.write({
    ...facts,
    consistency: "crash",
    base,
    source,
    changed: source.changed(),
  });
  await log.adoptPoint(newer);
  gate.resolve();
  assert.deepEqual(await reading, Buffer.concat([Buffer.alloc(10, 2), Buffer.alloc(990, 1)]));
});

const historyOf = ({ group, shelf, points, lastRecord }: LogHistory): LogHistory => ({
  group,
  shelf,
  points,
  lastRecord,
});

test("a sparse terabyte is protected and opened by what was written to it", async (t) => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const points: PointStore = vaultPoints(vault);
  const log = await openLog(t, { points });
  const size = 2 ** 40;
  await log.addVolume("big", size);
  const big = new CaptureTarget(log, "big");
  await big.completeSynchronisation();
  const data = randomBytes(5000);
  await big.write(size - 5000, data);
  await big.trim(0, size - 5000);
  await foldLog(log);
  await big.write(size / 2, data);
  await using moment = await openMoment(log, "big", { sequence: log.lastRecord.sequence });
  assert.deepEqual(await moment.read(size - 5000, 5000), data);
  assert.deepEqual(await moment.read(size / 2, 5000), data);
});
