// The log by itself: its volumes, its keeper, its memory, its owner.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { faultyStorage } from "#vault/storage/faulty-storage.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { newVault } from "#vault/vault.fixture.ts";
import { CaptureTarget } from "./capture-target.ts";
import { LogKeeper, type LogNotice } from "./keep-log.ts";
import { openMoment } from "./open-moment.ts";
import { openSegmentFolder } from "./open-segment-folder.ts";
import { LogShipper } from "./ship-log.ts";
import { vaultPoints } from "./vault-points.ts";
import { diskBytes, newFolder, openLog, twoDisks, until } from "./write-log.fixture.ts";

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
  assertSameBytes(await moment.read(diskBytes - 100, 100), Buffer.alloc(100, 1));
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
test("one process owns the folder", async (t) => {
  const path = await newFolder(t);
  await openLog(t, { path });
  assert.throws(() => openSegmentFolder(path), { code: "store.failing" });
});
