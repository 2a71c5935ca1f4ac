/** Hostile bytes: decoders and the scan answer, refuse or cut; they neither throw anything else nor take memory that the input did not pay for. */
import assert from "node:assert/strict";
import { createSecretKey, randomBytes } from "node:crypto";
import { test } from "node:test";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { isOperational } from "#kernel/errors.ts";
import { FrameBuilder, sealPlainFrame } from "./frame-builder.ts";
import { decodeEvent, decodeOpening, encodeOpening } from "./log-event.ts";
import { scanSegment, type SegmentEnd } from "./scan-segment.ts";
import {
  decodeFrameHeader,
  decodeRecords,
  decodeSegmentHeader,
  encodeSegmentHeader,
  type FrameHeader,
  frameBytes,
  frameHeaderBytes,
  frameType,
  headerLink,
  type LogRecord,
  type RecordKind,
  recordBytes,
  segmentHeaderBytes,
} from "./segment-format.ts";
import type { SegmentFile } from "./segment-folder.ts";

const numRuns = Number(process.env["FUZZ_RUNS"] ?? 3000);
const key = createSecretKey(randomBytes(32));
const header = {
  number: 1,
  firstSequence: 1,
  timeMs: 1000,
  previousEnd: 0,
  previousTag: Buffer.alloc(16),
  salt: Buffer.alloc(32, 1),
  fingerprint: Buffer.alloc(16, 2),
};
const headerBytes = encodeSegmentHeader(header);
const link = headerLink(headerBytes);

const refuse = async (): Promise<never> => assert.fail("a scan changes nothing");

function fileOf(content: Buffer, largest: { read: number }): SegmentFile {
  return {
    read: async (buffer, position) => {
      largest.read = Math.max(largest.read, buffer.length);
      return content.copy(buffer, 0, position, Math.min(position + buffer.length, content.length));
    },
    sizeBytes: async () => content.length,
    write: refuse,
    sync: refuse,
    truncate: refuse,
    close: async () => {},
  };
}

/** The end that was found, or the damage. */
async function scan(content: Buffer): Promise<{ outcome: SegmentEnd | string; largestRead: number }> {
  const largest = { read: 0 };
  const file = fileOf(content, largest);
  try {
    const end = await scanSegment({
      file,
      name: "x.seg",
      header,
      link,
      key,
      depth: "authenticate",
      visit: () => {},
    });
    return { outcome: end, largestRead: largest.read };
  } catch (error) {
    if (!isOperational(error, "vault.damaged")) throw error;
    return { outcome: error.message, largestRead: largest.read };
  }
}

const opening = sealPlainFrame(key, {
  type: frameType.opening,
  frameNumber: 0,
  firstSequence: 1,
  timeMs: 1000,
  previousTag: link,
  durableEnd: 0,
  directory: encodeOpening({ group: "g", volumes: [] }),
});
const beginning = Buffer.concat([headerBytes, ...opening.buffers]);

test("decoders take any bytes", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 700 }), (bytes) => {
      const buffer = Buffer.from(bytes);
      decodeSegmentHeader(buffer);
      decodeFrameHeader(buffer);
      decodeEvent(buffer);
      decodeOpening(buffer);
      const recordCount = Math.floor(buffer.length / recordBytes);
      const frame = { recordCount, dataBytes: 100, firstSequence: 1, timeMs: 0 } as FrameHeader;
      const records = decodeRecords(buffer, frame);
      assert.ok(records === undefined || records.length === recordCount);
    }),
    { numRuns },
  );
});

