import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { CollectionResult } from "./collect-garbage.ts";
import { LEASE_MS, SKEW_MS } from "./leases.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import { faultyStorage } from "./storage/faulty-storage.ts";
import { type MemoryStorage, memoryStorage } from "./storage/memory-storage.ts";
import { manualClock, memoryDisk, newVault, readWhole, reopen, text } from "./vault.fixture.ts";

const countOf = (storage: MemoryStorage, prefix: string): number =>
  [...storage.objects.keys()].filter((name) => name.startsWith(prefix)).length;

test("a deleted point's space comes back in two runs; what others share stays", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const [shared, own] = [text(1, BLOCK_BYTES), text(2, BLOCK_BYTES)];
  const a = await vault.writePoint({ volumeId: "a", sizeBytes: own.length, source: memoryDisk(own) });
  const b = await vault.writePoint({ volumeId: "b", sizeBytes: shared.length, source: memoryDisk(shared) });
  const both = Buffer.concat([shared, own]);
  const c = await vault.writePoint({ volumeId: "c", sizeBytes: both.length, source: memoryDisk(both) });
  await vault.deletePoint(a.id);
  await vault.deletePoint(b.id);
  const packs = countOf(storage, "packs/");
  assert.deepEqual((await vault.collectGarbage()).deletedPacks, 0);
  assert.equal(countOf(storage, "packs/"), packs);
  clock.advance(2 * SKEW_MS);
  const { deletedPacks, deletedBytes } = await vault.collectGarbage();
  // The maps of a and b; their blocks are c's too.
  assert.equal(deletedPacks, 2);
  assert.ok(deletedBytes > 0);
  assert.equal(countOf(storage, "packs/"), packs - 2);
  assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
  await using point = await vault.openPoint(c.id);
  assert.ok((await readWhole(point)).equals(both));
});

test("a point that is being read is not deleted; a reader of one that slipped away stops collection", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(3, BLOCK_BYTES);
  const { id } = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const point = await vault.openPoint(id);
  await assert.rejects(vault.deletePoint(id), (error) => isOperational(error, "state.conflict"));
  // As when the lease had become durable just after the deletion looked.
  await storage.delete(`points/${id}`);
  for (let run = 0; run < 3; run += 1) {
    const { deletedPacks, condemnedPacks, waiting } = await (
      await reopen(storage, { clock })
    ).collectGarbage();
    assert.deepEqual([deletedPacks, condemnedPacks, waiting.length], [0, 0, 1]);
    clock.advance(LEASE_MS / 4);
  }
  assert.ok((await readWhole(point)).equals(disk));
  await point[Symbol.asyncDispose]();
  assert.equal((await vault.collectGarbage()).condemnedPacks, 2);
});

test("a reader that lost its lease refuses, rather than read what may be gone", async () => {
  const clock = manualClock();
  const inner = memoryStorage(clock);
  let dead = false;
  const storage = faultyStorage(inner, () => (dead ? "before" : "none"));
  const vault = await newVault(storage, { clock });
  const disk = text(4, BLOCK_BYTES);
  const { id } = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const point = await vault.openPoint(id);
  await point.read(0, 10);
  dead = true;
  clock.advance(LEASE_MS + 1);
  await assert.rejects(point.read(0, 10), (error) => isOperational(error, "state.fenced"));
});

test("a duplicate found in a pack before it was condemned is not lost, whenever the collector runs", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(5, 2 * BLOCK_BYTES);
  const old = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  await vault.deletePoint(old.id);
  const collector = await reopen(storage, { clock });
  const plain = memoryDisk(disk);
  // The collector runs, and runs again, while this point is being written: at its first read of the source.
  const results: unknown[] = [];
  const source = {
    ...plain,
    sizeBytes: disk.length,
    async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
      results.push(await collector.collectGarbage());
      clock.advance(SKEW_MS * 1.1);
      results.push(await collector.collectGarbage());
      return plain.read(offset, length, signal);
    },
  };
  const next = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source });
  assert.equal(next.cost.newBytes, 0, "all of it was found in the packs of the deleted point");
  assert.equal(results.length, 2);
  clock.advance(2 * SKEW_MS);
  await collector.collectGarbage();
  clock.advance(2 * SKEW_MS);
  await collector.collectGarbage();
  assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
  await using point = await vault.openPoint(next.id);
  assert.ok((await readWhole(point)).equals(disk));
});

