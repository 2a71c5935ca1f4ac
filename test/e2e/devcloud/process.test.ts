/** What a server's program sees and what the API shows of it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  DescribeInstancesCommand,
  DescribeInstanceStatusCommand,
  EC2Client,
  GetConsoleOutputCommand,
  RebootInstancesCommand,
  RunInstancesCommand,
  TerminateInstancesCommand,
  waitUntilInstanceRunning,
  waitUntilInstanceTerminated,
} from "@aws-sdk/client-ec2";
import { startDevcloud, type Devcloud } from "#devcloud/start-devcloud.ts";
import { ask, isGone, makeDataDir, webServer } from "./devcloud-process.ts";
import { until } from "#testing/until.ts";

let cloud: Devcloud;
let client: EC2Client;
let data: ReturnType<typeof makeDataDir>;

before(async () => {
  data = makeDataDir();
  cloud = await startDevcloud({
    dialect: "ec2",
    dataDir: data.path,
    addressBase: "127.76.0.0/16",
    stopGraceMs: 200,
    lifecycle: { bootMs: 0, stopMs: 0 },
  });
  client = new EC2Client({
    endpoint: cloud.endpoint,
    region: "us-east-1",
    credentials: { accessKeyId: cloud.accessKeyId, secretAccessKey: cloud.secretAccessKey.reveal() },
  });
});

after(async () => {
  client.destroy();
  await cloud.close();
  data[Symbol.dispose]();
});

async function launch(userData: string): Promise<{ id: string; ip: string }> {
  const { Instances } = await client.send(
    new RunInstancesCommand({
      ImageId: "ami-0a1b2c3d4e5f60001",
      MinCount: 1,
      MaxCount: 1,
      InstanceType: "t3.nano",
      UserData: userData,
      TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: "probe" }] }],
    }),
  );
  const id = Instances?.[0]?.InstanceId ?? "";
  const ids = { InstanceIds: [id] };
  await waitUntilInstanceRunning({ client, maxWaitTime: 30, minDelay: 1, maxDelay: 1 }, ids);
  const seen = await client.send(new DescribeInstancesCommand(ids));
  return { id, ip: seen.Reservations?.[0]?.Instances?.[0]?.PublicIpAddress ?? "" };
}

async function consoleOf(id: string): Promise<string> {
  const { Output } = await client.send(new GetConsoleOutputCommand({ InstanceId: id }));
  return Buffer.from(Output ?? "", "base64").toString("utf8");
}

const script = (text: string): string => Buffer.from(text).toString("base64");

void test("the metadata service knows who asks, and asks for a token", async () => {
  const { id, ip } = await launch(
    script(`#!/usr/bin/env node
(async () => {
  const base = process.env.AWS_EC2_METADATA_SERVICE_ENDPOINT;
  const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
  const token = await (await fetch(base + "/latest/api/token", { method: "PUT", headers: ttl })).text();
  const get = async (path) => (await fetch(base + path, { headers: { "x-aws-ec2-metadata-token": token } })).text();
  console.log(JSON.stringify({
    id: await get("/latest/meta-data/instance-id"),
    ip: await get("/latest/meta-data/public-ipv4"),
    tags: await get("/latest/meta-data/tags/instance/"),
    bare: (await fetch(base + "/latest/meta-data/instance-id")).status,
    env: [process.env.SERVER_ID, process.env.SERVER_ADDRESS, JSON.parse(process.env.TAGS).Name],
  }));
})();
`),
  );
  const line = await until("the script's report", async () =>
    (await consoleOf(id)).split("\n").find((each) => each.startsWith("{")),
  );
  assert.deepEqual(JSON.parse(line), { id, ip, tags: "Name", bare: 401, env: [id, ip, "probe"] });
});

void test("a program that ended leaves a running instance that fails its check", async () => {
  const { id } = await launch(script("#!/bin/sh\necho bye\n"));
  const statusOf = async (): Promise<string | undefined> => {
    const found = await client.send(new DescribeInstanceStatusCommand({ InstanceIds: [id] }));
    return found.InstanceStatuses?.[0]?.InstanceStatus?.Status;
  };
  await until("the check to fail", async () => ((await statusOf()) === "impaired" ? true : undefined));
  assert.match(await consoleOf(id), /bye/);
});

void test("a reboot runs the program anew; one that ignores SIGTERM is killed, with its children", async () => {
  const { id, ip } = await launch(webServer);
  const before = await until("the server", () => ask(ip));
  await client.send(new RebootInstancesCommand({ InstanceIds: [id] }));
  await until("another process", async () => {
    const now = await ask(ip);
    return now !== undefined && now.pid !== before.pid ? now : undefined;
  });
  assert.match(await consoleOf(id), /asked to stop/);

  const stubborn = await launch(
    script("#!/bin/sh\ntrap '' TERM\nsh -c 'echo child $$; while :; do sleep 1; done' &\nwait\n"),
  );
  const pid = await until(
    "the child's pid",
    async () => /child ([0-9]+)/.exec(await consoleOf(stubborn.id))?.[1],
  );
  const ids = { InstanceIds: [stubborn.id] };
  await client.send(new TerminateInstancesCommand(ids));
  await waitUntilInstanceTerminated({ client, maxWaitTime: 30, minDelay: 1, maxDelay: 1 }, ids);
  await until("the child to be gone", () => Promise.resolve(isGone(Number(pid)) || undefined));
});
