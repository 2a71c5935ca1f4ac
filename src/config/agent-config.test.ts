import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { checkAgentConfig, readAgentConfig } from "./agent-config.ts";

const base = `version: 1
vault: {url: "https://vault.example.net:7482", key: {file: ./key}}
disks:
  - {volume: vol-1, path: /dev/vdb}
`;

test("a small configuration gets its defaults", () => {
  const check = checkAgentConfig(base);
  assert.ok(check.ok);
  const { config } = check;
  assert.deepEqual(
    [config.state, config.every, config.spoolLimit],
    ["./understudy-agent", 600_000, 10 * 2 ** 30],
  );
  assert.equal(config.consistency, undefined);
});

test("everything there is", () => {
  const check = checkAgentConfig(`${base}every: 5m
consistency: {freeze: [/srv], hook: {before: [sync-db, "now"], after: [resume-db]}, gives: application, limit: 20s}
spoolLimit: 2GiB
bandwidth: 8MiB
window: {zone: local, ranges: ["22:00-06:00", "12:15-13:00"]}
`);
  assert.ok(check.ok);
  const { config } = check;
  assert.deepEqual(config.window?.ranges, [
    { fromMinute: 1320, toMinute: 360 },
    { fromMinute: 735, toMinute: 780 },
  ]);
  assert.equal(config.bandwidth, 8 * 1024 * 1024);
  assert.deepEqual(config.consistency?.hook?.before, ["sync-db", "now"]);
});

test("what cannot work is named with its line", () => {
  for (const [more, line, says] of [
    ["colour: red\n", 5, /unknown key "colour"/u],
    ["consistency: {}\n", 5, /name what holds the disks still/u],
    ["consistency: {freeze: [/srv], gives: application}\n", 5, /only a hook/u],
    ["consistency: {freeze: [srv]}\n", 5, /begins with \//u],
    ["spoolLimit: 1MiB\n", 5, /32MiB or more/u],
    ['window: {ranges: ["22-06"]}\n', 5, /looks like 22:00-06:00/u],
    ["  - {volume: vol-2, path: /dev/vdb}\n", 5, /two disks have the path/u],
    ["  - {volume: vol-2, path: /dev/vdc, snapshot: /dev/snap}\n", 5, /hook\.before/u],
  ] as const) {
    const check = checkAgentConfig(base + more);
    assert.ok(!check.ok, more);
    const [problem] = check.problems;
    assert.equal(problem?.line, line, more);
    assert.match(problem?.message ?? "", says);
  }
  const plain = checkAgentConfig(base.replace("https:", "http:"));
  assert.match(plain.ok ? "" : (plain.problems[0]?.message ?? ""), /HTTPS/u);
});

test("a missing file says where one is described", () => {
  assert.throws(
    () => readAgentConfig("/nonexistent/agent.yaml"),
    (error) => isOperational(error, "config.missing") && error.message.includes("docs/guide/agent.md"),
  );
});
