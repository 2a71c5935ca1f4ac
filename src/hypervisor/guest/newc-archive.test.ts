import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type ArchiveEntry, encodeNewc } from "./newc-archive.ts";

/** By the kernel's document, independent of the encoder. */
function decode(archive: Buffer): { path: string; mode: number; content: Buffer }[] {
  const found = [];
  let at = 0;
  for (;;) {
    assert.equal(archive.toString("latin1", at, at + 6), "070701");
    const field = (index: number): number =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, nameLength] = [field(1), field(6), field(11)];
    const path = archive.toString("utf8", at + 110, at + 110 + nameLength - 1);
    const content = Math.ceil((at + 110 + nameLength) / 4) * 4;
    if (path === "TRAILER!!!") return found;
    found.push({ path, mode, content: archive.subarray(content, content + size) });
    at = Math.ceil((content + size) / 4) * 4;
  }
}

test("an archive reads back as what was put in, whatever the lengths", () => {
  const entry: fc.Arbitrary<ArchiveEntry> = fc.record({
    path: fc.stringMatching(/^[a-z][a-z0-9/._-]{0,40}$/),
    kind: fc.constantFrom("file", "folder", "link"),
    content: fc.uint8Array({ maxLength: 50 }),
  });
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 10 }), (entries) => {
      const back = decode(encodeNewc(entries));
      assert.deepEqual(
        back.map(({ path, content }) => [path, content.toString("hex")]),
        entries.map(({ path, content }) => [path, Buffer.from(content ?? "").toString("hex")]),
      );
      const types = { file: 0o100644, folder: 0o040755, link: 0o120777, character_device: 0o020600 };
      for (const [index, { mode }] of back.entries())
        assert.equal(mode, types[entries[index]?.kind ?? "file"]);
    }),
  );
});
