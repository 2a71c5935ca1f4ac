import assert from "node:assert/strict";
import { test } from "node:test";
import type { OperationalError } from "#kernel/errors.ts";
import { errorFixtures } from "#wire/openstack/recorded.fixture.ts";
import { errorFromAnswer, retryAfterMs } from "./cloud-error.ts";

const recorded = new Map(errorFixtures().map((one) => [one.name, one]));

function errorOf(name: string, headers: Readonly<Record<string, string>> = {}): OperationalError {
  const fixture = recorded.get(name);
  assert.ok(fixture, name);
  const { service, method, path, status, body } = fixture;
  const answer = { status, text: body, headers: new Map(Object.entries(headers)) };
  return errorFromAnswer({ service, method, path, change: method !== "GET" }, answer, 0);
}

void test("what real services refuse, by the contract's codes", () => {
  const expected: Readonly<Record<string, string>> = {
    "wrong password": "cloud.credentials",
    "unknown token": "cloud.credentials",
    "unknown application credential": "cloud.credentials",
    "compute bad token": "cloud.credentials",
    "image bad token": "cloud.credentials",
    "rule duplicate": "cloud.conflict",
    "rule bad prefix": "cloud.refused",
    "key pair duplicate": "cloud.conflict",
    "server unknown image": "cloud.not_found",
    "server unknown flavor": "cloud.not_found",
    "server unknown network": "cloud.not_found",
    "server unknown key pair": "cloud.not_found",
    "server unknown security group": "cloud.not_found",
    "server unknown zone": "cloud.refused",
    "server start when active": "cloud.conflict",
    "attach twice": "cloud.conflict",
    "volume delete in use": "cloud.conflict",
    "gateway in use": "cloud.conflict",
    "network in use": "cloud.conflict",
    "image not found": "cloud.not_found",
    "network not found": "cloud.not_found",
    "server quota": "cloud.quota",
    "network quota": "cloud.quota",
    "floating ip quota": "cloud.quota",
    "volume quota": "cloud.quota",
    "volume gigabytes quota": "cloud.quota",
    "compute microversion": "cloud.unsupported",
  };
  for (const [name, code] of Object.entries(expected)) {
    const error = errorOf(name);
    assert.equal(error.code, code, `${name}: ${error.message}`);
    assert.equal(error.outcome, "not_applied", name);
  }
  assert.equal(errorOf("volume quota", { "retry-after": "0" }).code, "cloud.quota");
});

const answerOf = (status: number, headers: Readonly<Record<string, string>> = {}, text = "") =>
  errorFromAnswer(
    { service: "compute", method: "POST", path: "/servers", change: true },
    { status, text, headers: new Map(Object.entries(headers)) },
    Date.parse("2026-01-01T00:00:00Z"),
  );

void test("throttling, and failures after which nothing is known", () => {
  const throttled = answerOf(429, { "retry-after": "7" });
  assert.deepEqual(
    [throttled.code, throttled.retry, throttled.retryAfterMs, throttled.outcome],
    ["cloud.throttled", "throttled", 7000, "not_applied"],
  );
  assert.equal(answerOf(413, { "retry-after": "3" }).code, "cloud.throttled");
  const late = answerOf(503, { "retry-after": "Thu, 01 Jan 2026 00:00:05 GMT" });
  assert.deepEqual([late.code, late.retryAfterMs], ["cloud.throttled", 5000]);
  for (const status of [500, 502, 503, 504]) {
    const failing = answerOf(status, {}, "<html><h1>502 Bad Gateway</h1></html>");
    assert.deepEqual([failing.code, failing.outcome], ["cloud.failing", "unknown"], String(status));
  }
  assert.equal(answerOf(302).code, "cloud.protocol");
});

void test("Retry-After: seconds, a date, or nothing that can be read", () => {
  assert.equal(retryAfterMs("2", 0), 2000);
  assert.equal(retryAfterMs("soon", 0), undefined);
  assert.equal(retryAfterMs(undefined, 0), undefined);
  assert.equal(retryAfterMs("Thu, 01 Jan 1970 00:00:01 GMT", 5000), 0);
});
