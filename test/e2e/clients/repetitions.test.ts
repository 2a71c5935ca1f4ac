/** The cloud throttles, fails and loses answers: the SDK repeats, with the gateway between as without it, and nothing is doubled. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { boto3Missing, openBoto3Client } from "./boto3-client.ts";
import { type Client, type Endpoint, list, text } from "./client.ts";
import { assertFoldIsCloud } from "./journal-agrees.ts";
import { openJsClient } from "./js-client.ts";
import { assertSame, Session } from "./transcript.ts";
import { image, startTwoWays } from "./two-ways.ts";

const launch = { ImageId: image, InstanceType: "t3.micro", MinCount: 1, MaxCount: 1 };

const faults: readonly object[] = [
  { operation: "DescribeVpcs", effect: "refuse", status: 503, code: "RequestLimitExceeded", count: 2 },
  { operation: "CreateVpc", effect: "refuse", status: 503, code: "RequestLimitExceeded", count: 1 },
  // Not done, and not said so: it has to be found out.
  { operation: "RunInstances", effect: "refuse", status: 500, count: 1 },
  // Done, and then not said so.
  { operation: "CreateVolume", effect: "fail-after", answer: "error", status: 500, count: 1 },
  { operation: "RunInstances", effect: "fail-after", answer: "error", status: 500, skip: 1, count: 1 },
  { operation: "TerminateInstances", effect: "fail-after", answer: "cut", count: 1 },
];

async function persist(session: Session): Promise<void> {
  await session.done("DescribeVpcs", {});
  await session.done("CreateVpc", { CidrBlock: "10.0.0.0/16" });
  await session.done("RunInstances", launch);
  // Not compared: an answer to a repetition shows a server as far as it is by then.
  const made = await session.aside("RunInstances", { ...launch, ClientToken: "second" });
  const ids = list(made, "Instances").map((each) => text(each, "InstanceId"));
  await session.done("CreateVolume", { AvailabilityZone: "us-east-1a", Size: 3, ClientToken: "disk" });
  await session.wait("InstanceRunning", { InstanceIds: ids });
  await session.aside("TerminateInstances", { InstanceIds: ids });
  await session.wait("InstanceTerminated", { InstanceIds: ids });
  const running = { Filters: [{ Name: "instance-state-name", Values: ["pending", "running"] }] };
  const servers = await session.done("DescribeInstances", running);
  assert.equal(list(servers, "Reservations").length, 1, "one is left, and none was doubled");
  const volumes = await session.done("DescribeVolumes", { Filters: [{ Name: "size", Values: ["3"] }] });
  assert.equal(list(volumes, "Volumes").length, 1);
}

async function repeats(t: TestContext, open: (endpoint: Endpoint) => Client): Promise<void> {
  await using ways = await startTwoWays();
  await ways.admin("PUT", "faults", faults);
  const direct = new Session(open(ways.direct));
  const through = new Session(open(ways.through));
  t.after(() => Promise.all([direct.client.close(), through.client.close()]));
  await Promise.all([persist(direct), persist(through)]);
  assertSame(direct.lines, through.lines);
  const entries = await ways.journal();
  assert.deepEqual(
    entries.filter(({ outcome }) => outcome === null || outcome.result === "unknown"),
    [],
    "what was not said has been found out",
  );
  const applied = (operation: string): number =>
    entries.filter(({ intent, outcome }) => intent.operation === operation && outcome?.result === "applied")
      .length;
  assert.equal(applied("CreateVpc"), 1);
  assert.ok(applied("RunInstances") >= 2);
  await assertFoldIsCloud(ways, entries, t.signal, true);
}

void test("the JS SDK repeats what failed", { timeout: 120_000 }, (t) =>
  repeats(t, (endpoint) => openJsClient(endpoint)),
);

void test("boto3 repeats what failed", { skip: boto3Missing(), timeout: 120_000 }, (t) =>
  repeats(t, (endpoint) => openBoto3Client(endpoint)),
);
