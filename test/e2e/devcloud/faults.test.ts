/** Faults, limits and the admin API, as a client meets them. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  AllocateAddressCommand,
  CreateVpcCommand,
  DescribeAddressesCommand,
  DescribeInstancesCommand,
  DescribeVpcsCommand,
  EC2Client,
  type EC2ServiceException,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { startDevcloud, type Devcloud } from "#devcloud/start-devcloud.ts";
import { admin as call, makeDataDir } from "./devcloud-process.ts";

let cloud: Devcloud;
let client: EC2Client;
let data: ReturnType<typeof makeDataDir>;

before(async () => {
  data = makeDataDir();
  cloud = await startDevcloud({
    dialect: "ec2",
    dataDir: data.path,
    compute: "none",
    addressBase: "127.73.0.0/16",
    lifecycle: { bootMs: 0, stopMs: 0 },
  });
  client = clientWith(cloud.secretAccessKey.reveal());
});

after(async () => {
  client.destroy();
  await cloud.close();
  data[Symbol.dispose]();
});

function clientWith(secretAccessKey: string): EC2Client {
  return new EC2Client({
    endpoint: cloud.endpoint,
    region: "us-east-1",
    maxAttempts: 1,
    credentials: { accessKeyId: cloud.accessKeyId, secretAccessKey },
  });
}

const admin = (method: string, path: string, body?: unknown): Promise<unknown> =>
  call({ endpoint: cloud.endpoint, adminToken: cloud.adminToken.reveal() }, method, path, body);

async function failure(work: Promise<unknown>): Promise<{ name: string; status: number | undefined }> {
  try {
    await work;
  } catch (error) {
    const { name, $metadata } = error as EC2ServiceException;
    return { name, status: $metadata?.httpStatusCode };
  }
  throw new Error("it succeeded");
}

async function addressCount(): Promise<number> {
  return (await client.send(new DescribeAddressesCommand({}))).Addresses?.length ?? 0;
}

void test("refuse: the code asked for, so many times, and nothing applied", async () => {
  const held = await addressCount();
  await admin("POST", "faults", { operation: "AllocateAddress", effect: "refuse", count: 1, status: 503 });
  await admin("POST", "faults", {
    operation: "Allocate*",
    effect: "refuse",
    code: "InsufficientAddressCapacity",
    count: 1,
  });
  assert.deepEqual(await failure(client.send(new AllocateAddressCommand({}))), {
    name: "Unavailable",
    status: 503,
  });
  assert.equal(
    (await failure(client.send(new AllocateAddressCommand({})))).name,
    "InsufficientAddressCapacity",
  );
  assert.equal(await addressCount(), held);
  await client.send(new AllocateAddressCommand({}));
  assert.equal(await addressCount(), held + 1);
  await admin("DELETE", "faults");
});

void test("fail-after: applied, though the connection is cut", async () => {
  const held = await addressCount();
  await admin("POST", "faults", {
    operation: "AllocateAddress",
    effect: "fail-after",
    answer: "cut",
    count: 1,
  });
  assert.equal((await failure(client.send(new AllocateAddressCommand({})))).status, undefined);
  assert.equal(await addressCount(), held + 1);
  await admin("DELETE", "faults");
});

void test("timeout: no answer and nothing applied", async () => {
  const held = await addressCount();
  await admin("POST", "faults", { operation: "AllocateAddress", effect: "timeout", count: 1 });
  const sent = client.send(new AllocateAddressCommand({}), { abortSignal: AbortSignal.timeout(300) });
  assert.equal((await failure(sent)).name, "AbortError");
  assert.equal(await addressCount(), held);
  await admin("DELETE", "faults");
});

void test("rate limits answer as EC2 does when it throttles", async () => {
  await admin("PUT", "rate-limits", { DescribeVpcs: { perSecond: 0.001, burst: 2 } });
  await client.send(new DescribeVpcsCommand({}));
  await client.send(new DescribeVpcsCommand({}));
  assert.deepEqual(await failure(client.send(new DescribeVpcsCommand({}))), {
    name: "RequestLimitExceeded",
    status: 503,
  });
  await client.send(new DescribeAddressesCommand({}));
  await admin("PUT", "rate-limits", {});
});

void test("quotas", async () => {
  await admin("PUT", "quotas", { addresses: 0, servers: 3 });
  assert.equal((await failure(client.send(new AllocateAddressCommand({})))).name, "AddressLimitExceeded");
  const run = { ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "t3.nano" } as const;
  assert.equal(
    (await failure(client.send(new RunInstancesCommand({ ...run, MinCount: 4, MaxCount: 9 })))).name,
    "InstanceLimitExceeded",
  );
  const some = await client.send(new RunInstancesCommand({ ...run, MinCount: 1, MaxCount: 9 }));
  assert.equal(some.Instances?.length, 3);
  await admin("POST", "reset");
  await admin("PUT", "quotas", { addresses: 200, servers: 2000 });
});

void test("the state goes out whole and comes back whole", async () => {
  const { Vpc } = await client.send(new CreateVpcCommand({ CidrBlock: "10.9.0.0/16" }));
  const state = await admin("GET", "state");
  await admin("POST", "reset");
  assert.equal((await client.send(new DescribeVpcsCommand({}))).Vpcs?.length, 1);
  await admin("PUT", "state", state);
  assert.deepEqual(await admin("GET", "state"), state);
  await client.send(new DescribeVpcsCommand({ VpcIds: [Vpc?.VpcId ?? ""] }));
});

void test("nobody without the key or the token changes anything", async () => {
  const state = await admin("GET", "state");
  const stranger = clientWith("not-the-secret");
  assert.equal(
    (await failure(stranger.send(new CreateVpcCommand({ CidrBlock: "10.1.0.0/16" })))).name,
    "AuthFailure",
  );
  stranger.destroy();
  for (const [method, path] of [
    ["POST", "reset"],
    ["PUT", "state"],
    ["PUT", "faults"],
    ["PUT", "quotas"],
    ["GET", "state"],
    ["DELETE", "calls"],
  ] as const) {
    for (const headers of [{}, { authorization: "Bearer wrong" }]) {
      const response = await fetch(`${cloud.endpoint}/_devcloud/${path}`, { method, headers });
      assert.equal(response.status, 401, `${method} ${path}`);
    }
  }
  assert.deepEqual(await admin("GET", "state"), state);
});

void test("malformed and oversized requests are answered, not fatal", async () => {
  const huge = await fetch(cloud.endpoint, { method: "POST", body: "x".repeat(10 * 1024 * 1024) }).catch(
    () => undefined,
  );
  if (huge !== undefined) assert.equal(huge.status, 413);
  const unsigned = await fetch(cloud.endpoint, { method: "POST", body: "Action=DescribeVpcs" });
  assert.equal(unsigned.status, 403);
  assert.match(await unsigned.text(), /MissingAuthenticationToken/);
  await client.send(new DescribeVpcsCommand({}));
});

void test("a thousand servers: launched, listed in pages, each once", async () => {
  await admin("POST", "reset");
  for (let batch = 0; batch < 10; batch += 1) {
    const run = { ImageId: "ami-0a1b2c3d4e5f60001", InstanceType: "t3.nano" } as const;
    await client.send(new RunInstancesCommand({ ...run, MinCount: 100, MaxCount: 100 }));
  }
  await admin("POST", "settle");
  const seen: string[] = [];
  let token: string | undefined;
  do {
    const page = await client.send(
      new DescribeInstancesCommand({
        MaxResults: 100,
        NextToken: token,
        Filters: [{ Name: "instance-state-name", Values: ["run*"] }],
      }),
    );
    seen.push(
      ...(page.Reservations ?? [])
        .flatMap((each) => each.Instances ?? [])
        .map((each) => each.InstanceId ?? ""),
    );
    token = page.NextToken;
  } while (token !== undefined);
  assert.equal(seen.length, 1000);
  assert.equal(new Set(seen).size, 1000);
  const calls = (await admin("GET", "calls")) as Record<string, { succeeded: number }>;
  assert.ok((calls["RunInstances"]?.succeeded ?? 0) >= 10);
});
