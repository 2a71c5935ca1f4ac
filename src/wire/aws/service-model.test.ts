import assert from "node:assert/strict";
import { test } from "node:test";
import { changesDespiteTheirName } from "./operation-effect.ts";
import { awsService, awsServiceNames } from "./service-model.ts";

const services = new Map(
  await Promise.all(awsServiceNames.map(async (name) => [name, await awsService(name)] as const)),
);

const verb = /^[A-Z][a-z]+/;

// Every verb of the four APIs, looked at by a person. A verb that a newer API brings fails the test below until
// someone has decided about it; until then it counts as a change.
const changingVerbs = new Set(
  `Accept Add Advertise Allocate Apply Assign Associate Assume Attach Authorize Batch Bundle Cancel Complete Confirm Copy
  Create Decode Delete Deprovision Deregister Detach Disable Disassociate Enable Enter Execute Exit Export Import Launch Lock
  Modify Monitor Move Provision Purchase Put Reboot Record Register Reject Release Remove Replace Report Request Reset
  Restore Resume Revoke Rollback Run Send Set Start Stop Suspend Terminate Unassign Unlock Unmonitor Update Validate
  Withdraw`.split(/\s+/),
);
const readingVerbs = new Set(["Describe", "Get", "List", "Search"]);

void test("one description per service, with the facts of its API", async () => {
  assert.equal(await awsService("ec2"), services.get("ec2"));
  const rows = [...services.values()].map((service) => [service.name, service.apiVersion, service.protocol]);
  assert.deepEqual(rows, [
    ["ec2", "2016-11-15", "ec2Query"],
    ["elasticloadbalancing", "2015-12-01", "awsQuery"],
    ["autoscaling", "2011-01-01", "awsQuery"],
    ["sts", "2011-06-15", "awsQuery"],
  ]);
});

void test("every operation is a read or a change by a verb that was decided on", () => {
  for (const service of services.values()) {
    for (const operation of service.operations.values()) {
      const name = verb.exec(operation.name)?.[0] ?? "";
      const excepted = changesDespiteTheirName.has(`${service.name}:${operation.name}`);
      const reads = readingVerbs.has(name) && !excepted;
      assert.ok(reads || excepted || changingVerbs.has(name), `undecided verb: ${operation.name}`);
      assert.equal(operation.readOnly, reads, operation.name);
    }
  }
});

void test("no read takes an idempotency token, as a change would", () => {
  for (const service of services.values()) {
    for (const operation of service.operations.values()) {
      if (operation.readOnly) assert.equal(operation.tokenMember, undefined, operation.name);
    }
  }
});

void test("the exceptions name operations that exist", () => {
  for (const entry of changesDespiteTheirName.keys()) {
    const [service, operation] = entry.split(":");
    const found = [...services.values()].find((candidate) => candidate.name === service);
    assert.ok(found?.operations.has(operation ?? ""), entry);
  }
});

void test("tokens and secrets of an operation", () => {
  const ec2 = services.get("ec2");
  const run = ec2?.operations.get("RunInstances");
  assert.deepEqual(run?.tokenMember, { name: "ClientToken", wireName: "ClientToken" });
  assert.deepEqual(run?.secretMembers.input, ["UserData"]);
  assert.deepEqual(ec2?.operations.get("AllocateHosts")?.tokenMember?.name, "ClientToken");
  assert.equal(ec2?.operations.get("TerminateInstances")?.tokenMember, undefined);
  assert.deepEqual(ec2?.operations.get("CreateKeyPair")?.secretMembers.output, ["KeyMaterial"]);
  assert.deepEqual(ec2?.operations.get("CreateVpnConnection")?.secretMembers.input, [
    "Options.TunnelOptions[].PreSharedKey",
  ]);
  assert.deepEqual(services.get("sts")?.operations.get("AssumeRole")?.secretMembers.output, [
    "Credentials.SecretAccessKey",
    "Credentials.SessionToken",
  ]);
});
