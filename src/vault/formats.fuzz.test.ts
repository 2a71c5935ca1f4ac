import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isOperational } from "#kernel/errors.ts";
import { type BlobRef, type MapEntry, hole, zero } from "./block-ref.ts";
import { decodeChecked, encodeChecked } from "./checked-document.ts";
import { decodeIndex, encodeIndex } from "./index-object.ts";
import { decodeNode, encodeNode } from "./map-node.ts";
import { unwrapMaster } from "./master-key.ts";
import { decodeDirectory, decodeTrailer, decryptDirectory } from "./pack-format.ts";
import { decodeSpans, encodeSpans, recordLength } from "./patch-record.ts";
import { decodeManifest, makePointId, parsePointId } from "./point-manifest.ts";
import { sealKinds, seal, unseal } from "./sealed-object.ts";
import { passphrase } from "./vault.fixture.ts";
import { deriveKeys } from "./vault-keys.ts";

const numRuns = Number(process.env["VAULT_FUZZ_RUNS"] ?? 2_000);
const keys = deriveKeys(Buffer.alloc(32, 7), "fuzz");
const id = makePointId("v", 0, "0".repeat(16));

const refArbitrary: fc.Arbitrary<BlobRef> = fc.record(
  {
    id: fc.constantFrom("ab".repeat(20), "cd".repeat(20)),
    pack: fc.constantFrom("01".repeat(20), "02".repeat(20), "03".repeat(20)),
    offset: fc.nat(2 ** 31 - 1),
    storedLength: fc.integer({ min: 16, max: 1000 }),
    plainLength: fc.integer({ min: 1000, max: 262_144 }),
    codec: fc.constantFrom(0, 1),
  },
  { noNullPrototype: true },
);
const entryArbitrary: fc.Arbitrary<MapEntry> = fc.oneof(
  fc.constant(hole),
  fc.constant(zero),
  refArbitrary.map((ref): MapEntry => ({ kind: "blob", ref })),
  fc
    .tuple(refArbitrary, refArbitrary, fc.nat(400), fc.nat(500))
    .map(([ref, bundle, offset, length]): MapEntry => ({
      kind: "patched",
      ref,
      patch: { bundle, offset, length },
    })),
);

/** Bytes of any kind, and good ones that were changed a little: only the latter get past the first checks. */
function hostile(good: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const changed = fc
    .tuple(good, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(), fc.boolean())
    .map(([bytes, edits, cut, cuts]) => {
      const copy = Buffer.from(bytes);
      for (const [at, value] of edits) if (copy.length > 0) copy[at % copy.length] = value;
      return cuts ? copy.subarray(0, cut % (copy.length + 1)) : copy;
    });
  return fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    changed,
  );
}

/** Either it decodes, or it is damage: nothing else may come of it. */
function survives(name: string, good: fc.Arbitrary<Buffer>, decode: (bytes: Buffer) => unknown): void {
  test(`${name} survives hostile bytes`, async () => {
    await fc.assert(
      fc.asyncProperty(hostile(good), async (bytes) => {
        try {
          await decode(bytes);
        } catch (error) {
          assert.ok(
            isOperational(error, "vault.damaged") || isOperational(error, "vault.key"),
            String(error),
          );
        }
      }),
      { numRuns },
    );
  });
}

const node = fc.tuple(fc.constantFrom(0, 1), fc.array(entryArbitrary, { minLength: 1, maxLength: 20 }));
survives(
  "a map node",
  node.map(([level, entries]) => encodeNode(level, entries)),
  (bytes) => decodeNode("x", 0, bytes),
);
const directory = fc.array(
  fc.record({
    id: fc.constantFrom("ab".repeat(20), "cd".repeat(20)),
    kind: fc.constantFrom(1, 2, 3),
    codec: fc.constantFrom(0, 1),
    offset: fc.nat(2 ** 31 - 1),
    storedLength: fc.nat(2 ** 20),
    plainLength: fc.nat(2 ** 20),
  }),
  { maxLength: 10 },
);
survives(
  "an index",
  directory.map((entries) => encodeIndex([{ pack: "01".repeat(20), directory: entries }])),
  (bytes) => decodeIndex("x", bytes).each(() => {}),
);
const anyBytes = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
survives("a directory", anyBytes, (bytes) => decodeDirectory("x", bytes));
survives("an encrypted directory", anyBytes, (bytes) =>
  bytes.length < 21 ? undefined : decryptDirectory(keys, "01".repeat(20), bytes.length + 16, bytes),
);
survives("a pack's trailer", anyBytes, (bytes) => decodeTrailer("01".repeat(20), 100_000, bytes));
survives(
  "a patch record",
  fc.array(fc.record({ offset: fc.nat(1000), length: fc.nat(50) }), { maxLength: 5 }).map((spans) => {
    const record = Buffer.alloc(recordLength(spans));
    encodeSpans(record, 0, spans);
    return record;
  }),
  (bytes) => decodeSpans("x", bytes, 1050),
);
survives("a sealed object", fc.constant(seal(keys, sealKinds.index, "x", Buffer.from("plain"))), (bytes) =>
  unseal(keys, sealKinds.index, "x", bytes),
);
// Sealed as the vault would: what is inside is then all that can be wrong.
const json = fc.json().map((text) => Buffer.from(text));
survives("a manifest's document", fc.oneof(anyBytes, json), (bytes) =>
  decodeManifest(keys, id, seal(keys, sealKinds.point, `points/${id}`, bytes)),
);
const document = fc.json().map((json) => encodeChecked(JSON.parse(json)));
survives("a checked document", document, (bytes) => decodeChecked("x", bytes));
survives("a key document", document, (bytes) => unwrapMaster("x", bytes, "fuzz", passphrase()));

test("a node reads back as it was written", () => {
  fc.assert(
    fc.property(fc.array(entryArbitrary, { minLength: 1, maxLength: 256 }), (entries) => {
      const fits = entries.map((entry) =>
        entry.kind === "patched" && entry.patch.offset + entry.patch.length > entry.patch.bundle.plainLength
          ? hole
          : entry,
      );
      assert.deepEqual(decodeNode("x", 0, encodeNode(0, fits)), fits);
    }),
  );
});

test("a point's name reads back, whatever the volume is called", () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1, maxLength: 16, unit: "grapheme" }),
      fc.integer({ min: 0, max: 4_000_000_000_000 }),
      (volumeId, timeMs) => {
        fc.pre(Buffer.byteLength(volumeId) <= 64 && volumeId.isWellFormed());
        const point = makePointId(volumeId, timeMs, "0123456789abcdef");
        assert.match(point, /^[A-Za-z0-9_][A-Za-z0-9._-]*\/[0-9T.]+Z-[0-9a-f]{16}$/);
        assert.deepEqual(parsePointId(point), { id: point, volumeId, timeMs });
      },
    ),
  );
});
