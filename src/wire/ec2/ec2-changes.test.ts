import assert from "node:assert/strict";
import { test } from "node:test";
import type { Change } from "#model/change.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { ec2Changes, ec2Coverage } from "./ec2-changes.ts";

/** Plays commands as a gateway does: each is translated with what is known so far, and applied. */
function play(commands: readonly (readonly [operation: string, input: object, output: object])[]) {
  const state = new EnvironmentState();
  const unknown: Change[] = [];
  const gaps: string[] = [];
  for (const [operation, input, output] of commands) {
    const effect = ec2Changes(operation, input, output, state);
    for (const change of effect.changes) if (state.apply(change) === "unknown") unknown.push(change);
    gaps.push(...effect.gaps.map(({ code, severity }) => `${operation}: ${code} ${severity}`));
  }
  return { state, unknown, gaps };
}

const vpc = [
  "CreateVpc",
  {
    CidrBlock: "10.0.0.0/16",
    TagSpecifications: [{ ResourceType: "vpc", Tags: [{ Key: "Name", Value: "shop" }] }],
  },
  { Vpc: { VpcId: "vpc-1", CidrBlock: "10.0.0.0/16", State: "pending" } },
] as const;
const subnet = [
  "CreateSubnet",
  { VpcId: "vpc-1", CidrBlock: "10.0.1.0/24" },
  {
    Subnet: {
      SubnetId: "subnet-1",
      VpcId: "vpc-1",
      CidrBlock: "10.0.1.0/24",
      AvailabilityZone: "eu-1a",
      MapPublicIpOnLaunch: false,
    },
  },
] as const;
const group = [
  "CreateSecurityGroup",
  { GroupName: "web", Description: "web", VpcId: "vpc-1" },
  { GroupId: "sg-1" },
] as const;

function launched(ids: readonly string[], more: object = {}) {
  const Instances = ids.map((InstanceId) => ({
    InstanceId,
    ImageId: "ami-1",
    InstanceType: "t3.micro",
    SubnetId: "subnet-1",
    RootDeviceName: "/dev/xvda",
    SecurityGroups: [{ GroupId: "sg-1", GroupName: "web" }],
    PrivateIpAddress: "10.0.1.10",
    State: { Code: 0, Name: "pending" },
    ...more,
  }));
  return { ReservationId: "r-1", Instances };
}

const ids = (state: EnvironmentState): string[] =>
  [...state.resources()].map(({ kind, id }) => `${kind} ${id}`).sort();

void test("a network reaches the internet once a gateway is attached; the plain default route says nothing new", () => {
  const { state, gaps } = play([
    vpc,
    subnet,
    ["CreateInternetGateway", {}, { InternetGateway: { InternetGatewayId: "igw-1" } }],
    ["AttachInternetGateway", { InternetGatewayId: "igw-1", VpcId: "vpc-1" }, {}],
    [
      "CreateRoute",
      { RouteTableId: "rtb-1", DestinationCidrBlock: "0.0.0.0/0", GatewayId: "igw-1" },
      { Return: true },
    ],
    ["ModifySubnetAttribute", { SubnetId: "subnet-1", MapPublicIpOnLaunch: { Value: true } }, {}],
  ]);
  assert.deepEqual(state.get("network", "vpc-1"), {
    kind: "network",
    id: "vpc-1",
    spec: { cidr: "10.0.0.0/16", internet: true },
    tags: { Name: "shop" },
  });
  const seen = state.get("subnet", "subnet-1");
  assert.equal(seen?.kind === "subnet" && seen.spec.publicAddresses, true);
  assert.deepEqual(gaps, []);
});

