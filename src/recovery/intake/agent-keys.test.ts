import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import { type AgentKey, createAgentAuthenticator } from "./agent-keys.ts";

const agent = (name: string, key: string, volume = `vol-${name}`): AgentKey => ({
  rights: { name, environment: "shop", volumes: [volume] },
  key: new Secret(key),
});
const [first, second] = ["1".repeat(32), "2".repeat(32)];

test("each key is its agent's", () => {
  const authenticate = createAgentAuthenticator([agent("web", first), agent("db", second)]);
  assert.equal(authenticate(`Bearer ${second}`).name, "db");
  for (const header of [undefined, "", "Bearer", `Basic ${first}`, `Bearer ${first} x`, `bearer ${first}`])
    assert.throws(
      () => authenticate(header),
      (error) => isOperational(error, "auth.missing"),
    );
  for (const key of ["x", `${first}1`, first.slice(1), "3".repeat(512)])
    assert.throws(
      () => authenticate(`Bearer ${key}`),
      (error) => isOperational(error, "auth.invalid"),
    );
});

test("keys that could be guessed or mixed up are refused, and no message shows one", () => {
  for (const [keys, says] of [
    [[agent("web", "short")], /openssl rand/u],
    [[agent("web", `${first} with a space`)], /openssl rand/u],
    [[agent("web", first), agent("db", first)], /same key/u],
    [[agent("web", first, "vol-1"), agent("db", second, "vol-1")], /both send volume vol-1/u],
  ] as const) {
    assert.throws(
      () => createAgentAuthenticator(keys),
      (error) =>
        isOperational(error, "config.invalid") && says.test(error.message) && !error.message.includes(first),
    );
  }
});
