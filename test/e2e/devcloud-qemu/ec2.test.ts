/** Real guests behind the EC2 dialect, through the AWS SDK. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AuthorizeSecurityGroupIngressCommand,
  CreateSecurityGroupCommand,
  CreateVolumeCommand,
  AttachVolumeCommand,
  DescribeInstancesCommand,
  DetachVolumeCommand,
  EC2Client,
  GetConsoleOutputCommand,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { get, isRunning, type Ready, servesFrom, skip, Stage, until } from "./stage.ts";

function clientOf(ready: Ready): EC2Client {
  const { accessKeyId, secretAccessKey } = ready;
  return new EC2Client({
    endpoint: ready.endpoint,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId, secretAccessKey },
  });
}

async function openGroup(client: EC2Client, ports: readonly number[]): Promise<string> {
  const made = await client.send(new CreateSecurityGroupCommand({ GroupName: "web", Description: "web" }));
  const GroupId = made.GroupId ?? "";
  const IpPermissions = ports.map((port) => ({
    IpProtocol: "tcp",
    FromPort: port,
    ToPort: port,
    IpRanges: [{ CidrIp: "0.0.0.0/0" }],
  }));
  await client.send(new AuthorizeSecurityGroupIngressCommand({ GroupId, IpPermissions }));
  return GroupId;
}

async function run(client: EC2Client, group: string, userData: string): Promise<string> {
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

async function running(client: EC2Client, id: string, signal: AbortSignal): Promise<string> {
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

async function consoleOf(client: EC2Client, id: string): Promise<string> {
  const { Output } = await client.send(new GetConsoleOutputCommand({ InstanceId: id }));
  return Buffer.from(Output ?? "", "base64").toString("utf8");
}

test(
  "an instance serves from its volume, over restarts of its cloud",
  { skip, timeout: 80_000 },
  async (t) => {
    await using stage = new Stage("ec2", "127.81.0.0/16");
    let client = clientOf(await stage.start());
    const group = await openGroup(client, [80]);
    const made = await client.send(
      new CreateVolumeCommand({ AvailabilityZone: "us-east-1a", Size: 1, VolumeType: "gp3" }),
    );
    const VolumeId = made.VolumeId ?? "";
    const serial = VolumeId.replace("-", "");
    const first = await run(client, group, servesFrom(serial, "first"));
    await client.send(new AttachVolumeCommand({ VolumeId, InstanceId: first, Device: "/dev/sdf" }));
    const address = await running(client, first, t.signal);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first");
    assert.match(await consoleOf(client, first), /serving from \/dev\/vd/);

    const pid = stage.guestPid(first);
    assert.ok(pid);
    client.destroy();
    await stage.end("SIGKILL");
    assert.equal(
      await get(`http://${address}/cgi-bin/lines`, t.signal),
      "first",
      "it serves without its cloud",
    );
    client = clientOf(await stage.start());
    await running(client, first, t.signal);
    assert.equal(stage.guestPid(first), pid);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first", "it was not booted again");

    const second = await run(client, group, servesFrom(serial, "second"));
    await get(`http://${address}/cgi-bin/release`, t.signal);
    await until(async () => /released/.test(await consoleOf(client, first)), t.signal);
    await client.send(new DetachVolumeCommand({ VolumeId }));
    const other = await running(client, second, t.signal);
    await client.send(new AttachVolumeCommand({ VolumeId, InstanceId: second, Device: "/dev/sdf" }));
    assert.equal(await get(`http://${other}/cgi-bin/lines`, t.signal), "first\nsecond");
    client.destroy();

    const pids = [stage.guestPid(first), stage.guestPid(second)];
    await stage.end("SIGTERM");
    assert.deepEqual(
      pids.map((each) => each !== null && isRunning(each)),
      [false, false],
      "a clean stop ends its guests",
    );
    client = clientOf(await stage.start());
    assert.equal(await running(client, second, t.signal), other);
    assert.equal(await get(`http://${other}/cgi-bin/lines`, t.signal), "first\nsecond\nsecond");
    client.destroy();
  },
);
