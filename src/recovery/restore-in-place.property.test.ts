import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import type { BlockDevice } from "#model/block-device.ts";
import { MemoryDevice } from "#nbd/memory-device.ts";
import { restoreInPlace } from "#recovery/restore-in-place.ts";

const signal = new AbortController().signal;
const sizeBytes = 6 * 1024 * 1024;

/** Writes, zeroes and trims at any offset: what two disks have in common and what not is up to chance. */
const edits = fc.array(
  fc.record({
    offset: fc.nat(sizeBytes - 1),
    length: fc.integer({ min: 1, max: 900_000 }),
    what: fc.constantFrom("write", "zero", "trim"),
    fill: fc.integer({ min: 1, max: 255 }),
  }),
  { maxLength: 12 },
);

async function edit(device: BlockDevice, list: typeof edits extends fc.Arbitrary<infer T> ? T : never) {
  for (const { offset, what, fill, ...rest } of list) {
    const length = Math.min(rest.length, sizeBytes - offset);
    if (what === "write") await device.write(offset, Buffer.alloc(length, fill));
    else if (what === "zero") await device.zero(offset, length);
    else await device.trim(offset, length);
  }
}

/** Answers late, and not in the order in which it was asked, as disks on a network do. */
class SlowDevice extends MemoryDevice {
  #asked = 0;

  override async read(offset: number, length: number): Promise<Buffer> {
    this.#asked += 1;
    for (let turn = (this.#asked * 7) % 5; turn >= 0; turn -= 1) await new Promise(setImmediate);
    return super.read(offset, length);
  }
}

test("afterwards the target is the source, and only what differed was written", async () => {
  await fc.assert(
    fc.asyncProperty(edits, edits, edits, async (shared, ofSource, ofTarget) => {
      await using source = new SlowDevice({ sizeBytes });
      await using target = new SlowDevice({ sizeBytes });
      for (const device of [source, target]) await edit(device, shared);
      await edit(source, ofSource);
      await edit(target, ofTarget);
      const before = await target.read(0, sizeBytes);
      const wanted = await source.read(0, sizeBytes);
      const { writtenBytes } = await restoreInPlace(source, target, { signal });
      assert.ok((await target.read(0, sizeBytes)).equals(wanted));
      let differing = 0;
      for (let at = 0; at < sizeBytes; at += 4096) {
        if (!before.subarray(at, at + 4096).equals(wanted.subarray(at, at + 4096))) differing += 4096;
      }
      assert.equal(writtenBytes, differing);
      const again = await restoreInPlace(source, target, { signal });
      assert.equal(again.writtenBytes, 0);
    }),
  );
});

test("a target that is larger keeps its tail", async () => {
  await using source = new MemoryDevice({ sizeBytes: 4096 });
  await using target = new MemoryDevice({ sizeBytes: 8192 });
  await source.write(0, Buffer.alloc(4096, 1));
  await target.write(0, Buffer.alloc(8192, 2));
  await restoreInPlace(source, target, { signal });
  assert.deepEqual([...(await target.read(4095, 2))], [1, 2]);
});
