// The window between intent and outcome: the gateway dies (SIGKILL) at each durable step of a workload, with the cloud losing
// answers too. Afterwards journal and cloud agree exactly: nothing doubled, no acknowledged command lost.
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  CreateSubnetCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  CreateVpcCommand,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  DescribeSubnetsCommand,
  DescribeVolumesCommand,
  DescribeVpcsCommand,
  EC2Client,
  RunInstancesCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import type { Ec2ChildOptions } from "./ec2-child.ts";
import { startGatewayChild, stopGatewayChild } from "./gateway-child.ts";

interface Running {
  readonly process: ChildProcess;
  readonly client: EC2Client;
}

async function startChild(options: Ec2ChildOptions): Promise<Running | undefined> {
  const started = await startGatewayChild(new URL("./ec2-child.ts", import.meta.url), options);
  if (started === undefined) return undefined;
  const { address, id, secret } = started.at;
  return {
    process: started.process,
    client: new EC2Client({
      endpoint: address,
      region: options.region,
      credentials: { accessKeyId: id, secretAccessKey: secret },
      maxAttempts: 1,
    }),
  };
}

async function stopChild({ process: child, client }: Running): Promise<void> {
  client.destroy();
  await stopGatewayChild(child);
}

/** A user's tool that repeats what was not answered, with its token, and looks first where there is none. */
class Tool {
  client: EC2Client;
  restarts = 0;
  readonly #revive: () => Promise<EC2Client>;

  constructor(client: EC2Client, revive: () => Promise<EC2Client>) {
    this.client = client;
    this.#revive = revive;
  }

  async until<T>(
    attempt: (client: EC2Client) => Promise<T>,
    look?: () => Promise<T | undefined>,
  ): Promise<T> {
    for (let tries = 0; ; tries += 1) {
      try {
        if (tries > 0 && look !== undefined) {
          const found = await look();
          if (found !== undefined) return found;
        }
        return await attempt(this.client);
      } catch (error) {
        const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
        if (tries > 20 || (status !== undefined && status < 500)) throw error;
        if (status === undefined) {
          this.client = await this.#revive();
          this.restarts += 1;
        } else await sleep(50);
      }
    }
  }
}

/** Ends with one network, one subnet and one server; returns their ids as the tool was told them. */
async function workload(tool: Tool, cloud: EC2Client, name: string, image: string): Promise<string[]> {
  const tags = [{ Key: "run", Value: name }];
  const mine = [{ Name: "tag:run", Values: [name] }];
  const vpc = await tool.until(
    async (client) =>
      (
        await client.send(
          new CreateVpcCommand({
            CidrBlock: "10.9.0.0/16",
            TagSpecifications: [{ ResourceType: "vpc", Tags: tags }],
          }),
        )
      ).Vpc?.VpcId,
    async () => (await cloud.send(new DescribeVpcsCommand({ Filters: mine }))).Vpcs?.[0]?.VpcId,
  );
  const subnet = await tool.until(
    async (client) =>
      (await client.send(new CreateSubnetCommand({ VpcId: vpc, CidrBlock: "10.9.1.0/24" }))).Subnet?.SubnetId,
    async () =>
      (await cloud.send(new DescribeSubnetsCommand({ Filters: [{ Name: "vpc-id", Values: [vpc ?? ""] }] })))
        .Subnets?.[0]?.SubnetId,
  );
  const servers = await tool.until(async (client) => {
    const { Instances = [] } = await client.send(
      new RunInstancesCommand({
        ImageId: image,
        InstanceType: "t3.micro",
        MinCount: 2,
        MaxCount: 2,
        SubnetId: subnet,
        ClientToken: `${name}-servers`,
      }),
    );
    return Instances.map(({ InstanceId = "" }) => InstanceId);
  });
  const volume = await tool.until((client) =>
    client.send(
      new CreateVolumeCommand({ AvailabilityZone: "us-east-1a", Size: 3, ClientToken: `${name}-volume` }),
    ),
  );
  const [kept = "", ended = ""] = servers;
  await tool.until((client) => client.send(new CreateTagsCommand({ Resources: [kept], Tags: tags })));
  await tool.until((client) => client.send(new TerminateInstancesCommand({ InstanceIds: [ended] })));
  await tool.until(async (client) => {
    try {
      await client.send(new DeleteVolumeCommand({ VolumeId: volume.VolumeId }));
    } catch (error) {
      if ((error as Error).name !== "InvalidVolume.NotFound") throw error;
    }
  });
  return [vpc ?? "", subnet ?? "", kept];
}

async function folded(
  folder: string,
  environment: string,
): Promise<{ state: EnvironmentState; open: number; serversMade: string[] }> {
  const store = await openSqliteStore({ path: join(folder, "state.db"), readOnly: true });
  const journal = await openJournal(store, { clock: systemClock });
  const id = environmentId(environment);
  const state = new EnvironmentState();
  const serversMade = new Set<string>();
  for (const { outcome } of await journal.read(id, 0, 1_000)) {
    for (const change of outcome?.changes ?? []) {
      state.apply(change);
      if (change.type === "create" && change.kind === "server") serversMade.add(change.id);
    }
  }
  const { open } = await journal.counts(id);
  await store.close();
  return { state, open, serversMade: [...serversMade].toSorted() };
}

