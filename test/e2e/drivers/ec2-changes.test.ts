/**
 * What the translation says that commands did, against what the cloud then shows: the AWS SDK plays a shop's life at
 * devcloud, each answer is translated, and the fold of all changes is compared with the driver's own listing.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { EC2 } from "@aws-sdk/client-ec2";
import { collect } from "#cloud/contract.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { ResourceKind } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import { ec2Changes } from "#wire/ec2/ec2-changes.ts";
import { startDevcloudProcess } from "./devcloud-process.ts";

const devcloud = await startDevcloudProcess();
after(() => devcloud.stop());

const credentials = { accessKeyId: devcloud.accessKeyId, secretAccessKey: devcloud.secretAccessKey };
const { endpoint, region } = devcloud;
const imageId = "ami-0a1b2c3d4e5f60001";

/** Times as ISO text and blobs as base64, as decoded commands have them. */
function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64");
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.entries(value).flatMap(([key, inner]) => (inner === undefined ? [] : [[key, plain(inner)]])),
  );
}

interface Recorder {
  readonly ec2: EC2;
  readonly state: EnvironmentState;
  readonly unknown: object[];
  readonly gaps: object[];
}

function record(): Recorder {
  const ec2 = new EC2({
    endpoint,
    region,
    credentials: { ...credentials, secretAccessKey: credentials.secretAccessKey.reveal() },
  });
  const recorder: Recorder = { ec2, state: new EnvironmentState(), unknown: [], gaps: [] };
  ec2.middlewareStack.add(
    (next, context) => async (args) => {
      const result = await next(args);
      const operation = (context["commandName"] as string).replace(/Command$/, "");
      const { changes, gaps } = ec2Changes(
        operation,
        plain(args.input),
        plain(result.output),
        recorder.state,
      );
      for (const change of changes) {
        if (recorder.state.apply(change) === "unknown") recorder.unknown.push(change);
      }
      recorder.gaps.push(...gaps);
      return result;
    },
    { step: "initialize" },
  );
  return recorder;
}

async function settled(ec2: EC2, id: string, state: string): Promise<void> {
  for (;;) {
    const { Reservations } = await ec2.describeInstances({ InstanceIds: [id] });
    if (Reservations?.[0]?.Instances?.[0]?.State?.Name === state) return;
    await systemClock.sleep(10);
  }
}

/**
 * Fields that a command does not tell, or a listing does not show. A launch address is not shown while a server is
 * stopped or has an Elastic IP instead, so that it is compared for the others apart.
 */
const unseen: Partial<Record<ResourceKind, readonly string[]>> = {
  server: ["userData", "privateIp", "zone", "publicAddress"],
  keyPair: ["publicKey"],
  addressAssociation: ["privateIp"],
};

function comparable({
  kind,
  id,
  spec,
  tags,
}: {
  kind: ResourceKind;
  id: string;
  spec: object;
  tags: object;
}) {
  const left = Object.entries(spec).filter(
    ([field, value]) => !unseen[kind]?.includes(field) && value !== false,
  );
  return { kind, id, spec: Object.fromEntries(left), tags };
}

const byId = (a: { kind: string; id: string }, b: { kind: string; id: string }): number =>
  `${a.kind} ${a.id}` < `${b.kind} ${b.id}` ? -1 : 1;