void test("RunInstances makes one server an instance, and follows its subnet's public addresses", () => {
  const { state, gaps } = play([
    vpc,
    subnet,
    group,
    ["ModifySubnetAttribute", { SubnetId: "subnet-1", MapPublicIpOnLaunch: { Value: true } }, {}],
    [
      "RunInstances",
      {
        ImageId: "ami-1",
        MinCount: 2,
        MaxCount: 2,
        UserData: "IyEvYmluL3No",
        KeyName: "ops",
        TagSpecifications: [
          { ResourceType: "instance", Tags: [{ Key: "tier", Value: "web" }] },
          { ResourceType: "volume", Tags: [{ Key: "tier", Value: "disk" }] },
        ],
        BlockDeviceMappings: [
          { DeviceName: "/dev/xvda", Ebs: { DeleteOnTermination: true } },
          { DeviceName: "/dev/sdf", Ebs: { VolumeSize: 20, VolumeType: "gp3" } },
          { DeviceName: "/dev/sdg", NoDevice: "" },
        ],
      },
      launched(["i-1", "i-2"]),
    ],
  ]);
  const expected = {
    imageId: "ami-1",
    type: "t3.micro",
    subnetId: "subnet-1",
    groupIds: ["sg-1"],
    keyName: "ops",
    userData: "IyEvYmluL3No",
    publicAddress: true,
    power: "running",
    blockDevices: [{ device: "/dev/sdf", sizeGiB: 20, type: "gp3", deleteOnTermination: false }],
  };
  for (const id of ["i-1", "i-2"]) {
    const server = state.get("server", id);
    assert.deepEqual(server?.spec, expected);
    assert.deepEqual(server?.tags, { tier: "web" });
  }
  assert.deepEqual(gaps, []);
});

void test("the network interface form of RunInstances says the same", () => {
  const input = {
    ImageId: "ami-1",
    NetworkInterfaces: [
      {
        DeviceIndex: 0,
        SubnetId: "subnet-1",
        Groups: ["sg-1"],
        AssociatePublicIpAddress: true,
        PrivateIpAddress: "10.0.1.77",
      },
    ],
  };
  const bare = launched(["i-1"], { SubnetId: undefined, SecurityGroups: undefined });
  const { changes, gaps } = ec2Changes("RunInstances", input, bare);
  const change = changes[0];
  assert.ok(change?.type === "create" && change.kind === "server");
  assert.equal(change.spec.publicAddress, true);
  assert.equal(change.spec.subnetId, "subnet-1");
  assert.equal(change.spec.privateIp, "10.0.1.77");
  assert.deepEqual(change.spec.groupIds, ["sg-1"]);
  assert.deepEqual(gaps, []);
});

void test("what a launch cannot carry over is one gap of the server, as bad as its worst part", () => {
  const input = {
    LaunchTemplate: { LaunchTemplateId: "lt-1" },
    IamInstanceProfile: { Name: "web" },
    NetworkInterfaces: [{ AssociatePublicIpAddress: false }],
  };
  const { gaps } = ec2Changes("RunInstances", input, launched(["i-1"]));
  assert.equal(gaps.length, 1);
  assert.equal(gaps[0]?.severity, "lost");
  assert.deepEqual(gaps[0]?.resource, { kind: "server", id: "i-1" });
  assert.match(gaps[0]?.message ?? "", /launch template.*|instance profile/);
});

void test("servers are stopped, changed, started and terminated, with their links", () => {
  const { state, unknown } = play([
    vpc,
    subnet,
    group,
    ["RunInstances", { ImageId: "ami-1" }, launched(["i-1"])],
    ["CreateVolume", { AvailabilityZone: "eu-1a", Size: 5 }, { VolumeId: "vol-1", Size: 5, SnapshotId: "" }],
    [
      "AttachVolume",
      { VolumeId: "vol-1", InstanceId: "i-1", Device: "/dev/sdf" },
      { VolumeId: "vol-1", InstanceId: "i-1", State: "attaching" },
    ],
    ["AllocateAddress", { Domain: "vpc" }, { AllocationId: "eipalloc-1", PublicIp: "203.0.113.9" }],
    ["AssociateAddress", { AllocationId: "eipalloc-1", InstanceId: "i-1" }, { AssociationId: "eipassoc-1" }],
    ["StopInstances", { InstanceIds: ["i-1"] }, { StoppingInstances: [{ InstanceId: "i-1" }] }],
    ["ModifyInstanceAttribute", { InstanceId: "i-1", InstanceType: { Value: "t3.large" } }, {}],
    ["ModifyInstanceAttribute", { InstanceId: "i-1", Attribute: "userData", Value: "ZWNobw==" }, {}],
    ["ModifyInstanceAttribute", { InstanceId: "i-1", Groups: ["sg-1", "sg-2"] }, {}],
  ]);
  const server = state.get("server", "i-1") as Extract<Resource, { kind: "server" }>;
  assert.equal(server.spec.power, "stopped");
  assert.equal(server.spec.type, "t3.large");
  assert.equal(server.spec.userData, "ZWNobw==");
  assert.deepEqual(server.spec.groupIds, ["sg-1", "sg-2"]);
  assert.ok(state.has("volumeAttachment", "vol-1@i-1"));
  assert.ok(state.has("addressAssociation", "eipassoc-1"));
  for (const change of ec2Changes("TerminateInstances", { InstanceIds: ["i-1"] }, {}).changes) {
    state.apply(change);
  }
  assert.ok(!state.has("addressAssociation", "eipassoc-1"));
  assert.ok(!state.has("volumeAttachment", "vol-1@i-1"));
  assert.ok(state.has("volume", "vol-1") && state.has("address", "eipalloc-1"));
  assert.deepEqual(unknown, []);
});

