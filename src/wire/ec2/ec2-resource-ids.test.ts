import assert from "node:assert/strict";
import { test } from "node:test";
import { ec2ResourceIds } from "./ec2-resource-ids.ts";

void test("RunInstances writes nothing that others could: many may run side by side", () => {
  const ids = ec2ResourceIds("RunInstances", {
    ImageId: "ami-1",
    SubnetId: "subnet-1",
    SecurityGroupIds: ["sg-1", "sg-2"],
    TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "SubnetId", Value: "x" }] }],
  });
  assert.deepEqual(ids, { written: [], read: ["ami-1", "subnet-1", "sg-1", "sg-2"] });
});

void test("a command writes what it changes, and reads what it only names", () => {
  assert.deepEqual(ec2ResourceIds("DeleteSubnet", { SubnetId: "subnet-1" }).written, ["subnet-1"]);
  assert.deepEqual(ec2ResourceIds("AttachVolume", { VolumeId: "vol-1", InstanceId: "i-1" }).written, [
    "vol-1",
    "i-1",
  ]);
  const rule = ec2ResourceIds("AuthorizeSecurityGroupIngress", {
    GroupId: "sg-1",
    IpPermissions: [{ UserIdGroupPairs: [{ GroupId: "sg-2" }] }],
  });
  assert.deepEqual(rule, { written: ["sg-1"], read: ["sg-2"] });
  const own = ec2ResourceIds("AuthorizeSecurityGroupIngress", {
    GroupId: "sg-1",
    IpPermissions: [{ UserIdGroupPairs: [{ GroupId: "sg-1" }] }],
  });
  assert.deepEqual(own, { written: ["sg-1"], read: [] });
});

void test("of an operation without a table entry, everything that looks like an id is written", () => {
  const ids = ec2ResourceIds("CreateNatGateway", {
    SubnetId: "subnet-0a1b2c3d4e5f60718",
    AllocationId: "eipalloc-0a1b2c3d",
    ClientToken: "no id",
    Deep: [{ Deeper: { Id: "tgw-attach-0a1b2c3d4e5f60718" } }],
  });
  assert.deepEqual(ids.written, [
    "subnet-0a1b2c3d4e5f60718",
    "eipalloc-0a1b2c3d",
    "tgw-attach-0a1b2c3d4e5f60718",
  ]);
});