test("packs of a point that is being written are left alone", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  await newVault(storage, { clock });
  const collector = await reopen(storage, { clock });
  const results: CollectionResult[] = [];
  // The packs are durable by now, the manifest is not.
  const whenIndexed: BlobStorage = {
    ...storage,
    async put(name, parts, signal) {
      if (name.startsWith("index/"))
        for (let run = 0; run < 2; run += 1) {
          results.push(await collector.collectGarbage());
          clock.advance(SKEW_MS * 1.1);
        }
      return storage.put(name, parts, signal);
    },
  };
  const vault = await reopen(whenIndexed, { clock });
  const disk = text(8, BLOCK_BYTES);
  const { id } = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  assert.deepEqual(
    results.map(({ condemnedPacks, deletedPacks }) => [condemnedPacks, deletedPacks]),
    [
      [0, 0],
      [0, 0],
    ],
  );
  await using point = await vault.openPoint(id);
  assert.ok((await readWhole(point)).equals(disk));
});

test("what is condemned is not built upon, and stays deleted from what a long-lived writer knows", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(6, 2 * BLOCK_BYTES);
  const request = { volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) };
  const old = await vault.writePoint(request);
  await vault.deletePoint(old.id);
  const collector = await reopen(storage, { clock });
  assert.equal((await collector.collectGarbage()).condemnedPacks, 2);
  clock.advance(2 * SKEW_MS);
  const afterCondemnation = await vault.writePoint(request);
  assert.equal(afterCondemnation.cost.newBytes > 0, true);
  clock.advance(2 * SKEW_MS);
  assert.equal((await collector.collectGarbage()).deletedPacks, 2);
  const afterDeletion = await vault.writePoint(request);
  for (const { id } of [afterCondemnation, afterDeletion]) {
    await using point = await vault.openPoint(id);
    assert.ok((await readWhole(point)).equals(disk));
  }
  assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
});

test("a pack with little left in it is emptied, and goes; every point reads as before, also for who opened it earlier", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = Buffer.concat([1, 2, 3, 4, 5, 6, 7, 8].map((seed) => text(seed, BLOCK_BYTES)));
  const old = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const now = Buffer.from(disk);
  for (let block = 1; block < 8; block += 1) text(block + 50, BLOCK_BYTES).copy(now, block * BLOCK_BYTES);
  const base = { volumeId: "v", sizeBytes: now.length, source: memoryDisk(now), base: old.id };
  const next = await vault.writePoint(base);
  await vault.deletePoint(old.id);
  const reader = await vault.openPoint(next.id);
  const before = [...storage.objects.keys()].filter((name) => name.startsWith("packs/"));
  const first = await vault.collectGarbage();
  // The old data pack, of which one block is needed, and the old map, of which nothing is.
  assert.deepEqual([first.compactedPacks, first.condemnedPacks], [1, 1]);
  let deleted = 0;
  for (let run = 0; run < 3; run += 1) {
    clock.advance(2 * SKEW_MS);
    deleted += (await (await reopen(storage, { clock })).collectGarbage()).deletedPacks;
  }
  assert.equal(deleted, 2);
  assert.equal(before.filter((name) => storage.objects.has(name)).length, before.length - 2);
  assert.ok((await readWhole(reader)).equals(now));
  await reader[Symbol.asyncDispose]();
  const fresh = await reopen(storage, { clock });
  const point = await fresh.openPoint(next.id);
  assert.ok((await readWhole(point)).equals(now));
  await point[Symbol.asyncDispose]();
  const copy = Buffer.alloc(now.length);
  await fresh.restoreTo(next.id, { write: async (offset, bytes) => copy.set(bytes, offset) });
  assert.ok(copy.equals(now));
  assert.deepEqual((await fresh.verify({ depth: "full" })).findings, []);
  const again = await fresh.writePoint({ volumeId: "w", sizeBytes: now.length, source: memoryDisk(now) });
  assert.ok(again.cost.newBytes < BLOCK_BYTES, "the moved block is found as a duplicate where it is now");
  // Once no map names the old place, the forwarding goes too.
  await fresh.deletePoint(next.id);
  for (let run = 0; run < 3; run += 1) {
    clock.advance(2 * SKEW_MS);
    await fresh.collectGarbage();
  }
  assert.equal(countOf(storage, "moved/"), 0);
  assert.deepEqual((await fresh.verify({ depth: "full" })).findings, []);
});