/** Answers the id of a server that nothing was done to after its launch. */
async function buildShop(ec2: EC2): Promise<ResourceId> {
  const named = (ResourceType: "vpc" | "instance" | "volume" | "elastic-ip", Value: string) => [
    { ResourceType, Tags: [{ Key: "Name", Value }] },
  ];
  const { Vpc } = await ec2.createVpc({ CidrBlock: "10.0.0.0/16", TagSpecifications: named("vpc", "shop") });
  const VpcId = Vpc?.VpcId;
  const { Subnet } = await ec2.createSubnet({ VpcId, CidrBlock: "10.0.1.0/24" });
  const spare = await ec2.createSubnet({ VpcId, CidrBlock: "10.0.2.0/24" });
  await ec2.deleteSubnet({ SubnetId: spare.Subnet?.SubnetId });
  const { InternetGateway } = await ec2.createInternetGateway({});
  await ec2.attachInternetGateway({ VpcId, InternetGatewayId: InternetGateway?.InternetGatewayId });
  await ec2.modifySubnetAttribute({ SubnetId: Subnet?.SubnetId, MapPublicIpOnLaunch: { Value: true } });
  const { GroupId } = await ec2.createSecurityGroup({ GroupName: "web", Description: "web", VpcId });
  await ec2.authorizeSecurityGroupIngress({
    GroupId,
    IpPermissions: [
      {
        IpProtocol: "tcp",
        FromPort: 80,
        ToPort: 81,
        IpRanges: [{ CidrIp: "0.0.0.0/0", Description: "all" }],
      },
      { IpProtocol: "icmp", FromPort: -1, ToPort: -1, IpRanges: [{ CidrIp: "10.0.0.0/8" }] },
      { IpProtocol: "tcp", FromPort: 0, ToPort: 65_535, UserIdGroupPairs: [{ GroupId }] },
    ],
  });
  await ec2.revokeSecurityGroupIngress({
    GroupId,
    IpProtocol: "icmp",
    FromPort: -1,
    ToPort: -1,
    CidrIp: "10.0.0.0/8",
  });
  await ec2.revokeSecurityGroupEgress({
    GroupId,
    IpPermissions: [{ IpProtocol: "-1", IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
  });
  await ec2.createKeyPair({ KeyName: "ops" });
  const { Instances } = await ec2.runInstances({
    ImageId: imageId,
    InstanceType: "t3.micro",
    MinCount: 4,
    MaxCount: 4,
    SubnetId: Subnet?.SubnetId,
    SecurityGroupIds: [GroupId ?? ""],
    KeyName: "ops",
    UserData: Buffer.from("#!/bin/sh\n").toString("base64"),
    TagSpecifications: named("instance", "web"),
  });
  const [first = "", second = "", third = "", plain = ""] = (Instances ?? []).map(
    ({ InstanceId }) => InstanceId ?? "",
  );
  for (const id of [first, second, third, plain]) await settled(ec2, id, "running");
  await ec2.stopInstances({ InstanceIds: [second] });
  await settled(ec2, second, "stopped");
  await ec2.modifyInstanceAttribute({ InstanceId: second, InstanceType: { Value: "t3.small" } });
  await ec2.terminateInstances({ InstanceIds: [third] });
  await settled(ec2, third, "terminated");
  const AvailabilityZone = Instances?.[0]?.Placement?.AvailabilityZone;
  const data = await ec2.createVolume({
    AvailabilityZone,
    Size: 2,
    TagSpecifications: named("volume", "data"),
  });
  const lost = await ec2.createVolume({ AvailabilityZone, Size: 3 });
  await ec2.attachVolume({ VolumeId: data.VolumeId, InstanceId: first, Device: "/dev/sdf" });
  await ec2.deleteVolume({ VolumeId: lost.VolumeId });
  const address = await ec2.allocateAddress({
    Domain: "vpc",
    TagSpecifications: named("elastic-ip", "front"),
  });
  await ec2.associateAddress({ AllocationId: address.AllocationId, InstanceId: first });
  await ec2.createTags({ Resources: [first, VpcId ?? ""], Tags: [{ Key: "tier", Value: "web" }] });
  await ec2.deleteTags({ Resources: [VpcId ?? ""], Tags: [{ Key: "Name" }] });
  return plain as ResourceId;
}

void test("the fold of all translated commands is what the cloud shows", async (t) => {
  const recorder = record();
  const plainServer = await buildShop(recorder.ec2);
  assert.deepEqual(recorder.unknown, []);
  assert.deepEqual(recorder.gaps, []);

  const cloud = openEc2Cloud({ endpoint, region, credentials, clock: systemClock, log: silentLog });
  const shown: ReturnType<typeof comparable>[] = [];
  for (const kind of resourceKinds) {
    for (const { resource } of await collect(cloud.list(kind, {}, t.signal)))
      shown.push(comparable(resource));
  }
  // Every account has a default network, and every network a default group, which no command made.
  const made = new Set([...recorder.state.resources()].map(({ kind, id }) => `${kind} ${id}`));
  const groupsMade = [...made].filter((key) => key.startsWith("securityGroup "));
  const ours = shown.filter(
    ({ kind, id }) =>
      made.has(`${kind} ${id}`) ||
      (kind === "securityGroupRule" && groupsMade.includes(`securityGroup ${id.split("/")[0] ?? ""}`)) ||
      !["network", "subnet", "securityGroup", "securityGroupRule"].includes(kind),
  );
  const told = [...recorder.state.resources()].map((resource) => comparable(resource));
  assert.deepEqual(told.sort(byId), ours.sort(byId));
  for (const server of [
    recorder.state.get("server", plainServer),
    (await cloud.get("server", plainServer, t.signal))?.resource,
  ]) {
    assert.ok(server?.kind === "server" && server.spec.publicAddress, "its subnet gives it a public address");
  }
  await cloud.close();
  recorder.ec2.destroy();
});