test("a header that fits its checksum and promises anything is no reason to take memory", async () => {
  const field = fc.constantFrom(4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44);
  const change = fc.tuple(
    field,
    fc.oneof(fc.nat(0xff_ff_ff_ff), fc.constantFrom(0, 1, 0xff_ff_ff_ff, 0x7f_ff_ff_ff)),
  );
  const base = new FrameBuilder(key, 1);
  base.add({ sequence: 1, timeMs: 1000, volume: 0, kind: 1, offset: 0, length: 2000 }, randomBytes(2000));
  const good = Buffer.concat(base.seal({ previousTag: opening.tag, durableEnd: 0 }).buffers);
  await fc.assert(
    fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 3 }), async (changes) => {
      const frame = Buffer.from(good);
      for (const [at, value] of changes) frame.writeUInt32LE(value, at);
      frame.writeUInt32LE(crc32(frame.subarray(0, 84)), 84);
      const { outcome, largestRead } = await scan(Buffer.concat([beginning, frame]));
      assert.ok(largestRead <= 1024 * 1024);
      const unchanged = frame.equals(good);
      if (!unchanged && typeof outcome !== "string")
        assert.equal(outcome.nextSequence, 1, "a changed frame was taken");
    }),
    { numRuns: Math.ceil(numRuns / 10) },
  );
});

test("records that whoever has the key may forge are checked all the same", async () => {
  const record = fc.record({
    volume: fc.nat(0xff_ff),
    kind: fc.integer({ min: 0, max: 6 }),
    offset: fc.oneof(fc.nat(), fc.constant(Number.MAX_SAFE_INTEGER)),
    length: fc.oneof(fc.nat(3000), fc.constant(Number.MAX_SAFE_INTEGER)),
    timeMs: fc.integer({ min: 1000, max: 2000 }),
    data: fc.uint8Array({ maxLength: 3000 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 5 }), async (records) => {
      const builder = new FrameBuilder(key, 1);
      const ordered = records.map((one) => one.timeMs).sort((a, b) => a - b);
      for (const [index, { volume, kind, offset, length, data }] of records.entries()) {
        const timeMs = ordered[index] ?? 1000;
        const fields: Omit<LogRecord, "at"> = {
          sequence: index + 1,
          timeMs,
          volume,
          kind: kind as RecordKind,
          offset,
          length,
        };
        builder.add(fields, data);
      }
      const frame = builder.seal({ previousTag: opening.tag, durableEnd: 0 });
      const { outcome } = await scan(Buffer.concat([beginning, ...frame.buffers]));
      const carried = records.reduce(
        (sum, { kind, length }) => sum + (kind === 1 || kind === 4 ? length : 0),
        0,
      );
      const data = records.reduce((sum, one) => sum + one.data.length, 0);
      if (carried !== data) assert.equal(typeof outcome === "string" || outcome.nextSequence === 1, true);
    }),
    { numRuns: Math.ceil(numRuns / 10) },
  );
});

test("frames survive the way to bytes and back", async () => {
  const write = fc.record({ offset: fc.nat(), data: fc.uint8Array({ minLength: 1, maxLength: 40_000 }) });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(write, { minLength: 1, maxLength: 6 }), { maxLength: 4 }),
      async (frames) => {
        const parts: Buffer[] = [beginning];
        let [previousTag, sequence] = [opening.tag, 1];
        for (const [index, writes] of frames.entries()) {
          const builder = new FrameBuilder(key, index + 1);
          for (const { offset, data } of writes) {
            builder.add(
              { sequence, timeMs: 1000 + sequence, volume: 3, kind: 1, offset, length: data.length },
              data,
            );
            sequence += 1;
          }
          const sealed = builder.seal({ previousTag, durableEnd: 0 });
          parts.push(...sealed.buffers);
          assert.equal(
            sealed.lengthBytes,
            sealed.buffers.reduce((sum, part) => sum + part.length, 0),
          );
          previousTag = sealed.tag;
        }
        const content = Buffer.concat(parts);
        const { outcome } = await scan(content);
        assert.ok(typeof outcome !== "string" && outcome.torn === undefined);
        assert.deepEqual([outcome.position, outcome.nextSequence], [content.length, sequence]);
        const first = decodeFrameHeader(
          content.subarray(segmentHeaderBytes, segmentHeaderBytes + frameHeaderBytes),
        );
        assert.equal(first === undefined ? 0 : frameBytes(first), opening.lengthBytes);
      },
    ),
    { numRuns: Math.ceil(numRuns / 30) },
  );
});