void test("an address that moves leaves its old server, and goes by each of its names", () => {
  const moves = [
    vpc,
    subnet,
    group,
    ["RunInstances", {}, launched(["i-1", "i-2"])],
    ["AllocateAddress", {}, { AllocationId: "eipalloc-1", PublicIp: "203.0.113.9" }],
    ["AssociateAddress", { AllocationId: "eipalloc-1", InstanceId: "i-1" }, { AssociationId: "eipassoc-1" }],
    ["AssociateAddress", { PublicIp: "203.0.113.9", InstanceId: "i-2" }, { AssociationId: "eipassoc-2" }],
  ] as const;
  const { state } = play(moves);
  const links = [...state.resources()].filter(({ kind }) => kind === "addressAssociation");
  assert.deepEqual(
    links.map(({ spec }) => spec),
    [{ addressId: "eipalloc-1", serverId: "i-2" }],
  );
  for (const input of [{ AssociationId: "eipassoc-2" }, { PublicIp: "203.0.113.9" }]) {
    const again = play([...moves, ["DisassociateAddress", input, {}]]);
    assert.ok(!again.state.has("addressAssociation", "eipassoc-2"), JSON.stringify(input));
    assert.deepEqual(again.unknown, []);
  }
});

void test("rules come in every form, with one id, and go in every form", () => {
  const forms: object[] = [
    { GroupId: "sg-1", IpProtocol: "tcp", FromPort: 80, ToPort: 80, CidrIp: "0.0.0.0/0" },
    {
      GroupId: "sg-1",
      IpPermissions: [
        {
          IpProtocol: "6",
          FromPort: 80,
          ToPort: 80,
          IpRanges: [{ CidrIp: "0.0.0.0/0", Description: "web" }],
        },
      ],
    },
  ];
  const answer = {
    SecurityGroupRules: [
      {
        SecurityGroupRuleId: "sgr-1",
        GroupId: "sg-1",
        IsEgress: false,
        IpProtocol: "tcp",
        FromPort: 80,
        ToPort: 80,
        CidrIpv4: "0.0.0.0/0",
      },
    ],
  };
  const ruleId = "sg-1/ingress/tcp/80-80/0.0.0.0/0";
  const egress = "securityGroupRule sg-1/egress/all/*-*/0.0.0.0/0";
  for (const form of forms) {
    for (const output of [{}, answer]) {
      const made = play([vpc, group, ["AuthorizeSecurityGroupIngress", form, output]]);
      assert.ok(made.state.has("securityGroupRule", ruleId));
      for (const revoke of forms) {
        const { state, unknown } = play([
          vpc,
          group,
          ["AuthorizeSecurityGroupIngress", form, output],
          ["RevokeSecurityGroupIngress", revoke, {}],
        ]);
        assert.deepEqual(ids(state), ["network vpc-1", "securityGroup sg-1", egress]);
        assert.deepEqual(unknown, []);
      }
    }
  }
  const byId = play([
    vpc,
    group,
    ["AuthorizeSecurityGroupIngress", forms[0] ?? {}, answer],
    ["RevokeSecurityGroupIngress", { GroupId: "sg-1", SecurityGroupRuleIds: ["sgr-1"] }, {}],
  ]);
  assert.deepEqual(ids(byId.state), ["network vpc-1", "securityGroup sg-1", egress]);
});

