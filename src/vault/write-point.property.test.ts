import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { PointId } from "./point-manifest.ts";
import { memoryStorage } from "./storage/memory-storage.ts";
import { memoryDisk, newVault, readWhole, reopen, text } from "./vault.fixture.ts";

/** A leaf covers 64 MiB; disks here reach over its end. */
const LEAF = 64 * 1024 * 1024;

interface Edit {
  readonly at: number;
  readonly length: number;
  readonly seed: number;
}

interface Step {
  /** In blocks and bytes over: sizes need no alignment. */
  readonly resize: number;
  readonly edits: readonly Edit[];
  /** Tell the vault what changed, or have it read everything. */
  readonly ranges: boolean;
  readonly onBase: boolean;
}

const edit = fc.record({
  at: fc.double({ min: 0, max: 0.999, noNaN: true }),
  length: fc.oneof(
    fc.integer({ min: 1, max: 5_000 }),
    fc.constantFrom(4096, 65_536, BLOCK_BYTES),
    fc.integer({ min: 1, max: 3 * BLOCK_BYTES }),
  ),
  /** 0 writes zeroes. */
  seed: fc.integer({ min: 0, max: 5 }),
});
const step = fc.record({
  resize: fc.oneof(
    { weight: 3, arbitrary: fc.constant(0) },
    { weight: 1, arbitrary: fc.integer({ min: -BLOCK_BYTES * 2, max: BLOCK_BYTES * 3 }) },
  ),
  edits: fc.array(edit, { maxLength: 6 }),
  ranges: fc.boolean(),
  onBase: fc.boolean(),
});

function applyEdits(disk: Buffer, edits: readonly Edit[]): { offset: number; length: number }[] {
  return edits.map(({ at, length, seed }) => {
    const offset = Math.floor(at * disk.length);
    const bytes = Math.min(length, disk.length - offset);
    (seed === 0 ? Buffer.alloc(bytes) : text(seed, bytes)).copy(disk, offset);
    return { offset, length: bytes };
  });
}

function resized(disk: Buffer, by: number): Buffer {
  const size = Math.max(1, disk.length + by);
  return Buffer.concat([disk.subarray(0, size), Buffer.alloc(Math.max(0, size - disk.length))]);
}

/** Writes a history of points and reads each of them back whole, by a fresh reader, at the end. */
async function history(startBytes: number, steps: readonly Step[]): Promise<void> {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  let disk: Buffer = Buffer.alloc(startBytes);
  text(9, Math.min(disk.length, 3 * BLOCK_BYTES)).copy(disk);
  const points: { readonly id: PointId; readonly disk: Buffer }[] = [];
  for (const { resize, edits, ranges, onBase } of steps) {
    disk = resized(disk, resize);
    const changed = applyEdits(disk, edits);
    const base = points.at(-1);
    const withBase = base !== undefined && (onBase || ranges);
    const { id } = await vault.writePoint({
      volumeId: "v",
      sizeBytes: disk.length,
      source: memoryDisk(disk),
      ...(withBase ? { base: base.id } : {}),
      ...(withBase && ranges ? { changed } : {}),
    });
    points.push({ id, disk: Buffer.from(disk) });
  }
  const reader = await reopen(storage);
  for (const [n, point] of points.entries()) {
    await using open = await reader.openPoint(point.id, { lease: "none" });
    assert.ok((await readWhole(open, 1024 * 1024 - 7)).equals(point.disk), `point ${n}`);
    const copy = Buffer.alloc(point.disk.length);
    await reader.restoreTo(point.id, { write: async (offset, bytes) => copy.set(bytes, offset) });
    assert.ok(copy.equals(point.disk), `point ${n} restored`);
    const extents = await open.extents(0, open.sizeBytes);
    let at = 0;
    for (const { offset, length, kind } of extents) {
      assert.equal(offset, at);
      at += length;
      if (kind !== "data") assert.ok(point.disk.subarray(offset, at).every((byte) => byte === 0));
    }
    assert.equal(at, open.sizeBytes);
  }
  assert.deepEqual((await reader.verify({ depth: "full" })).findings, []);
}

const numRuns = Number(process.env["VAULT_PROPERTY_RUNS"] ?? 25);

test("every point of a history reads as its disk was: writes, zeroes, new sizes, with and without ranges", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 8 * BLOCK_BYTES }),
      fc.array(step, { minLength: 1, maxLength: 6 }),
      (size, steps) => history(size, steps),
    ),
    { numRuns },
  );
});

test("also where the disk grows and shrinks over the end of a leaf, and the map gains and loses a level", async () => {
  const plain = { edits: [{ at: 0.99, length: 5_000, seed: 3 }], ranges: true, onBase: true };
  await history(LEAF - BLOCK_BYTES, [
    { ...plain, resize: 0 },
    { ...plain, resize: 2 * BLOCK_BYTES + 77 },
    { ...plain, resize: 0 },
    { ...plain, resize: -BLOCK_BYTES - 77 },
    { ...plain, resize: -BLOCK_BYTES },
    { ...plain, resize: 3 * BLOCK_BYTES, ranges: false },
  ]);
});
