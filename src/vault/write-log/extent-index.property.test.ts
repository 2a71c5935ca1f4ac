import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ExtentIndex } from "./extent-index.ts";

const size = 20_000;
const put = fc.record({
  start: fc.nat(size - 1),
  length: fc.oneof(
    { weight: 60, arbitrary: fc.integer({ min: 1, max: 12 }) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: 9000 }) },
  ),
  frame: fc.nat(3),
});

test("the index says of each byte which record wrote it last, and where its data is", () => {
  fc.assert(
    fc.property(fc.array(put, { maxLength: 2500, size: "max" }), fc.nat(2500), (puts, dropped) => {
      const index = new ExtentIndex();
      const owner = new Int32Array(size).fill(-1);
      const place = new Int32Array(size);
      let at = 0;
      for (const [sequence, { start, length, frame }] of puts.entries()) {
        const end = Math.min(start + length, size);
        index.put(start, end, {
          kind: "data",
          sequence,
          segment: 1,
          frameNumber: frame,
          dataPosition: 0,
          dataBytes: 9,
          at,
        });
        owner.fill(sequence, start, end);
        for (let byte = start; byte < end; byte += 1) place[byte] = at + byte - start;
        at += end - start;
      }
      check(index, owner, place, true);
      // A merged extent carries its latest record's number: what is dropped is at most what was asked, and what stays is right.
      index.dropThrough(dropped);
      check(index, owner, place, false, dropped);
    }),
    { numRuns: 60 },
  );
});

function check(index: ExtentIndex, owner: Int32Array, place: Int32Array, whole: boolean, dropped = -1): void {
  let last = 0;
  const covered = new Uint8Array(size);
  for (const { offset, length, source } of index.overlapping(0, size)) {
    assert.ok(offset >= last && length > 0);
    last = offset + length;
    for (let byte = offset; byte < last; byte += 1) {
      covered[byte] = 1;
      assert.ok((owner[byte] ?? -1) <= source.sequence && source.sequence > dropped);
      assert.equal(source.at + byte - offset, place[byte]);
    }
  }
  for (let byte = 0; byte < size; byte += 1) {
    if (whole) assert.equal(covered[byte] === 1, owner[byte] !== -1);
    else if ((owner[byte] ?? -1) > dropped) assert.equal(covered[byte], 1);
  }
  assert.equal(index.overlapping(0, size).length, index.count);
  const [from, to] = [700, 1200];
  for (const { offset, length } of index.overlapping(from, to))
    assert.ok(offset >= from && offset + length <= to);
}