test("many small index objects become one; what they say is still known", async () => {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  const disks = Array.from({ length: 40 }, (_, n) => text(n + 1, 1000));
  for (const disk of disks)
    await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  assert.equal(countOf(storage, "index/"), 40);
  await vault.collectGarbage();
  assert.equal(countOf(storage, "index/"), 1);
  for (const writer of [vault, await reopen(storage)])
    for (const disk of disks) {
      const point = await writer.writePoint({
        volumeId: "w",
        sizeBytes: disk.length,
        source: memoryDisk(disk),
      });
      assert.equal(point.cost.storedBytes, 0);
    }
  assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
});

test("an index that names packs which are gone, as two collectors at once may leave it, misleads no writer", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(8, 2 * BLOCK_BYTES);
  const first = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const other = await reopen(storage, { clock });
  // It has taken the index in, and holds no lease: the packs go as if it were not there.
  const tiny = { volumeId: "t", sizeBytes: 9, source: memoryDisk(disk.subarray(0, 9)) };
  await other.writePoint(tiny);
  const index = [...storage.objects].filter(([name]) => name.startsWith("index/"));
  await vault.deletePoint(first.id);
  await vault.collectGarbage({ compactBelow: 0 });
  clock.advance(2 * SKEW_MS);
  assert.ok((await vault.collectGarbage({ compactBelow: 0 })).deletedPacks > 0);
  // Put back by a collector that had read it before.
  for (const [name, object] of index) storage.objects.set(name, object);
  for (const writer of [other, await reopen(storage, { clock })]) {
    const again = await writer.writePoint({
      volumeId: "v",
      sizeBytes: disk.length,
      source: memoryDisk(disk),
      timeMs: clock.now(),
    });
    await using point = await writer.openPoint(again.id);
    assert.ok((await readWhole(point)).equals(disk));
  }
  assert.deepEqual(
    (await vault.verify({ depth: "full" })).findings.filter(({ object }) => object.startsWith("points/")),
    [],
  );
});

test("a map that cannot be read stops collection before anything is deleted", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(7, BLOCK_BYTES);
  const kept = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const gone = await vault.writePoint({
    volumeId: "w",
    sizeBytes: 99,
    source: memoryDisk(disk.subarray(0, 99)),
  });
  await vault.deletePoint(gone.id);
  const root = kept.root.kind === "blob" ? kept.root.ref : undefined;
  assert.ok(root !== undefined);
  storage.objects.delete(`packs/${root.pack.slice(0, 2)}/${root.pack}`);
  const before = storage.objects.size;
  await assert.rejects(vault.collectGarbage(), (error) => isOperational(error, "vault.damaged"));
  assert.equal(countOf(storage, "condemned/"), 0);
  assert.equal(storage.objects.size, before);
});

test("what is fetched first of a volume goes a week after its last point", async () => {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const disk = text(9, BLOCK_BYTES);
  const kept = await vault.writePoint({ volumeId: "a", sizeBytes: disk.length, source: memoryDisk(disk) });
  const name = (volume: string): string =>
    `reads/shop/${volume}/boot-${String(clock.now()).padStart(15, "0")}`;
  for (const volume of ["a", "gone"]) await storage.put(name(volume), [Buffer.from("x")]);
  await vault.collectGarbage();
  assert.equal(countOf(storage, "reads/"), 2, "a volume may be about to get its first point");
  clock.advance(8 * 24 * 3_600_000);
  await vault.collectGarbage();
  assert.equal(countOf(storage, "reads/shop/a/"), 1);
  assert.equal(countOf(storage, "reads/"), 1);
  await vault.deletePoint(kept.id);
  await vault.collectGarbage();
  assert.equal(countOf(storage, "reads/"), 0);
});
