import assert from "node:assert/strict";
import test from "node:test";
import { compileFilters } from "./ec2-filter.ts";

interface Row {
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
}

const matches = (pattern: string, name: string): boolean =>
  compileFilters<Row>([{ Name: "name", Values: [pattern] }], { name: (row) => row.name })({ name, tags: {} });

void test("wildcards", () => {
  for (const [pattern, text, expected] of [
    ["web", "web", true],
    ["web", "web1", false],
    ["web*", "web", true],
    ["*b*", "abc", true],
    ["w?b", "web", true],
    ["w?b", "wb", false],
    ["a*b*c", "aXbYc", true],
    ["a*b*c", "aXcYb", false],
    ["a\\*b", "a*b", true],
    ["a\\*b", "aXb", false],
    ["*", "", true],
    ["", "", true],
    ["", "x", false],
  ] as const) {
    assert.equal(matches(pattern, text), expected, `${pattern} on ${text}`);
  }
});

void test("a hostile pattern costs no more than its length times the text's", () => {
  const started = process.cpuUsage().user;
  assert.equal(matches(`${"*a".repeat(200)}b`, "a".repeat(2000)), false);
  assert.ok(process.cpuUsage().user - started < 2_000_000);
});

void test("values are alternatives, filters add up, tags may have any name", () => {
  const keep = compileFilters<Row>(
    [
      { Name: "name", Values: ["a", "b"] },
      { Name: "tag:__proto__", Values: ["x"] },
    ],
    { name: (row) => row.name },
  );
  const tags = Object.fromEntries([["__proto__", "x"]]);
  assert.equal(keep({ name: "b", tags }), true);
  assert.equal(keep({ name: "c", tags }), false);
  assert.equal(keep({ name: "a", tags: {} }), false);
  assert.throws(() => compileFilters([{ Name: "constructor", Values: ["x"] }], {}), /invalid/);
});
