/** Killing the cloud: what it acknowledged is there again, with the same ids, and its servers died with it. */
import assert from "node:assert/strict";
import test from "node:test";
import {
  AllocateAddressCommand,
  AssociateAddressCommand,
  AuthorizeSecurityGroupIngressCommand,
  CreateSecurityGroupCommand,
  CreateTagsCommand,
  CreateVpcCommand,
  DescribeInstancesCommand,
  DescribeVpcsCommand,
  RunInstancesCommand,
  StopInstancesCommand,
  waitUntilInstanceRunning,
  waitUntilInstanceStopped,
} from "@aws-sdk/client-ec2";
import { admin, ask, end, isGone, makeDataDir, spawnDevcloud, webServer } from "./devcloud-process.ts";
import { until } from "#testing/until.ts";

void test("a killed cloud takes its servers along and has everything again when it returns", async () => {
  using data = makeDataDir();
  const args = ["--address-base", "127.71.0.0/16"];
  const first = await spawnDevcloud(data.path, args);
  let second: Awaited<ReturnType<typeof spawnDevcloud>> | undefined;
  try {
    const { client } = first;
    const { GroupId = "" } = await client.send(
      new CreateSecurityGroupCommand({ GroupName: "web", Description: "web" }),
    );
    await client.send(
      new AuthorizeSecurityGroupIngressCommand({
        GroupId,
        IpPermissions: [
          { IpProtocol: "tcp", FromPort: 8080, ToPort: 8080, IpRanges: [{ CidrIp: "0.0.0.0/0" }] },
        ],
      }),
    );
    const run = await client.send(
      new RunInstancesCommand({
        ImageId: "ami-0a1b2c3d4e5f60001",
        MinCount: 2,
        MaxCount: 2,
        InstanceType: "t3.micro",
        SecurityGroupIds: [GroupId],
        UserData: webServer,
        TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "web" }] }],
      }),
    );
    const [keep = "", stop = ""] = (run.Instances ?? []).map((instance) => instance.InstanceId ?? "");
    const wait = { client, maxWaitTime: 30, minDelay: 1, maxDelay: 1 };
    await waitUntilInstanceRunning(wait, { InstanceIds: [keep, stop] });
    const { AllocationId, PublicIp = "" } = await client.send(new AllocateAddressCommand({ Domain: "vpc" }));
    await client.send(new AssociateAddressCommand({ AllocationId, InstanceId: keep }));
    await client.send(new StopInstancesCommand({ InstanceIds: [stop] }));
    await waitUntilInstanceStopped(wait, { InstanceIds: [stop] });
    const before = await until("the server behind its address", () => ask(PublicIp));
    assert.equal(before.name, "web");
    await client.send(new CreateTagsCommand({ Resources: [keep], Tags: [{ Key: "last", Value: "word" }] }));
    const stateBefore = (await admin(first, "GET", "state")) as { tables: unknown };
    await end(first, "SIGKILL");
    await until("the server's process to end", () => Promise.resolve(isGone(before.pid) || undefined));

    second = await spawnDevcloud(data.path, args);
    const stateAfter = (await admin(second, "GET", "state")) as { tables: unknown };
    assert.deepEqual(stateAfter.tables, stateBefore.tables);
    const after = await until("the server after the restart", () => ask(PublicIp));
    assert.notEqual(after.pid, before.pid);
    const seen = await second.client.send(new DescribeInstancesCommand({ InstanceIds: [keep, stop] }));
    const states = (seen.Reservations ?? []).flatMap((each) => each.Instances ?? []);
    assert.deepEqual(
      states.map((each) => [each.InstanceId, each.State?.Name]),
      [
        [keep, "running"],
        [stop, "stopped"],
      ],
    );
    await end(second, "SIGTERM");
    await until("the server's process to end", () => Promise.resolve(isGone(after.pid) || undefined));
  } finally {
    await end(first, "SIGKILL");
    if (second !== undefined) await end(second, "SIGKILL");
  }
});

void test("whatever moment it is killed at, each acknowledged VPC is there", async () => {
  using data = makeDataDir();
  const acknowledged: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const cloud = await spawnDevcloud(data.path, ["--compute", "none", "--address-base", "127.72.0.0/16"]);
    try {
      await admin(cloud, "PUT", "quotas", { networks: 10_000 });
      const creating = Array.from({ length: 8 }, async (_, worker) => {
        for (let index = 0; ; index += 1) {
          try {
            const answer = await cloud.client.send(new CreateVpcCommand({ CidrBlock: "10.0.0.0/16" }));
            acknowledged.push(answer.Vpc?.VpcId ?? "");
          } catch {
            // The kill: this call has no answer.
            return;
          }
          if (worker === 0 && index === 3 + round * 5) cloud.child.kill("SIGKILL");
        }
      });
      await Promise.all(creating);
    } finally {
      await end(cloud, "SIGKILL");
    }
  }
  const cloud = await spawnDevcloud(data.path, ["--compute", "none", "--address-base", "127.72.0.0/16"]);
  try {
    const there = new Set<string>();
    let token: string | undefined;
    do {
      const page = await cloud.client.send(new DescribeVpcsCommand({ MaxResults: 50, NextToken: token }));
      for (const vpc of page.Vpcs ?? []) there.add(vpc.VpcId ?? "");
      token = page.NextToken;
    } while (token !== undefined);
    assert.ok(acknowledged.length > 20);
    assert.deepEqual(
      acknowledged.filter((id) => !there.has(id)),
      [],
    );
  } finally {
    await end(cloud, "SIGTERM");
  }
});
