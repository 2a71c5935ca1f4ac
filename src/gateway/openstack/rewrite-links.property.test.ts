import assert from "node:assert/strict";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import * as fc from "fast-check";
import { linkRewriter } from "./rewrite-links.ts";

const roots = new Map([
  ["compute", new URL("http://10.0.0.5:8774")],
  ["volume", new URL("https://cloud.example/volume")],
  ["network", new URL("https://cloud.example")],
] as const);
const base = "http://gateway:9000";
const json = ["Content-Type", "application/json", "Content-Length", "1"];

function edit(chunks: readonly Buffer[], headers: readonly string[] = json): string {
  const edited = linkRewriter(roots, base)(headers);
  assert.ok(edited !== undefined);
  return Buffer.concat([...chunks.map((chunk) => edited.push(chunk)), edited.end()]).toString("utf8");
}

const links: readonly (readonly [string, string])[] = [
  [
    '{"href": "http://10.0.0.5:8774/v2.1/servers/1"}',
    '{"href": "http://gateway:9000/compute/v2.1/servers/1"}',
  ],
  ['{"href":"https://10.0.0.5:8774/v2.1/"}', '{"href":"http://gateway:9000/compute/v2.1/"}'],
  [
    '{"next": "https://cloud.example/volume/v3/p/volumes?m=1"}',
    '{"next": "http://gateway:9000/volume/v3/p/volumes?m=1"}',
  ],
  ['{"href" : "http://cloud.example/v2.0/ports"}', '{"href" : "http://gateway:9000/networking/v2.0/ports"}'],
  ['{"href": "http://10.0.0.5:8774"}', '{"href": "http://gateway:9000/compute"}'],
];
const others: readonly string[] = [
  '{"href": "http://10.0.0.5:87741/x"}',
  '{"href": "https://cloud.example.org/x"}',
  '{"url": "http://10.0.0.5:8774/v2.1/"}',
  '{"metadata": {"api": "http://10.0.0.5:8774/", "ünï": "→"}}',
  '{"next": "/v2/images?marker=1"}',
  '"href": "http',
  '{"href": "',
];

for (const [given, wanted] of links) {
  test(`${given} leads to the gateway`, () => assert.equal(edit([Buffer.from(given)]), wanted));
}

for (const text of others) {
  test(`${text} stays as it is`, () => assert.equal(edit([Buffer.from(text)]), text));
}

test("however the answer is cut into pieces, it is edited as if whole", () => {
  const piece = fc.constantFrom(...links, ...others.map((text) => [text, text] as const));
  fc.assert(
    fc.property(
      fc.array(piece, { maxLength: 12 }),
      fc.array(fc.nat({ max: 400 }), { maxLength: 20 }),
      (parts, cuts) => {
        const whole = Buffer.from(parts.map(([given]) => given).join(","));
        const ends = [...cuts, whole.length].filter((cut) => cut <= whole.length).sort((a, b) => a - b);
        const chunks = ends.map((end, at) => whole.subarray(ends[at - 1] ?? 0, end));
        assert.equal(edit(chunks), parts.map(([, wanted]) => wanted).join(","));
      },
    ),
    { numRuns: 2_000 },
  );
});

test("what is no JSON keeps its bytes and its length; Location leads to the gateway", () => {
  const headers = ["Content-Type", "application/octet-stream", "Content-Length", "9"];
  const edited = linkRewriter(roots, base)([...headers, "Location", "http://10.0.0.5:8774/v2.1/servers/1"]);
  assert.ok(edited !== undefined);
  assert.deepEqual(edited.headers, [...headers, "Location", "http://gateway:9000/compute/v2.1/servers/1"]);
  const bytes = Buffer.from([0xff, 0x00, 0x80]);
  assertSameBytes(Buffer.concat([edited.push(bytes), edited.end()]), bytes);
});

test("an edited answer goes out without the length that the cloud gave", () => {
  assert.deepEqual(linkRewriter(roots, base)(json)?.headers, ["Content-Type", "application/json"]);
});
