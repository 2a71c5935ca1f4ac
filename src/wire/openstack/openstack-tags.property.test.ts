import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import {
  markDescription,
  markerFor,
  metadataFromTags,
  neutronTagsFrom,
  readDescription,
  scopeDigestOf,
  serverFilterTags,
  splitMarker,
  tagsFromMetadata,
  tagsFromNeutron,
} from "./openstack-tags.ts";

const key = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 30 })
  .filter((text) => text !== "Name" && !text.startsWith("understudy:"));
const tags = fc.dictionary(key, fc.string({ unit: "grapheme", maxLength: 30 }), {
  maxKeys: 8,
  noNullPrototype: true,
});

void test("any tags survive as metadata, whose keys Nova takes", () => {
  fc.assert(
    fc.property(tags, (given) => {
      const metadata = metadataFromTags(given);
      for (const item of Object.keys(metadata)) assert.match(item, /^[a-zA-Z0-9-_:. ]{1,255}$/);
      assert.deepEqual(tagsFromMetadata(metadata), given);
    }),
  );
});

void test("any tags survive as Neutron's, none of which holds a comma", () => {
  fc.assert(
    fc.property(tags, (given) => {
      const texts = neutronTagsFrom(given);
      for (const text of texts) assert.ok(!text.includes(","));
      assert.deepEqual(tagsFromNeutron(texts), given);
    }),
  );
});

void test("a description of any length keeps its text and its marker, within Neutron's 255", () => {
  const plain = fc.string({ maxLength: 255 }).filter((text) => splitMarker(text).marker === undefined);
  fc.assert(
    fc.property(plain, fc.string(), fc.string(), (text, scope, token) => {
      const { description, tail } = markDescription(text, markerFor(scope, token));
      assert.ok(description.length <= 255);
      const read = readDescription(description, tail === undefined ? [] : ["a=b", tail]);
      assert.equal(read.text, text);
      assert.equal(read.marker?.scopeDigest, scopeDigestOf(scope));
    }),
  );
});

void test("what a cloud's filter wants: at most 60 characters, no slash, no comma", () => {
  const { token, scope } = serverFilterTags(markerFor("shop/drill-7f3a", "t".repeat(64)));
  for (const text of [token, scope]) assert.match(text, /^[a-z0-9-]{1,60}$/);
});

void test("tags that other tools made are read, and a key that could reach a prototype is only a key", () => {
  const read = tagsFromNeutron(["bare", "a=b=c", "__proto__=x"], "shop");
  assert.deepEqual(Object.entries(read), [
    ["Name", "shop"],
    ["bare", ""],
    ["a", "b=c"],
    ["__proto__", "x"],
  ]);
  assert.equal(Object.getPrototypeOf(read), Object.prototype);
});

void test("a value that OpenStack cannot hold is refused in words", () => {
  assert.throws(() => metadataFromTags({ note: "x".repeat(256) }), {
    code: "cloud.unsupported",
    message: /note/,
  });
  assert.throws(() => neutronTagsFrom({ note: "x".repeat(256) }), {
    code: "cloud.unsupported",
    message: /note/,
  });
});
