import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import type { BlockReader } from "#model/block-device.ts";
import { newVault } from "#vault/vault.fixture.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { openBootReads, type BootReads } from "./boot-reads.ts";
import { PriorityReader } from "./priority-reader.ts";
import { ReadTrace, REGION_BYTES } from "./read-trace.ts";

interface CountedDisk extends BlockReader {
  readonly bytes: Buffer;
  readonly reads: { readonly offset: number; readonly length: number }[];
}

function countedDisk(regions: number, fails: (offset: number) => boolean = () => false): CountedDisk {
  const bytes = randomBytes(regions * REGION_BYTES - 1000);
  const reads: { offset: number; length: number }[] = [];
  return {
    bytes,
    reads,
    sizeBytes: bytes.length,
    async read(offset, length) {
      reads.push({ offset, length });
      if (fails(offset)) throw new Error("the store does not answer");
      return Buffer.from(bytes.subarray(offset, offset + length));
    },
    extents: async (offset, length) => [{ offset, length, kind: "data" }],
    async [Symbol.asyncDispose]() {},
  };
}

async function inVault(work: (bootReads: BootReads) => Promise<void>): Promise<void> {
  await using vault = await newVault(memoryStorage());
  await work(openBootReads(vault, "shop", "boot"));
}

const open = (reader: BlockReader, bootReads: BootReads): PriorityReader =>
  new PriorityReader({ reader, volume: "vol-1", bootReads, clock: systemClock, log: silentLog });

test("what one start read is fetched before the next one asks, in whole regions, and read once", () =>
  inVault(async (bootReads) => {
    {
      await using first = open(countedDisk(20), bootReads);
      first.expectStart();
      await first.read(7 * REGION_BYTES + 5, 4096);
      await first.read(3 * REGION_BYTES - 100, 200);
      await first.read(7 * REGION_BYTES, 4096);
    }
    assert.deepEqual(await bootReads.load("vol-1"), [7, 2, 3]);
    const disk = countedDisk(20);
    await using second = open(disk, bootReads);
    second.expectStart();
    for (const [offset, length] of [
      [7 * REGION_BYTES + 5, 4096],
      [3 * REGION_BYTES - 100, 200],
    ] as const) {
      // Fetched or on its way: both are one read of the disk.
      while (disk.reads.length < 3) await new Promise((resolve) => setImmediate(resolve));
      assert.ok((await second.read(offset, length)).equals(disk.bytes.subarray(offset, offset + length)));
    }
    assert.deepEqual(
      disk.reads.map(({ offset }) => offset / REGION_BYTES),
      [7, 2, 3],
    );
  }));

test("every byte is the disk's own, the last region's too, and a region that could not be fetched is asked for again", () =>
  inVault(async (bootReads) => {
    await bootReads.save("vol-1", [9, 0, 4, 5, 700]);
    let broken = true;
    const disk = countedDisk(10, (offset) => broken && offset === 4 * REGION_BYTES);
    await using reader = open(disk, bootReads);
    reader.expectStart();
    while (disk.reads.length < 4) await new Promise((resolve) => setImmediate(resolve));
    broken = false;
    for (let round = 0; round < 2; round += 1)
      for (let offset = 0; offset < disk.sizeBytes; offset += 100_000) {
        const length = Math.min(100_000, disk.sizeBytes - offset);
        assert.ok((await reader.read(offset, length)).equals(disk.bytes.subarray(offset, offset + length)));
      }
  }));

test("a copy in plain order that reads along is no wish of the machine's", () => {
  const trace = new ReadTrace();
  for (let piece = 0; piece < 20; piece += 1) {
    trace.note(piece * 2 * REGION_BYTES, 2 * REGION_BYTES);
    if (piece === 5) trace.note(90 * REGION_BYTES, 4096);
    if (piece === 7) trace.note(2 * REGION_BYTES, 131_072);
  }
  assert.deepEqual(trace.regions, [90, 2]);
});