interface Scenario {
  readonly cloud: Devcloud;
  readonly direct: EC2Client;
  readonly image: string;
  readonly name: string;
  readonly killAt: number;
  readonly lose: readonly string[];
}

/** True if the gateway was killed on the way. */
async function runScenario(scenario: Scenario): Promise<boolean> {
  const { cloud, direct, image, name, killAt, lose } = scenario;
  const folder = await mkdtemp(join(tmpdir(), "understudy-kill-"));
  const faults = lose.map((operation) => ({ operation, effect: "fail-after", answer: "cut", count: 1 }));
  const put = await fetch(`${cloud.endpoint}/_devcloud/faults`, {
    method: "PUT",
    headers: { authorization: `Bearer ${cloud.adminToken.reveal()}`, "content-type": "application/json" },
    body: JSON.stringify(faults),
  });
  assert.equal(put.status, 200);
  const { endpoint, region, accessKeyId, secretAccessKey } = cloud;
  const options: Ec2ChildOptions = {
    folder,
    endpoint,
    region,
    accessKeyId,
    secretAccessKey: secretAccessKey.reveal(),
    environment: name,
    killAt,
  };
  let running = await startChild(options);
  assert.ok(running !== undefined, "the first start has no open commands to resolve");
  const revive = async (): Promise<EC2Client> => {
    if (running !== undefined) await stopChild(running);
    running = await startChild({ ...options, killAt: 0 });
    assert.ok(running !== undefined);
    return running.client;
  };
  const tool = new Tool(running.client, revive);
  try {
    const told = await workload(tool, direct, name, image);
    if (running === undefined || running.process.signalCode !== null) await revive();
    while ((await folded(folder, name)).open > 0) await sleep(20);
    await compare(scenario, folder, told);
    return tool.restarts > 0;
  } finally {
    if (running !== undefined) await stopChild(running);
    await rm(folder, { recursive: true });
  }
}

async function compare({ direct, name }: Scenario, folder: string, told: readonly string[]): Promise<void> {
  const [vpc = "", subnet = "", kept = ""] = told;
  const { state, serversMade } = await folded(folder, name);
  const recorded = [...state.resources()].map(({ kind, id }) => `${kind} ${id}`).toSorted();
  const inVpc = [{ Name: "vpc-id", Values: [vpc] }];
  const found: string[] = [];
  const { Vpcs = [] } = await direct.send(
    new DescribeVpcsCommand({ Filters: [{ Name: "tag:run", Values: [name] }] }),
  );
  found.push(...Vpcs.map(({ VpcId }) => `network ${VpcId}`));
  const { Subnets = [] } = await direct.send(new DescribeSubnetsCommand({ Filters: inVpc }));
  found.push(...Subnets.map(({ SubnetId }) => `subnet ${SubnetId}`));
  const { Reservations = [] } = await direct.send(
    // By token: a terminated server no longer names its network.
    new DescribeInstancesCommand({ Filters: [{ Name: "client-token", Values: [`${name}-servers`] }] }),
  );
  const servers = Reservations.flatMap(({ Instances = [] }) => Instances);
  const alive = servers.filter(
    ({ State }) => State?.Name !== "terminated" && State?.Name !== "shutting-down",
  );
  found.push(...alive.map(({ InstanceId }) => `server ${InstanceId}`));
  const modelled = recorded.filter((line) => /^(?:network|subnet|server|volume) /.test(line));
  assert.deepEqual(modelled, found.toSorted(), "journal and cloud agree");
  assert.deepEqual(modelled, [`network ${vpc}`, `server ${kept}`, `subnet ${subnet}`].toSorted());
  assert.deepEqual(
    serversMade,
    servers.map(({ InstanceId = "" }) => InstanceId).toSorted(),
    "each server was made once",
  );
  assert.equal(state.get("server", kept as never)?.tags["run"], name);
}

async function withCloud(t: TestContext, lose: readonly string[]): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), "understudy-cloud-"));
  const cloud = await startDevcloud({
    dialect: "ec2",
    dataDir,
    compute: "none",
    quotas: { networks: 1_000 },
  });
  const direct = new EC2Client({
    endpoint: cloud.endpoint,
    region: cloud.region,
    credentials: { accessKeyId: cloud.accessKeyId, secretAccessKey: cloud.secretAccessKey.reveal() },
  });
  t.after(async () => {
    direct.destroy();
    await cloud.close();
    await rm(dataDir, { recursive: true });
  });
  const image = "ami-0a1b2c3d4e5f60001";
  let killAt = 1;
  for (; ; killAt += 1) {
    const name = `run-${lose.length}-${killAt}`;
    const killed = await runScenario({ cloud, direct, image, name, killAt, lose });
    if (!killed) break;
  }
  // Seven changes have two durable steps each.
  assert.ok(killAt > 14, `the kill reached each step: ${killAt - 1}`);
  const { Volumes = [] } = await direct.send(new DescribeVolumesCommand({}));
  assert.deepEqual(
    Volumes.filter(
      ({ Size, State }) => Size === 3 && State !== "deleted" && State !== ("deleting" as string),
    ),
    [],
  );
}

test("killed at each durable step, the journal and the cloud agree afterwards", { timeout: 300_000 }, (t) =>
  withCloud(t, []),
);

test("the same while the cloud loses answers after it did what was asked", { timeout: 300_000 }, (t) =>
  withCloud(t, ["CreateVpc", "RunInstances", "TerminateInstances", "DeleteVolume"]),
);
