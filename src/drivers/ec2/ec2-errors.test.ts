import assert from "node:assert/strict";
import { test } from "node:test";
import { ec2Error } from "./ec2-errors.ts";

const service = (name: string, httpStatusCode = 400) => ({
  name,
  message: "why",
  $metadata: { httpStatusCode },
});

void test("EC2's codes become the contract's", () => {
  const cases: [string, number, string, string, string][] = [
    ["RequestLimitExceeded", 503, "cloud.throttled", "throttled", "not_applied"],
    ["Throttling", 400, "cloud.throttled", "throttled", "not_applied"],
    ["InstanceLimitExceeded", 400, "cloud.quota", "never", "not_applied"],
    ["VcpuLimitExceeded", 400, "cloud.quota", "never", "not_applied"],
    ["AddressLimitExceeded", 400, "cloud.quota", "never", "not_applied"],
    ["InvalidInstanceID.NotFound", 400, "cloud.not_found", "never", "not_applied"],
    ["InvalidVpcId.Malformed", 400, "cloud.not_found", "never", "not_applied"],
    ["DependencyViolation", 400, "cloud.conflict", "later", "not_applied"],
    ["IncorrectInstanceState", 400, "cloud.conflict", "later", "not_applied"],
    ["VolumeInUse", 400, "cloud.conflict", "later", "not_applied"],
    ["InvalidGroup.Duplicate", 400, "cloud.conflict", "never", "not_applied"],
    ["InvalidSubnet.Conflict", 400, "cloud.conflict", "never", "not_applied"],
    ["AuthFailure", 401, "cloud.credentials", "never", "not_applied"],
    ["UnauthorizedOperation", 403, "cloud.credentials", "never", "not_applied"],
    ["InsufficientInstanceCapacity", 500, "cloud.refused", "never", "not_applied"],
    ["UnsupportedOperation", 400, "cloud.unsupported", "never", "not_applied"],
    ["InvalidParameterValue", 400, "cloud.refused", "never", "not_applied"],
    ["InternalError", 500, "cloud.failing", "later", "unknown"],
    ["Unavailable", 503, "cloud.failing", "later", "unknown"],
    ["RequestThrottledException", 400, "cloud.throttled", "throttled", "not_applied"],
    ["ResourceNotFoundException", 404, "cloud.not_found", "never", "not_applied"],
    ["ServiceQuotaExceededException", 402, "cloud.quota", "never", "not_applied"],
    ["InternalServerException", 500, "cloud.failing", "later", "unknown"],
    ["SyntaxError", 200, "cloud.protocol", "later", "unknown"],
  ];
  for (const [name, status, code, retry, outcome] of cases) {
    const error = ec2Error(service(name, status), "CreateVpc", true);
    assert.deepEqual([error.code, error.retry, error.outcome], [code, retry, outcome], name);
    assert.equal(error.remoteCode, name);
    assert.equal(ec2Error(service(name, status), "DescribeVpcs", false).outcome, "not_applied", name);
  }
});

void test("a socket that broke after the request was sent leaves a change open; one that never came about does not", () => {
  const cases: [object, string, string][] = [
    [{ code: "ECONNREFUSED", message: "connect ECONNREFUSED" }, "cloud.unreachable", "not_applied"],
    [{ code: "ENOTFOUND", message: "getaddrinfo" }, "cloud.unreachable", "not_applied"],
    [{ code: "ECONNRESET", message: "socket hang up" }, "cloud.unreachable", "unknown"],
    [{ code: "EPIPE", message: "write" }, "cloud.unreachable", "unknown"],
    [{ name: "TimeoutError", message: "request timed out" }, "cloud.timeout", "unknown"],
  ];
  for (const [thrown, code, outcome] of cases) {
    const error = ec2Error(thrown, "RunInstances", true);
    assert.deepEqual([error.code, error.outcome], [code, outcome], JSON.stringify(thrown));
    assert.equal(ec2Error(thrown, "DescribeInstances", false).outcome, "not_applied");
  }
});

void test("a peer that asks for patience is heard", () => {
  const error = ec2Error(
    { ...service("RequestLimitExceeded", 503), $response: { headers: { "retry-after": "3" } } },
    "RunInstances",
    true,
  );
  assert.equal(error.retryAfterMs, 3000);
});
