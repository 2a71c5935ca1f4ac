import assert from "node:assert/strict";
import { test } from "node:test";
import { checkConfig } from "#config/read-config.ts";
import type { Config } from "#config/config-schema.ts";
import { probesOf, settingsOf } from "#main/settings-of.ts";

function configOf(environment: string): Config {
  const site =
    "{driver: ec2, region: us-east-1, credentials: {accessKeyId: {env: A}, secretAccessKey: {env: B}}}";
  const check = checkConfig(
    `version: 1\nsites: {a: ${site}, b: ${site}}\nenvironments:\n  shop: {active: a, standby: b, ${environment}}\n`,
  );
  assert.ok(check.ok, check.ok ? "" : JSON.stringify(check.problems));
  return check.config;
}

function shopOf(config: Config): Config["environments"][string] {
  const { shop } = config.environments;
  assert.ok(shop);
  return shop;
}

test("three silent looks of the slowest probe make a witness stale", () => {
  const config = configOf(
    "probes: [{name: web, every: 2s, timeout: 3s, check: {http: 'http://127.0.0.1/'}}, {name: db, check: {tcp: '127.0.0.1:5432'}}], failover: {}",
  );
  assert.equal(settingsOf("shop", shopOf(config)).staleAfterMs, 15_000);
});

test("witnesses by name, triggers in milliseconds, scales with their mode", () => {
  const config = configOf(
    "probes: [{name: cloud, check: {cloudApi: active}}], reserve: {servers: none}, witnesses: [engine, {name: north, token: {env: T}}], failover: {triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: 90s}]}",
  );
  const settings = settingsOf("shop", shopOf(config));
  assert.deepEqual(settings.witnesses, ["engine", "north"]);
  assert.deepEqual(settings.triggers, [{ codes: ["cloud.api_unreachable"], witnesses: 2, forMs: 90_000 }]);
  assert.deepEqual(settings.reserve.servers, { mode: "none" });
});

test("what users see is looked at after a move; the clouds' own APIs are not what users see", () => {
  const config = configOf(
    "probes: [{name: web, check: {http: 'http://127.0.0.1/'}}, {name: cloud, check: {cloudApi: active}}], failover: {}",
  );
  const { applicationProbes } = settingsOf("shop", shopOf(config));
  assert.deepEqual(
    applicationProbes.map(({ name }) => name),
    ["web"],
  );
});

test("a cloud's API is looked at on both sites: to leave, and to return", () => {
  const config = configOf("probes: [{name: cloud, check: {cloudApi: active}}], failover: {}");
  assert.deepEqual(
    probesOf(config, shopOf(config)).map(({ name, check }) => [name, check.type]),
    [
      ["cloud@a", "cloud_api"],
      ["cloud@b", "cloud_api"],
    ],
  );
});