void test("a modified rule is another rule under the same sgr id", () => {
  const rule = { GroupId: "sg-1", IsEgress: false, IpProtocol: "tcp", CidrIpv4: "10.0.0.0/8" };
  const { state, gaps } = play([
    vpc,
    group,
    [
      "AuthorizeSecurityGroupIngress",
      { GroupId: "sg-1" },
      { SecurityGroupRules: [{ ...rule, SecurityGroupRuleId: "sgr-1", FromPort: 22, ToPort: 22 }] },
    ],
    [
      "ModifySecurityGroupRules",
      {
        GroupId: "sg-1",
        SecurityGroupRules: [
          {
            SecurityGroupRuleId: "sgr-1",
            SecurityGroupRule: { IpProtocol: "tcp", FromPort: 443, ToPort: 443, CidrIpv4: "10.0.0.0/8" },
          },
        ],
      },
      {},
    ],
  ]);
  assert.equal(state.get("securityGroupRule", "sgr-1")?.id, "sg-1/ingress/tcp/443-443/10.0.0.0/8");
  assert.ok(!state.has("securityGroupRule", "sg-1/ingress/tcp/22-22/10.0.0.0/8"));
  assert.deepEqual(gaps, []);
});

void test("prefix lists and groups without an id are lost rules by name", () => {
  const { changes, gaps } = ec2Changes(
    "AuthorizeSecurityGroupEgress",
    {
      GroupId: "sg-1",
      IpPermissions: [
        { IpProtocol: "tcp", FromPort: 1, ToPort: 1, PrefixListIds: [{ PrefixListId: "pl-1" }] },
      ],
    },
    {},
  );
  assert.deepEqual(changes, []);
  assert.equal(gaps[0]?.severity, "lost");
  assert.match(gaps[0]?.message ?? "", /pl-1/);
});

void test("tags find their resource by the id's prefix, and a value spares tags that differ", () => {
  const made = [
    vpc,
    group,
    ["CreateKeyPair", { KeyName: "ops" }, { KeyName: "ops", KeyPairId: "key-0a1", KeyMaterial: "secret" }],
    [
      "CreateTags",
      { Resources: ["vpc-1", "sg-1", "key-0a1", "igw-1"], Tags: [{ Key: "a", Value: "1" }] },
      {},
    ],
  ] as const;
  const { state, gaps } = play(made);
  assert.equal(state.get("network", "vpc-1")?.tags["a"], "1");
  assert.equal(state.get("keyPair", "ops")?.tags["a"], "1");
  assert.deepEqual(gaps, ["CreateTags: operation.untranslated note"]);
  const after = (Tags: object[] | undefined) =>
    play([
      ...made,
      ["DeleteTags", { Resources: ["vpc-1"], ...(Tags === undefined ? {} : { Tags }) }, {}],
    ]).state.get("network", "vpc-1")?.tags;
  assert.deepEqual(after([{ Key: "a", Value: "2" }]), { Name: "shop", a: "1" });
  assert.deepEqual(after([{ Key: "a", Value: "1" }]), { Name: "shop" });
  assert.deepEqual(after([{ Key: "a" }]), { Name: "shop" });
  assert.deepEqual(after(undefined), {});
});

void test("an imported key pair has its public key, a generated one has none, and no secret is kept", () => {
  const imported = ec2Changes(
    "ImportKeyPair",
    { KeyName: "ops", PublicKeyMaterial: Buffer.from("ssh-ed25519 AAAA ops\n").toString("base64") },
    { KeyName: "ops", KeyPairId: "key-1" },
  );
  const generated = ec2Changes(
    "CreateKeyPair",
    { KeyName: "ops" },
    { KeyMaterial: "PRIVATE", KeyPairId: "key-2" },
  );
  assert.deepEqual(imported.changes[0]?.type === "create" && imported.changes[0].spec, {
    name: "ops",
    publicKey: "ssh-ed25519 AAAA ops",
  });
  assert.ok(!JSON.stringify(generated).includes("PRIVATE"));
});

void test("what has no counterpart is a gap with a weight; reads are nothing", () => {
  const severity = (operation: string) => ec2Changes(operation, {}, {}).gaps[0]?.severity;
  assert.equal(severity("CreateNatGateway"), "lost");
  assert.equal(severity("CreateSomethingNew"), "lost");
  assert.equal(severity("ModifySomethingNew"), "degraded");
  assert.equal(severity("DeleteSomethingNew"), "note");
  assert.equal(severity("ModifyInstanceMetadataOptions"), "note");
  assert.equal(severity("DescribeInstances"), undefined);
  assert.equal(ec2Coverage["RunInstances"], "translated");
  assert.equal(ec2Coverage["CreateRoute"], "covered");
  assert.equal(ec2Coverage["CreateNatGateway"], "gap");
});
