import assert from "node:assert/strict";
import { isIP } from "node:net";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { Secret } from "#kernel/secret.ts";
import { addressBytes, addressText } from "./dns-address.ts";
import { decodeMessage, type DnsMessage, encodeMessage } from "./dns-message.ts";
import { decodeName, DnsFormatError, encodeName, isWithin } from "./dns-name.ts";
import { signMessage, verifyMessage } from "./tsig.ts";

const runs = Number(process.env["FUZZ_RUNS"] ?? 5_000);
const bytes = (max: number): fc.Arbitrary<Buffer> =>
  fc.uint8Array({ maxLength: max }).map((array) => Buffer.from(array));
const label = fc.uint8Array({ minLength: 1, maxLength: 20 });
const name = fc.array(label, { maxLength: 6 }).map((labels) => {
  const wire = Buffer.concat([
    ...labels.map((one) => Buffer.concat([Buffer.of(one.length), one])),
    Buffer.of(0),
  ]);
  return decodeName(wire, 0).name;
});
const uint16 = fc.integer({ min: 0, max: 65_535 });
const question = fc.record({ name, type: uint16, class: uint16 }, { noNullPrototype: true });
const record = fc.record(
  { name, type: uint16, class: uint16, ttl: fc.nat(), data: bytes(40) },
  { noNullPrototype: true },
);
const message: fc.Arbitrary<DnsMessage> = fc.record(
  {
    id: uint16,
    response: fc.boolean(),
    opcode: fc.integer({ min: 0, max: 15 }),
    authoritative: fc.boolean(),
    truncated: fc.boolean(),
    code: fc.integer({ min: 0, max: 15 }),
    questions: fc.array(question, { maxLength: 3 }),
    answers: fc.array(record, { maxLength: 3 }),
    authorities: fc.array(record, { maxLength: 3 }),
    additionals: fc.array(record, { maxLength: 3 }),
  },
  { noNullPrototype: true },
);
const key = { name: "key.example.", secret: new Secret(Buffer.from("0123456789abcdef").toString("base64")) };

void describe("DNS messages", () => {
  void it("read back as written", () => {
    fc.assert(
      fc.property(message, (one) => {
        const { lastRecordAt: _, ...read } = decodeMessage(encodeMessage(one));
        assert.deepEqual(read, one);
      }),
      { numRuns: 500 },
    );
  });

  void it("fail with a format error and nothing else, whatever the bytes", () => {
    const mutated = fc
      .tuple(message, fc.array(fc.tuple(fc.nat(400), fc.nat(255)), { maxLength: 8 }))
      .map(([one, edits]) => {
        const wire = encodeMessage(one);
        for (const [at, value] of edits) if (at < wire.length) wire[at] = value;
        return wire;
      });
    fc.assert(
      fc.property(fc.oneof(bytes(300), mutated), (wire) => {
        try {
          decodeMessage(wire);
          verifyMessage(wire, key, 0);
        } catch (error) {
          assert.ok(error instanceof DnsFormatError, String(error));
        }
      }),
      { numRuns: runs },
    );
  });

  void it("refuse a pointer that loops or points forward", () => {
    for (const wire of [
      [0xc0, 0x00],
      [1, 97, 0xc0, 0x00],
      [0xc0, 0x02, 0xc0, 0x00],
    ])
      assert.throws(() => decodeName(Buffer.from(wire), 0), DnsFormatError);
  });

  void it("compare names by label", () => {
    assert.ok(isWithin("WWW.ex.test", "ex.test."));
    assert.ok(isWithin("ex.test.", "ex.test"));
    assert.ok(!isWithin("wwwex.test.", "ex.test."));
    assert.deepEqual(encodeName("A.b."), Buffer.from([1, 97, 1, 98, 0]));
  });

  void it("carry every address", () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (address) => {
        const text = addressText(addressBytes(address));
        assert.ok(isIP(text) > 0);
        assert.deepEqual(addressBytes(text), addressBytes(address));
      }),
    );
    assert.equal(addressText(addressBytes("2001:DB8:0:0:1:0:0:1")), "2001:db8::1:0:0:1");
  });
});

void describe("TSIG", () => {
  void it("verifies what was signed, and no changed bit of it", () => {
    fc.assert(
      fc.property(message, fc.nat(), fc.nat(7), (one, where, bit) => {
        const { bytes: wire } = signMessage(encodeMessage(one), key, 1_700_000_000_000);
        assert.equal(verifyMessage(wire, key, 1_700_000_000_000).ok, true);
        const at = where % wire.length;
        // The identifier in the header is not covered: the TSIG carries the original one (RFC 8945, 5.2).
        if (at < 2) return;
        wire[at] = (wire[at] ?? 0) ^ (1 << bit);
        let changed = false;
        try {
          changed = !verifyMessage(wire, key, 1_700_000_000_000).ok;
        } catch (error) {
          changed = error instanceof DnsFormatError;
        }
        // Names are covered in their lower-case form, and TSIG's own class and TTL are constants.
        if (!changed) {
          const again = decodeMessage(wire);
          const { lastRecordAt: _, additionals, ...rest } = again;
          const { additionals: wanted, ...same } = one;
          assert.deepEqual(
            { ...rest, additionals: additionals.slice(0, -1) },
            { ...same, additionals: wanted },
          );
        }
      }),
      { numRuns: 500 },
    );
  });

  void it("tells a wrong key, a missing signature and a stale time apart", () => {
    const plain = encodeMessage({
      id: 1,
      response: true,
      opcode: 5,
      authoritative: false,
      truncated: false,
      code: 0,
      questions: [],
      answers: [],
      authorities: [],
      additionals: [],
    });
    const mac = Buffer.from("request");
    const signed = signMessage(plain, key, 1_000_000, mac).bytes;
    const reason = (verdict: ReturnType<typeof verifyMessage>): string =>
      verdict.ok ? "ok" : verdict.reason;
    const other = { name: key.name, secret: new Secret("b3RoZXI=") };
    assert.equal(reason(verifyMessage(signed, key, 1_000_000, mac)), "ok");
    assert.equal(reason(verifyMessage(signed, key, 1_000_000)), "wrong");
    assert.equal(reason(verifyMessage(signed, other, 1_000_000, mac)), "wrong");
    assert.equal(reason(verifyMessage(signed, key, 2_000_000, mac)), "stale");
    assert.equal(reason(verifyMessage(plain, key, 1_000_000)), "unsigned");
  });
});
