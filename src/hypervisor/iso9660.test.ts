import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { encodeIso9660 } from "./iso9660.ts";

const SECTOR = 2048;

/** By ECMA-119, independent of the encoder. */
function decode(image: Buffer): { label: string; files: Record<string, string> } {
  assert.equal(image.toString("latin1", 16 * SECTOR, 16 * SECTOR + 7), "\x01CD001\x01");
  assert.equal(image.readUInt32LE(16 * SECTOR + 80) * SECTOR, image.length);
  const label = image.toString("latin1", 16 * SECTOR + 40, 16 * SECTOR + 72).trimEnd();
  const root = image.readUInt32LE(16 * SECTOR + 156 + 2) * SECTOR;
  const files: Record<string, string> = {};
  for (let at = root; image[at] !== 0; at += image[at] ?? 0) {
    assert.equal(image.readUInt32LE(at + 2), image.readUInt32BE(at + 6));
    const name = image.toString("latin1", at + 33, at + 33 + (image[at + 32] ?? 0));
    if (name === "\0" || name === "\x01") continue;
    const start = image.readUInt32LE(at + 2) * SECTOR;
    files[name.replace(/;1$/, "")] = image.toString("utf8", start, start + image.readUInt32LE(at + 10));
  }
  return { label, files };
}

test("a seed disk reads back as what was put in, and is the same for the same content", () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 9000 }), fc.string({ maxLength: 100 }), (user, meta) => {
      const text = (value: string): string => Buffer.from(value).toString();
      const files = { "user-data": text(user), "meta-data": text(meta) };
      const image = encodeIso9660("cidata", files);
      assert.deepEqual(decode(image), { label: "cidata", files });
      assert.deepEqual(encodeIso9660("cidata", files), image);
    }),
    { numRuns: 50 },
  );
});
