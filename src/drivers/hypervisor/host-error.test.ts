import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { hostError } from "./host-error.ts";

const socket = "/run/host.sock";

void test("the site's own errors pass as they are", () => {
  const full = new OperationalError("cloud.quota", "full", { remoteCode: "HostFull" });
  assert.equal(hostError(full, socket), full);
});

void test("others get the contract's codes, and keep what is known of the outcome", () => {
  const full = new OperationalError("store.full", "no space is left", {
    outcome: "unknown",
    detail: "ENOSPC",
  });
  const told = hostError(full, socket);
  assert.equal(told.code, "cloud.failing");
  assert.equal(told.outcome, "unknown");
  assert.equal(told.retry, "later");
  assert.equal(told.detail, "ENOSPC");
  assert.match(told.message, /no space is left/u);
  assert.equal(hostError(new OperationalError("input.invalid", "spec.cidr"), socket).code, "cloud.refused");
});

void test("a bug of the agent's leaves the outcome open", () => {
  const told = hostError(new OperationalError("internal", "internal error"), socket);
  assert.equal(told.code, "cloud.failing");
  assert.equal(told.outcome, "unknown");
});

void test("a socket of something else is named", () => {
  const told = hostError(new OperationalError("not_found", 'there is no method "create"'), socket);
  assert.equal(told.code, "cloud.protocol");
  assert.equal(told.retry, "never");
  assert.match(told.message, /\/run\/host\.sock is no host agent/u);
});
