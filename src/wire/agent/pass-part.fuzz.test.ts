import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { isOperational } from "#kernel/errors.ts";
import { decodeLeafRuns, encodeLeafRuns, leafBytes, type LeafRun } from "./leaf-runs.ts";
import {
  decodePart,
  decodePartHeader,
  encodePart,
  maxPartContentBytes,
  maxPartRecords,
  passBlockBytes,
  type PassPart,
} from "./pass-part.ts";

const numRuns = Number(process.env["FUZZ_RUNS"] ?? 20_000);
const sizeBytes = 64 * passBlockBytes;
const consistencies = ["fuzzy", "crash", "application"] as const;

const header: fc.Arbitrary<PassPart["header"]> = fc.record(
  {
    stream: fc.constantFrom("0".repeat(32), "0123456789abcdef".repeat(2)),
    number: fc.integer({ min: 1, max: 2 ** 40 }),
    pass: fc.integer({ min: 1, max: 2 ** 40 }),
    volumes: fc.array(
      fc.record({ volume: fc.constantFrom("vol-1", "ü"), sizeBytes: fc.constant(sizeBytes) }),
      {
        minLength: 1,
        maxLength: 4,
      },
    ),
    end: fc.option(
      fc.record({
        instantMs: fc.nat(),
        consistency: fc.constantFrom(...consistencies),
        reason: fc.option(fc.string({ maxLength: 20 })),
      }),
    ),
  },
  { noNullPrototype: true },
);
const part: fc.Arbitrary<PassPart> = header.chain((head) =>
  fc.record({
    header: fc.constant(head),
    records: fc.array(
      fc
        .record({
          volume: fc.nat(head.volumes.length - 1),
          offset: fc.nat(sizeBytes - 300),
          data: fc.option(fc.uint8Array({ minLength: 1, maxLength: 300 })),
          length: fc.integer({ min: 1, max: 300 }),
        })
        .map(({ data, length, ...rest }) => ({
          ...rest,
          length: data?.length ?? length,
          data: data === null ? null : Buffer.from(data),
        })),
      { maxLength: 5 },
    ),
  }),
);

test("a part is what was made of it", () => {
  fc.assert(
    fc.property(part, (made) => {
      const bytes = encodePart(made);
      assert.equal(JSON.stringify(decodePart(bytes)), JSON.stringify(made));
      assert.equal(JSON.stringify(decodePartHeader(bytes)), JSON.stringify(made.header));
    }),
    { numRuns: 500 },
  );
});

/** As if whoever sends it knew how to make a checksum: only then the checks behind it are reached. */
function sealed(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, createHash("sha256").update(bytes).digest()]);
}

function onlyRefused(work: () => unknown, code: "input.invalid" | "cloud.protocol"): void {
  try {
    work();
  } catch (error) {
    if (!isOperational(error, code)) throw error;
  }
}

test("rubbish is refused and named, whatever its checksum says", () => {
  const changed = fc
    .tuple(part, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(), fc.boolean())
    .map(([made, edits, cut, cuts]) => {
      const good = encodePart(made);
      const bytes = Buffer.from(good.subarray(0, good.length - 32));
      for (const [at, value] of edits) bytes[at % bytes.length] = value;
      return sealed(cuts ? bytes.subarray(0, cut % bytes.length) : bytes);
    });
  const noise = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes));
  fc.assert(
    fc.property(fc.oneof({ weight: 5, arbitrary: changed }, noise), (bytes) => {
      onlyRefused(() => decodePart(bytes), "input.invalid");
      onlyRefused(() => decodePartHeader(bytes), "input.invalid");
    }),
    { numRuns },
  );
});

/** A part with this body, otherwise as it should be. */
function withBody(body: Buffer): Buffer {
  const good = encodePart({
    header: {
      stream: "0".repeat(32),
      number: 1,
      pass: 1,
      volumes: [{ volume: "v", sizeBytes }],
      end: null,
    },
    records: [],
  });
  const end = 12 + good.readUInt32BE(8);
  const length = Buffer.alloc(4);
  const compressed = zstdCompressSync(body);
  length.writeUInt32BE(compressed.length);
  return sealed(Buffer.concat([good.subarray(0, end), length, compressed]));
}

function record(kind: number, volume: number, length: number, offset: bigint): Buffer {
  const bytes = Buffer.alloc(16);
  bytes[0] = kind;
  bytes[1] = volume;
  bytes.writeUInt32BE(length, 4);
  bytes.writeBigUInt64BE(offset, 8);
  return bytes;
}

test("a few bytes that say they are gigabytes are not believed", () => {
  const bomb = withBody(Buffer.alloc(maxPartContentBytes + maxPartRecords * 16 + 1));
  assert.ok(bomb.length < 10_000);
  assert.throws(() => decodePart(bomb), /cannot be decompressed/u);
});

test("a record that leaves its volume, or names none, is refused", () => {
  assert.equal(decodePart(withBody(record(2, 0, 4096, BigInt(sizeBytes - 4096)))).records.length, 1);
  for (const bad of [
    record(2, 0, 4097, BigInt(sizeBytes - 4096)),
    record(2, 0, 4096, 2n ** 64n - 4096n),
    record(2, 0, 0, 0n),
    record(2, 0, passBlockBytes + 1, 0n),
    record(2, 1, 4096, 0n),
    record(3, 0, 4096, 0n),
    record(1, 0, 4096, 0n),
    record(2, 0, 4096, 0n).subarray(0, 15),
  ]) {
    assert.throws(
      () => decodePart(withBody(bad)),
      (error) => isOperational(error, "input.invalid"),
    );
  }
  const many = Buffer.concat(Array.from({ length: maxPartRecords + 1 }, () => record(2, 0, 1, 0n)));
  assert.throws(() => decodePart(withBody(many)), /too many/u);
});

const runs: fc.Arbitrary<LeafRun[]> = fc.array(
  fc.oneof(
    fc.record({ blocks: fc.integer({ min: 1, max: 2 ** 32 - 1 }), leaves: fc.constant(null) }),
    fc
      .integer({ min: 1, max: 5 })
      .map((blocks) => ({ blocks, leaves: Buffer.alloc(blocks * leafBytes, blocks) })),
  ),
  { maxLength: 6 },
);
const blocksOf = (made: readonly LeafRun[]): number => made.reduce((sum, { blocks }) => sum + blocks, 0);

test("runs of hashes are what was made of them, and rubbish is refused", () => {
  fc.assert(
    fc.property(runs, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 3 }), (made, edits) => {
      const bytes = encodeLeafRuns(made);
      assert.equal(JSON.stringify(decodeLeafRuns(bytes, blocksOf(made))), JSON.stringify(made));
      assert.throws(() => decodeLeafRuns(bytes, blocksOf(made) + 1));
      for (const [at, value] of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
      onlyRefused(() => decodeLeafRuns(bytes, blocksOf(made)), "cloud.protocol");
      onlyRefused(
        () => decodeLeafRuns(bytes.subarray(0, bytes.length - 1), blocksOf(made)),
        "cloud.protocol",
      );
    }),
    { numRuns },
  );
});
