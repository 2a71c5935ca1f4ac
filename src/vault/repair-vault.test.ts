import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { Vault } from "./open-vault.ts";
import type { PointId } from "./point-manifest.ts";
import { type MemoryStorage, memoryStorage } from "./storage/memory-storage.ts";
import { memoryDisk, newVault, readWhole, reopen, text } from "./vault.fixture.ts";

interface Stage {
  readonly storage: MemoryStorage;
  readonly vault: Vault;
  readonly disk: Buffer;
  readonly id: PointId;
}

async function stage(): Promise<Stage> {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  const disk = text(1, 4 * BLOCK_BYTES);
  const { id } = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  return { storage, vault, disk, id };
}

/** Flips a bit within the blob of a block. */
async function damageBlock({ storage, vault, id }: Stage, block: number): Promise<void> {
  await using point = await vault.openPoint(id, { lease: "none" });
  const entry = await (point as unknown as { map: { blockAt(n: number): Promise<unknown> } }).map.blockAt(
    block,
  );
  const { ref } = entry as { ref: { pack: string; offset: number } };
  const bytes = storage.objects.get(`packs/${ref.pack.slice(0, 2)}/${ref.pack}`)?.bytes;
  if (bytes === undefined) throw new Error("the pack is there");
  bytes[ref.offset + 5] = bytes.readUInt8(ref.offset + 5) ^ 1;
}

async function wholeAgain(storage: MemoryStorage, id: PointId, disk: Buffer): Promise<void> {
  const fresh = await reopen(storage);
  await using point = await fresh.openPoint(id, { lease: "none" });
  assert.ok((await readWhole(point)).equals(disk));
  const copy = Buffer.alloc(disk.length);
  await fresh.restoreTo(id, { write: async (offset, bytes) => copy.set(bytes, offset) });
  assert.ok(copy.equals(disk));
  assert.deepEqual((await fresh.verify({ depth: "full" })).lost, []);
}

test("a damaged block comes back from a source that still has it, also where the disk has changed elsewhere", async () => {
  const one = await stage();
  await damageBlock(one, 1);
  const now = Buffer.from(one.disk);
  now.fill(7, 2 * BLOCK_BYTES);
  const report = await one.vault.repair({ sources: new Map([["v", memoryDisk(now)]]) });
  assert.deepEqual([report.repairedBlobs, report.lostBlobs], [1, 0]);
  await wholeAgain(one.storage, one.id, one.disk);
  const again = await one.vault.repair();
  assert.deepEqual([again.repairedBlobs, again.lostBlobs], [0, 0]);
});

test("what no source has stays lost and named, is not built upon, and comes back with the next point that has it", async () => {
  const one = await stage();
  await damageBlock(one, 1);
  const changed = Buffer.from(one.disk);
  changed.fill(7, BLOCK_BYTES, 2 * BLOCK_BYTES);
  const report = await one.vault.repair({ sources: new Map([["v", memoryDisk(changed)]]) });
  assert.deepEqual([report.repairedBlobs, report.lostBlobs], [0, 1]);
  const [lost] = (await one.vault.verify({ depth: "full" })).lost;
  assert.deepEqual([lost?.point, lost?.offset, lost?.length], [one.id, BLOCK_BYTES, BLOCK_BYTES]);
  // Another volume has the same block: without the repair, it would be taken for a duplicate of the damaged one.
  const twin = await one.vault.writePoint({
    volumeId: "w",
    sizeBytes: one.disk.length,
    source: memoryDisk(one.disk),
  });
  assert.ok(twin.cost.newBytes >= BLOCK_BYTES);
  const later = await one.vault.repair();
  assert.deepEqual([later.repairedBlobs, later.lostBlobs], [1, 0]);
  await wholeAgain(one.storage, one.id, one.disk);
  await wholeAgain(one.storage, twin.id, one.disk);
});

test("an index that is damaged or gone is made anew from the packs, and duplicates are found again", async () => {
  for (const how of ["damaged", "gone"] as const) {
    const { storage, disk } = await stage();
    const index = [...storage.objects.keys()].filter((name) => name.startsWith("index/"));
    for (const name of index) {
      const bytes = storage.objects.get(name)?.bytes;
      if (how === "gone") storage.objects.delete(name);
      else if (bytes !== undefined) bytes[60] = bytes.readUInt8(60) ^ 1;
    }
    const vault = await reopen(storage);
    const report = await vault.repair();
    assert.deepEqual([report.reindexedPacks, report.removed.length], [2, how === "gone" ? 0 : 1], how);
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, [], how);
    const next = await vault.writePoint({ volumeId: "w", sizeBytes: disk.length, source: memoryDisk(disk) });
    assert.equal(next.cost.storedBytes, 0, how);
  }
});

test("a point can be written on a base whose map is damaged: the source says what the base no longer can", async () => {
  const { storage, vault, disk, id } = await stage();
  const { root } = await vault.pointFacts(id);
  if (root.kind !== "blob") throw new Error("the disk is not empty");
  storage.objects.delete(`packs/${root.ref.pack.slice(0, 2)}/${root.ref.pack}`);
  const now = Buffer.from(disk);
  now.write("new", 10);
  const next = await (
    await reopen(storage)
  ).writePoint({
    volumeId: "v",
    sizeBytes: now.length,
    source: memoryDisk(now),
    base: id,
    changed: [{ offset: 10, length: 3 }],
  });
  await using point = await vault.openPoint(next.id);
  assert.ok((await readWhole(point)).equals(now));
});
