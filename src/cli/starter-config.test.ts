import assert from "node:assert/strict";
import { test } from "node:test";
import { starterConfig } from "#cli/starter-config.ts";
import { formatProblems } from "#config/check-document.ts";
import { checkConfig } from "#config/read-config.ts";

test("the configuration that init writes passes the check", () => {
  const check = checkConfig(starterConfig);
  assert.ok(check.ok, check.ok ? "" : formatProblems("starter", check.problems));
  assert.deepEqual(check.warnings, []);
});
