import assert from "node:assert/strict";
import test from "node:test";
import { assert as check, nat, property, tuple } from "fast-check";
import { contains, formatIpv4, formatPrefix, overlaps, parseIpv4, parsePrefix } from "./ipv4.ts";

const address = nat({ max: 0xffffffff });
const prefix = tuple(address, nat({ max: 32 })).map(
  ([value, length]) =>
    parsePrefix(`${formatIpv4(value)}/${length}`) as NonNullable<ReturnType<typeof parsePrefix>>,
);

void test("addresses and prefixes survive their own text", () => {
  check(
    property(address, (value) => {
      assert.equal(parseIpv4(formatIpv4(value)), value);
    }),
  );
  check(
    property(prefix, (each) => {
      assert.deepEqual(parsePrefix(formatPrefix(each)), each);
    }),
  );
});

void test("two prefixes are nested or apart, and overlap tells which", () => {
  check(
    property(prefix, prefix, (a, b) => {
      assert.equal(overlaps(a, b), contains(a, b) || contains(b, a));
    }),
  );
});

void test("what is no prefix is refused", () => {
  for (const text of [
    "",
    "10.0.0.0",
    "10.0.0.0/33",
    "10.0.0/8",
    "256.0.0.0/8",
    "10.0.0.0/08",
    "010.0.0.0/8",
    "a/8",
  ]) {
    assert.equal(parsePrefix(text), undefined, text);
  }
});
