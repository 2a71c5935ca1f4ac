import assert from "node:assert/strict";
import { test } from "node:test";
import { checkConfig } from "#config/read-config.ts";
import { retentionPolicyOf } from "#main/retention-policy-of.ts";
import { defaultRetention } from "#vault/plan-retention.ts";

const policyOf = (lines: string) => {
  const check = checkConfig(
    `version: 1\nvault:\n  store: {folder: ./store}\n  passphrase: {file: phrase}\n${lines}sites: {}\nenvironments: {}\n`,
  );
  assert.ok(check.ok && check.config.vault !== undefined, JSON.stringify(check));
  return retentionPolicyOf(check.config.vault.retention);
};

test("a configuration that says nothing of it has the vault's own policy", () => {
  assert.deepEqual(policyOf(""), defaultRetention);
});

test("every part of the policy can be said", () => {
  const policy = policyOf(
    "  retention: {keepAll: 5m, rules: [{every: 1h, for: 2d}, {every: month, for: 90d}]}\n",
  );
  assert.deepEqual(policy, {
    keepAllMs: 300_000,
    rules: [
      { every: 3_600_000, forMs: 172_800_000 },
      { every: "month", forMs: 7_776_000_000 },
    ],
  });
});
