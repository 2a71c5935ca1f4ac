/** The calls of the EC2 suites, and what they wait for. */
import assert from "node:assert/strict";
import {
  AuthorizeSecurityGroupIngressCommand,
  CreateSecurityGroupCommand,
  CreateVolumeCommand,
  DescribeInstancesCommand,
  EC2Client,
  GetConsoleOutputCommand,
  RevokeSecurityGroupIngressCommand,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { type Ready, until } from "./stage.ts";

export function clientOf(ready: Ready): EC2Client {
  const { accessKeyId, secretAccessKey } = ready;
  return new EC2Client({
    endpoint: ready.endpoint,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId, secretAccessKey },
  });
}

export async function openGroup(client: EC2Client, ports: readonly number[]): Promise<string> {
  const made = await client.send(new CreateSecurityGroupCommand({ GroupName: "web", Description: "web" }));
  const GroupId = made.GroupId ?? "";
  for (const port of ports) await setPort(client, GroupId, port, true);
  return GroupId;
}

export async function run(client: EC2Client, group: string, userData: string): Promise<string> {
  const { Instances } = await client.send(
    new RunInstancesCommand({
      ImageId: "ami-0a1b2c3d4e5f60001",
      InstanceType: "t3.nano",
      MinCount: 1,
      MaxCount: 1,
      SecurityGroupIds: [group],
      UserData: Buffer.from(userData).toString("base64"),
      Placement: { AvailabilityZone: "us-east-1a" },
    }),
  );
  return Instances?.[0]?.InstanceId ?? "";
}

export async function running(client: EC2Client, id: string, signal: AbortSignal): Promise<string> {
  return until(async () => {
    const seen = await client.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
    const instance = seen.Reservations?.[0]?.Instances?.[0];
    assert.ok(
      ["pending", "running"].includes(instance?.State?.Name ?? ""),
      JSON.stringify(instance?.StateReason),
    );
    return instance?.State?.Name === "running" && instance.PublicIpAddress;
  }, signal);
}

export async function consoleOf(client: EC2Client, id: string): Promise<string> {
  const { Output } = await client.send(new GetConsoleOutputCommand({ InstanceId: id }));
  return Buffer.from(Output ?? "", "base64").toString("utf8");
}

export async function makeVolume(client: EC2Client): Promise<string> {
  const zone = { AvailabilityZone: "us-east-1a" };
  const made = await client.send(new CreateVolumeCommand({ ...zone, Size: 1, VolumeType: "gp3" }));
  return made.VolumeId ?? "";
}

/** The disk's serial number in the guest. */
export function serialOf(volumeId: string): string {
  return volumeId.replace("-", "");
}

export async function stateReason(client: EC2Client, id: string): Promise<string> {
  const seen = await client.send(new DescribeInstancesCommand({ InstanceIds: [id] }));
  return seen.Reservations?.[0]?.Instances?.[0]?.StateReason?.Message ?? "";
}

/** Lets TCP in on the port from everywhere, or not any more. */
export async function setPort(
  client: EC2Client,
  GroupId: string,
  port: number,
  open: boolean,
): Promise<void> {
  const range = { FromPort: port, ToPort: port, IpRanges: [{ CidrIp: "0.0.0.0/0" }] };
  const rule = { GroupId, IpPermissions: [{ IpProtocol: "tcp", ...range }] };
  await (open
    ? client.send(new AuthorizeSecurityGroupIngressCommand(rule))
    : client.send(new RevokeSecurityGroupIngressCommand(rule)));
}
