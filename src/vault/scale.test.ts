import assert from "node:assert/strict";
import { test } from "node:test";
import type { BlockReader, Extent } from "#model/block-device.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import { openVault } from "./open-vault.ts";
import { encodeManifest, makePointId, pointObject } from "./point-manifest.ts";
import { faultyStorage } from "./storage/faulty-storage.ts";
import { memoryStorage } from "./storage/memory-storage.ts";
import { memoryDisk, newVault, passphrase, text } from "./vault.fixture.ts";

const TiB = 2 ** 40;

/** A disk that is all hole but for a few places. */
function sparseDisk(
  sizeBytes: number,
  places: ReadonlyMap<number, Buffer>,
): BlockReader & { readonly reads: number } {
  let reads = 0;
  return {
    sizeBytes,
    get reads() {
      return reads;
    },
    async read(offset, length) {
      reads += length;
      const bytes = Buffer.alloc(length);
      for (const [at, data] of places)
        if (at < offset + length && at + data.length > offset)
          data.copy(bytes, Math.max(0, at - offset), Math.max(0, offset - at));
      return bytes;
    },
    async extents(offset, length) {
      const extents: Extent[] = [];
      let at = offset;
      const end = offset + length;
      for (const [from, data] of [...places].sort(([a], [b]) => a - b)) {
        const [start, stop] = [Math.max(from, offset), Math.min(from + data.length, end)];
        if (start >= stop) continue;
        if (start > at) extents.push({ offset: at, length: start - at, kind: "hole" });
        extents.push({ offset: start, length: stop - start, kind: "data" });
        at = stop;
      }
      if (at < end) extents.push({ offset: at, length: end - at, kind: "hole" });
      return extents;
    },
    async [Symbol.asyncDispose]() {},
  };
}

test("a sparse disk of 1 TiB costs what is on it: to write, to change, to open, to map", async () => {
  const inner = memoryStorage();
  const storage = faultyStorage(inner);
  const vault = await newVault(storage);
  const places = new Map([
    [0, text(1, 10_000)],
    [TiB / 2 + 12_345, text(2, 300_000)],
    [TiB - 4096, text(3, 4096)],
  ]);
  const source = sparseDisk(TiB, places);
  const first = await vault.writePoint({ volumeId: "big", sizeBytes: TiB, source });
  assert.ok(source.reads <= 6 * BLOCK_BYTES, `${source.reads} bytes read`);
  const stored = [...inner.objects.values()].reduce((sum, { bytes }) => sum + bytes.length, 0);
  assert.ok(stored < 500_000, `${stored} bytes stored`);
  const before = storage.total;
  places.set(TiB / 4, text(4, 4096));
  const changed = [{ offset: TiB / 4, length: 4096 }];
  const next = await vault.writePoint({ volumeId: "big", sizeBytes: TiB, source, base: first.id, changed });
  assert.ok(storage.total - before < 30, `${storage.total - before} operations for one change`);
  assert.ok(next.cost.storedBytes < 20_000, `${next.cost.storedBytes} bytes stored`);
  const opening = storage.total;
  await using point = await vault.openPoint(next.id, { lease: "none" });
  assert.equal(storage.total - opening, 1);
  for (const [at, data] of places) assert.ok((await point.read(at, data.length)).equals(data), `at ${at}`);
  const extents = await point.extents(0, TiB);
  assert.deepEqual(
    extents.filter(({ kind }) => kind === "data").map(({ offset }) => offset),
    [0, TiB / 4, Math.floor((TiB / 2 + 12_345) / BLOCK_BYTES) * BLOCK_BYTES, TiB - BLOCK_BYTES],
  );
  assert.ok(storage.total - opening < 40, `${storage.total - opening} operations to read it all`);
  const written: number[] = [];
  await vault.restoreTo(next.id, { write: async (offset) => void written.push(offset) });
  assert.equal(written.length, 5);
});

/** How many operations of the store it takes to open one point among so many, and to read a block of it. */
async function operationsToOpen(count: number): Promise<number> {
  const inner = memoryStorage();
  const vault = await newVault(inner);
  const disk = text(5, 2 * BLOCK_BYTES);
  const one = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  // Points that share their map with the first: what a store looks like after a long time.
  for (let n = 1; n < count; n += 1) {
    const id = makePointId("v", one.timeMs + n * 1000, n.toString(16).padStart(16, "0"));
    await inner.put(pointObject(id), [
      encodeManifest(vault.context.keys, { ...one, id, timeMs: one.timeMs + n * 1000 }),
    ]);
  }
  const storage = faultyStorage(inner);
  const fresh = await openVault({ storage, unlock: passphrase(), threads: 0 });
  const point = await fresh.openPoint(one.id);
  assert.ok((await point.read(BLOCK_BYTES, 100)).equals(disk.subarray(BLOCK_BYTES, BLOCK_BYTES + 100)));
  await point[Symbol.asyncDispose]();
  assert.equal((await fresh.listPoints("v")).length, count);
  return storage.total;
}

test("opening a vault and a point takes the same operations with 10 points and with 10,000", async () => {
  assert.equal(await operationsToOpen(10_000), await operationsToOpen(10));
});
