import assert from "node:assert/strict";
import { test } from "node:test";
import { FileRanking, holds, matchesPath, weightOf } from "./file-rules.ts";
import { REGION_BYTES } from "./read-trace.ts";
import type { FoundFile } from "./file-system/read-ext.ts";

const day = 86_400_000;
const nowMs = 1000 * day;

function file(path: string, more: Partial<FoundFile> = {}): FoundFile {
  const base = { kind: "file" as const, isExecutable: false, sizeBytes: 1000, modifiedMs: nowMs - day };
  return { path, ...base, ranges: [], trail: null, ...more };
}

void test("a pattern matches names by * and ?, and any number of them by **", () => {
  const cases: readonly [string, string, boolean][] = [
    ["/var/lib/**", "/var/lib/postgresql/base/1", true],
    ["/var/lib/**", "/var/lib", true],
    ["/var/lib/**", "/var/library/x", false],
    ["/**/*.so", "/usr/lib/x86/libc.so", true],
    ["/**/*.so", "/libc.so", true],
    ["/**/*.so", "/libc.so.6", false],
    ["/etc/*", "/etc/hosts", true],
    ["/etc/*", "/etc/ssh/config", false],
    ["/e?c/h*t*s", "/etc/hosts", true],
    ["**", "/anything/at/all", true],
    ["/a*b*c", "/aXbXbXc", true],
    ["/a*b*c", "/aXbXbX", false],
  ];
  for (const [pattern, path, expected] of cases)
    assert.equal(matchesPath(pattern, path), expected, `${pattern} ${path}`);
});

void test("a path that was made to take long takes no time", () => {
  const startedAt = performance.now();
  const names = Array.from({ length: 2000 }, () => "a".repeat(200)).join("/");
  assert.equal(matchesPath(`/**/${"*a".repeat(50)}b/**/x/**`, `/${names}`), false);
  assert.ok(performance.now() - startedAt < 5000);
});

void test("a rule holds when all that it says holds; the weights of those that hold add up", () => {
  const rules = [
    { path: "/srv/**", weight: 5 },
    { modifiedWithinMs: 7 * day, weight: 2 },
    { kind: "library" as const, smallerThanBytes: 1024 * 1024, weight: 3 },
    { path: "/srv/tmp/**", weight: -100 },
  ];
  const weight = (one: FoundFile) => weightOf(rules, one, one.path, nowMs);
  assert.equal(weight(file("/srv/db/1")), 7);
  assert.equal(weight(file("/srv/db/1", { modifiedMs: 0 })), 5);
  assert.equal(weight(file("/usr/lib/libc.so.6")), 5);
  assert.equal(weight(file("/usr/lib/libc.so.6", { sizeBytes: 2 ** 21, modifiedMs: 0 })), 0);
  assert.ok(weight(file("/srv/tmp/x")) < 0);
  assert.ok(!holds({ kind: "executable", weight: 1 }, file("/bin/sh"), "/bin/sh", nowMs));
  assert.ok(holds({ largerThanBytes: 999, weight: 1 }, file("/x"), "/x", nowMs));
});

void test("regions are named in the order of weight, then of recency, each once, and what leads to a file before it", () => {
  const at = (region: number) => ({ offset: region * REGION_BYTES + 5, length: 10 });
  const ranking = new FileRanking(
    [
      { path: "/a/**", weight: 1 },
      { path: "/a/b*", weight: 1 },
    ],
    nowMs,
  );
  const trail = { ranges: [at(9)], parent: { ranges: [at(8)], parent: null } };
  ranking.add(file("/a/old", { ranges: [at(3)], modifiedMs: 1, trail }), "");
  ranking.add(file("/a/new", { ranges: [{ offset: 4 * REGION_BYTES - 1, length: 2 }], trail }), "");
  ranking.add(file("/a/best", { ranges: [at(7)], modifiedMs: 0, trail }), "");
  ranking.add(file("/c", { ranges: [at(1)] }), "");
  assert.deepEqual(ranking.regions(100), [9, 8, 7, 3, 4]);
  assert.deepEqual(ranking.regions(2), [9, 8]);
});

void test("a path is known from the file system's root, and as the machine had it mounted", () => {
  const ranking = new FileRanking([{ path: "/srv/data/db", weight: 1 }], nowMs);
  ranking.add(file("/data/db", { ranges: [{ offset: 0, length: 1 }] }), "/srv");
  ranking.add(file("/data/db", { ranges: [{ offset: REGION_BYTES, length: 1 }] }), "/mnt");
  assert.deepEqual(ranking.regions(10), [0]);
});
