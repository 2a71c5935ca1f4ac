/** The log together with a vault: folding into points, shipping, cuts, the capture's disk, and recovery from the store alone. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { newVault } from "#vault/vault.fixture.ts";
import { CaptureTarget } from "./capture-target.ts";
import { foldLog } from "./fold-log.ts";
import { logLag } from "./log-lag.ts";
import { MemoryPoints } from "./memory-points.fixture.ts";
import { openLogArchive, restoreLogFolder } from "./open-log-archive.ts";
import { openMoment } from "./open-moment.ts";
import { openSegmentFolder } from "./open-segment-folder.ts";
import { noPoints, type PointStore } from "./point-store.ts";
import { pruneLog } from "./prune-log.ts";
import { LogShipper } from "./ship-log.ts";
import { vaultPoints } from "./vault-points.ts";
import { oldestWholeMoment } from "./whole-moments.ts";
import { logKey, diskBytes, newFolder, openLog, twoDisks, until, historyOf } from "./write-log.fixture.ts";

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
  assertSameBytes(await moment.read(0, 100), want);
  await foldLog(log);
  assertSameBytes(await again.read(0, 100), want);
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
  assertSameBytes(await reading, Buffer.concat([Buffer.alloc(10, 2), Buffer.alloc(990, 1)]));
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
  assertSameBytes(await moment.read(size - 5000, 5000), data);
  assertSameBytes(await moment.read(size / 2, 5000), data);
});
