import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { Json } from "#kernel/json.ts";
import { QmpDecoder } from "./qmp-decoder.ts";
import { decodeQmpMessage, encodeQmpCommand } from "./qmp-message.ts";

const runs = Number(process.env["FUZZ_RUNS"] ?? 2000);

// Taken from a session with QEMU 7.2.
const session = [
  '{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2"}, "capabilities": ["oob"]}}',
  '{"return": {}, "id": "1"}',
  '{"timestamp": {"seconds": 1795273249, "microseconds": 291962}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}',
  '{"id": "2", "error": {"class": "GenericError", "desc": "Duplicate nodes with node-name=\'x0\'"}}',
  '{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "STOP"}',
];
const expected = [
  { kind: "greeting", version: { major: 7, minor: 2, micro: 22 }, capabilities: ["oob"] },
  { kind: "return", id: "1", value: {} },
  {
    kind: "event",
    name: "SHUTDOWN",
    data: { guest: true, reason: "guest-shutdown" },
    timeUs: 1795273249291962,
  },
  {
    kind: "error",
    id: "2",
    errorClass: "GenericError",
    description: "Duplicate nodes with node-name='x0'",
  },
  { kind: "event", name: "STOP", data: {}, timeUs: null },
];

function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [0, ...places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return at.slice(1).map((end, index) => bytes.subarray(at[index], end));
}

test("a session decodes to the same messages however its bytes are cut", () => {
  const bytes = Buffer.from(session.map((line) => `${line}\r\n`).join(""));
  fc.assert(
    fc.property(fc.array(fc.nat()), (places) => {
      const decoder = new QmpDecoder();
      const seen = cut(bytes, places).flatMap((piece) => decoder.push(piece));
      assert.deepEqual(
        seen.map((one) => (one.ok ? one.message : one)),
        expected,
      );
    }),
  );
});

test("text outside ASCII survives a cut within a character", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), fc.array(fc.nat()), (text, places) => {
      const decoder = new QmpDecoder();
      const bytes = Buffer.from(`${JSON.stringify({ return: text, id: "x" })}\n`);
      const seen = cut(bytes, places).flatMap((piece) => decoder.push(piece));
      assert.deepEqual(seen, [{ ok: true, message: { kind: "return", id: "x", value: text } }]);
    }),
  );
});

test("a command is one line that says what was asked", () => {
  fc.assert(
    fc.property(fc.string(), fc.string(), fc.dictionary(fc.string(), fc.jsonValue()), (id, name, args) => {
      const line = encodeQmpCommand(id, name, args as { [key: string]: Json });
      assert.equal(line.indexOf("\n"), line.length - 1);
      const want = JSON.parse(JSON.stringify({ execute: name, arguments: args, id })) as unknown;
      assert.deepEqual(JSON.parse(line), want);
    }),
  );
});

test("rubbish is named, bounded, and does not spoil the message behind it", () => {
  const rubbish = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value))),
    fc
      .tuple(fc.constantFrom("QMP", "return", "error", "event"), fc.jsonValue())
      .map(([key, value]) => Buffer.from(JSON.stringify({ [key]: value }))),
  );
  fc.assert(
    fc.property(fc.array(rubbish, { maxLength: 5 }), fc.array(fc.nat()), (pieces, places) => {
      const decoder = new QmpDecoder(200);
      const sent = Buffer.concat([...pieces, Buffer.from('\n{"return": 5, "id": "end"}\n')]);
      const seen = cut(sent, places).flatMap((piece) => decoder.push(piece));
      assert.deepEqual(seen.at(-1), { ok: true, message: { kind: "return", id: "end", value: 5 } });
      for (const one of seen) if (!one.ok) assert.ok(one.line.length <= 200);
    }),
    { numRuns: runs },
  );
});

test("a line without an end is dropped at the limit, not kept", () => {
  const decoder = new QmpDecoder(1000);
  const faults = Array.from({ length: 50 }, () => decoder.push(Buffer.alloc(100, "x"))).flat();
  assert.deepEqual(
    faults.map((one) => !one.ok && one.fault),
    ["too_long"],
  );
  assert.deepEqual(decoder.push(Buffer.from('\n{"return":1}\n')), [
    { ok: true, message: { kind: "return", id: null, value: 1 } },
  ]);
});

test("what looks like a message but is not one is none", () => {
  for (const line of [
    '{"QMP": {}}',
    '{"QMP": {"version": {"qemu": {"major": "7"}}}}',
    '{"error": "no"}',
    '{"error": {"class": 5, "desc": "x"}}',
    '{"event": 5}',
    "[]",
    "null",
    "5",
    "{}",
  ]) {
    assert.equal(decodeQmpMessage(line), null, line);
  }
});
