import assert from "node:assert/strict";
import { test } from "node:test";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Ec2Resolution } from "./ec2-resolve.ts";
import { judgeEc2Resolution, planEc2Resolution, resolveEc2Outcome } from "./ec2-resolve.ts";

const at = Date.parse("2026-01-01T12:00:00Z");
const known = (...ids: string[]): ReadonlySet<string> => new Set(ids);

function judge(
  operation: string,
  input: object,
  answers: readonly object[],
  options: { token?: string; knownIds?: ReadonlySet<string> } = {},
): Ec2Resolution {
  const command = { operation, input, token: options.token ?? null, at };
  assert.ok(planEc2Resolution(command).questions.length === answers.length, "as many answers as questions");
  return judgeEc2Resolution(command, answers, options.knownIds ?? known(), new EnvironmentState());
}

const made = (resolution: Ec2Resolution): string[] =>
  resolution.result === "applied"
    ? resolution.changes.map(({ type, kind, id }) => `${type} ${kind} ${id}`)
    : [];

void test("RunInstances is told by its token", () => {
  const plan = planEc2Resolution({ operation: "RunInstances", input: {}, token: "tok", at });
  assert.deepEqual(plan, {
    questions: [
      { operation: "DescribeInstances", input: { Filters: [{ Name: "client-token", Values: ["tok"] }] } },
    ],
    repeatable: true,
  });
  const instance = (InstanceId: string, Name: string) => ({ InstanceId, State: { Name }, ImageId: "ami-1" });
  const found = judge(
    "RunInstances",
    {},
    [
      {
        Reservations: [
          {
            Instances: [
              instance("i-1", "pending"),
              instance("i-2", "running"),
              instance("i-3", "terminated"),
            ],
          },
        ],
      },
    ],
    { token: "tok" },
  );
  assert.deepEqual(made(found), ["create server i-1", "create server i-2"]);
  assert.equal(judge("RunInstances", {}, [{ Reservations: [] }], { token: "tok" }).result, "refused");
  assert.equal(judge("RunInstances", {}, []).result, "undecided");
});

void test("a create without a token: one new match is it, none is none, several stay undecided", () => {
  const input = {
    CidrBlock: "10.0.0.0/16",
    TagSpecifications: [{ ResourceType: "vpc", Tags: [{ Key: "Name", Value: "shop" }] }],
  };
  const vpc = (VpcId: string, name = "shop") => ({
    VpcId,
    CidrBlock: "10.0.0.0/16",
    Tags: [{ Key: "Name", Value: name }],
  });
  const asked = (Vpcs: object[], knownIds = known("vpc-old")) =>
    judge("CreateVpc", input, [{ Vpcs }], { knownIds });
  assert.deepEqual(made(asked([vpc("vpc-old"), vpc("vpc-new"), vpc("vpc-x", "other")])), [
    "create network vpc-new",
  ]);
  assert.equal(asked([vpc("vpc-old")]).result, "refused");
  const open = asked([vpc("vpc-1"), vpc("vpc-2")]);
  assert.ok(open.result === "undecided" && open.gap.code === "outcome.unknown");
  assert.match(open.gap.message, /vpc-1, vpc-2/);
});

void test("a volume of long ago is not the one that was just made", () => {
  const volume = (VolumeId: string, CreateTime: string) => ({
    VolumeId,
    Size: 5,
    CreateTime,
    SnapshotId: "",
  });
  const Volumes = [volume("vol-1", "2026-01-01T10:00:00Z"), volume("vol-2", "2026-01-01T12:00:03Z")];
  const found = judge("CreateVolume", { Size: 5, AvailabilityZone: "a" }, [{ Volumes }]);
  assert.deepEqual(made(found), ["create volume vol-2"]);
});

void test("a name that another command took is not this command's doing", () => {
  const answer = { SecurityGroups: [{ GroupId: "sg-1", GroupName: "web", VpcId: "vpc-1" }] };
  const input = { GroupName: "web", Description: "web", VpcId: "vpc-1" };
  assert.equal(judge("CreateSecurityGroup", input, [answer], { knownIds: known("sg-1") }).result, "refused");
  assert.deepEqual(made(judge("CreateSecurityGroup", input, [answer])), [
    "create securityGroup sg-1",
    "create securityGroupRule sg-1/egress/all/*-*/0.0.0.0/0",
  ]);
});

void test("deletes, power and attachments are told by the state", () => {
  const cases: [string, object, object, Ec2Resolution["result"]][] = [
    ["DeleteVpc", { VpcId: "vpc-1" }, { Vpcs: [] }, "applied"],
    ["DeleteVpc", { VpcId: "vpc-1" }, { Vpcs: [{ VpcId: "vpc-1" }] }, "refused"],
    ["DeleteVolume", { VolumeId: "vol-1" }, { Volumes: [{ State: "deleting" }] }, "applied"],
    ["AttachVolume", { VolumeId: "vol-1", InstanceId: "i-1" }, { Volumes: [{ Attachments: [] }] }, "refused"],
    [
      "AttachVolume",
      { VolumeId: "vol-1", InstanceId: "i-1" },
      { Volumes: [{ Attachments: [{ InstanceId: "i-1", State: "attaching" }] }] },
      "applied",
    ],
    [
      "DetachVolume",
      { VolumeId: "vol-1" },
      { Volumes: [{ Attachments: [{ InstanceId: "i-1", State: "attached" }] }] },
      "refused",
    ],
    [
      "AttachInternetGateway",
      { InternetGatewayId: "igw-1", VpcId: "vpc-1" },
      { InternetGateways: [{ Attachments: [{ VpcId: "vpc-1", State: "available" }] }] },
      "applied",
    ],
    [
      "DetachInternetGateway",
      { InternetGatewayId: "igw-1", VpcId: "vpc-1" },
      { InternetGateways: [{ Attachments: [{ VpcId: "vpc-1", State: "available" }] }] },
      "refused",
    ],
    [
      "AssociateAddress",
      { AllocationId: "eipalloc-1", InstanceId: "i-1" },
      { Addresses: [{ InstanceId: "i-2", AssociationId: "eipassoc-9" }] },
      "refused",
    ],
    ["ReleaseAddress", { AllocationId: "eipalloc-1" }, { Addresses: [] }, "applied"],
  ];
  for (const [operation, input, answer, result] of cases) {
    assert.equal(judge(operation, input, [answer]).result, result, `${operation} ${JSON.stringify(answer)}`);
  }
});

void test("of several servers, only those that were terminated are gone", () => {
  const answer = {
    Reservations: [
      {
        Instances: [
          { InstanceId: "i-1", State: { Name: "shutting-down" } },
          { InstanceId: "i-2", State: { Name: "running" } },
        ],
      },
    ],
  };
  const found = judge("TerminateInstances", { InstanceIds: ["i-1", "i-2", "i-3"] }, [answer]);
  assert.deepEqual(made(found), ["delete server i-1", "delete server i-3"]);
  assert.equal(judge("TerminateInstances", { InstanceIds: ["i-2"] }, [answer]).result, "refused");
});

void test("rules are compared by content, all or none", () => {
  const input = {
    GroupId: "sg-1",
    IpPermissions: [
      {
        IpProtocol: "tcp",
        FromPort: 80,
        ToPort: 80,
        IpRanges: [{ CidrIp: "0.0.0.0/0" }, { CidrIp: "10.0.0.0/8" }],
      },
    ],
  };
  const rule = (SecurityGroupRuleId: string, CidrIpv4: string) => ({
    SecurityGroupRuleId,
    GroupId: "sg-1",
    IsEgress: false,
    IpProtocol: "tcp",
    FromPort: 80,
    ToPort: 80,
    CidrIpv4,
  });
  const [first, second] = [rule("sgr-1", "0.0.0.0/0"), rule("sgr-2", "10.0.0.0/8")];
  const authorized = (SecurityGroupRules: object[]) =>
    judge("AuthorizeSecurityGroupIngress", input, [{ SecurityGroupRules }]);
  assert.equal(made(authorized([first, second])).length, 2);
  assert.equal(authorized([first]).result, "refused");
  const revoked = (SecurityGroupRules: object[]) =>
    judge("RevokeSecurityGroupIngress", input, [{ SecurityGroupRules }]);
  assert.equal(made(revoked([])).length, 2);
  assert.equal(revoked([second]).result, "refused");
});

void test("tags are told per resource", () => {
  const Tags = [{ Key: "tier", Value: "web" }];
  const answer = { Tags: [{ ResourceId: "i-1", Key: "tier", Value: "web" }] };
  const set = judge("CreateTags", { Resources: ["i-1", "i-2"], Tags }, [answer]);
  assert.deepEqual(made(set), ["tag server i-1"]);
  assert.equal(judge("DeleteTags", { Resources: ["i-1"], Tags }, [answer]).result, "refused");
  assert.equal(judge("DeleteTags", { Resources: ["i-2"], Tags }, [answer]).result, "applied");
});

void test("what cannot be asked about stays open, with the weight of what it would have meant", () => {
  const open = judge("CreateNatGateway", {}, []);
  assert.ok(open.result === "undecided" && open.gap.severity === "lost");
});

void test("questions are asked over all pages", async () => {
  const asked: object[] = [];
  const pages: Record<string, object> = {
    first: { Vpcs: [{ VpcId: "vpc-1", CidrBlock: "10.0.0.0/16" }], NextToken: "second" },
    second: { Vpcs: [{ VpcId: "vpc-2", CidrBlock: "10.0.0.0/16" }] },
  };
  const resolution = await resolveEc2Outcome(
    { operation: "CreateVpc", input: { CidrBlock: "10.0.0.0/16" }, token: null, at },
    async (operation, input) => {
      asked.push({ operation, ...input });
      return pages[typeof input["NextToken"] === "string" ? input["NextToken"] : "first"];
    },
    known("vpc-1"),
  );
  assert.deepEqual(made(resolution), ["create network vpc-2"]);
  assert.equal(asked.length, 2);
});
