// An environment built in a cloud fails over to a bare host, with its disk, and comes home.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  AuthorizeSecurityGroupIngressCommand,
  CreateTagsCommand,
  DescribeInstancesCommand,
  type EC2Client,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { collect } from "#cloud/contract.ts";
import type { Gap } from "#model/gap.ts";
import type { RunView } from "#takeover/control.ts";
import { buildDatabase, type Holdings, lastAcknowledged, readHoldings } from "../../../demo/database.ts";
import { image } from "../../../demo/stage.ts";
import { getOnce, skip } from "../devcloud-qemu/stage.ts";
import { until } from "../takeover/until.ts";
import { servesItsName } from "./host-under-test.ts";
import { TakeoverStage } from "./takeover-stage.ts";

const limitMs = 180_000;

/** Two web servers beside the database, and a rule that a bare host cannot hold. */
async function addWeb(ec2: EC2Client): Promise<void> {
  const { Reservations } = await ec2.send(new DescribeInstancesCommand({}));
  const database = Reservations?.[0]?.Instances?.[0];
  const GroupId = database?.SecurityGroups?.[0]?.GroupId ?? "";
  for (const name of ["web-1", "web-2"]) {
    await ec2.send(
      new RunInstancesCommand({
        ImageId: image,
        InstanceType: "t3.micro",
        MinCount: 1,
        MaxCount: 1,
        SubnetId: database?.SubnetId,
        SecurityGroupIds: [GroupId],
        UserData: servesItsName(8080),
        TagSpecifications: [
          {
            ResourceType: "instance",
            Tags: [
              { Key: "Name", Value: name },
              { Key: "tier", Value: "web" },
            ],
          },
        ],
      }),
    );
  }
  const IpPermissions = [
    { IpProtocol: "tcp", FromPort: 5432, ToPort: 5432, IpRanges: [{ CidrIp: "10.0.0.0/16" }] },
  ];
  await ec2.send(new AuthorizeSecurityGroupIngressCommand({ GroupId, IpPermissions }));
}

/** The names that answer at the web route, asked often enough to meet both. */
async function webNames(stage: TakeoverStage): Promise<readonly string[]> {
  const names = new Set<string>();
  for (let count = 0; count < 8; count += 1) {
    const name = await getOnce(stage.urlOf("web")).catch(() => "");
    if (name !== "") names.add(name);
  }
  return [...names].toSorted();
}

function bothAnswer(stage: TakeoverStage): Promise<readonly string[]> {
  const both = (names: readonly string[]): boolean => names.join() === "web-1,web-2";
  return until("both web servers to answer", () => webNames(stage), both, limitMs);
}

async function databaseOf(stage: TakeoverStage, done: (seen: Holdings) => boolean): Promise<Holdings> {
  const seen = await until(
    "the database to answer",
    () => readHoldings(stage.urlOf("database")),
    (held) => held !== null && done(held),
    limitMs,
  );
  assert.ok(seen);
  return seen;
}

async function captured(stage: TakeoverStage, side: "east" | "west"): Promise<void> {
  await using host = stage.diskHost(side);
  await until(
    `the disk to be captured in the ${side}`,
    () => host.captures(AbortSignal.timeout(10_000)).catch(() => []),
    (captures) => captures.length > 0 && captures.every(({ state }) => state === "continuous"),
    limitMs,
  );
}

function ended(stage: TakeoverStage, kind: string): Promise<RunView> {
  return until(
    `the ${kind} to end`,
    () => stage.room.runs(),
    (runs) => runs.some((run) => run.kind === kind) && runs.every(({ state }) => state !== "running"),
    limitMs,
  ).then((runs) => runs.find((run) => run.kind === kind) ?? assert.fail());
}

test(
  "a cloud's servers and their disk fail over to a bare host, and come home with what was written there",
  { skip, timeout: 600_000 },
  async (t) => {
    await using stage = await TakeoverStage.set();
    await buildDatabase(stage.ec2, image);
    await addWeb(stage.ec2);
    await databaseOf(stage, ({ now }) => now.last > 0);
    await bothAnswer(stage);
    await captured(stage, "east");
    await until(
      "the reserve to follow",
      () => stage.room.status(),
      ({ behind }) => behind.standby === 0 && behind.state === 0,
      limitMs,
    );
    const { gaps } = stage.command(["gaps", "shop"]) as { gaps: readonly Gap[] };
    const unenforced = gaps.filter(({ code }) => code === "rule.unenforced");
    assert.ok(
      unenforced.some(({ message }) => message.includes("/tcp/5432-5432/10.0.0.0/16")),
      JSON.stringify(gaps),
    );
    const reserve = await collect(stage.west.cloud.list("server", {}, t.signal));
    assert.ok(reserve.length >= 1 && reserve.length < 3, `${reserve.length} servers stand by`);

    await stage.killEast();
    const acknowledged = lastAcknowledged(stage.consolesOf("east/host/machines"));
    assert.ok(acknowledged > 0);
    stage.command(["failover", "shop", "--confirm", "shop", "--no-wait", "--reason", "east is gone"]);
    const inWest = await databaseOf(stage, ({ boot }) => boot.last > 0);
    assert.ok(inWest.boot.last >= acknowledged, `${inWest.boot.last} of ${acknowledged} records`);
    assert.equal(inWest.boot.torn, 0);
    assert.equal(inWest.boot.missing, 0);
    const failover = await ended(stage, "failover");
    assert.equal(failover.state, "succeeded", failover.error ?? "");
    await bothAnswer(stage);
    const servers = await collect(stage.west.cloud.list("server", {}, t.signal));
    assert.deepEqual(servers.map(({ resource, status }) => `${resource.tags["Name"]} ${status}`).toSorted(), [
      "db-1 ready",
      "web-1 ready",
      "web-2 ready",
    ]);
    assert.equal(stage.west.machines.length, 3);
    // The host has no API of a cloud's.
    const id = servers[0]?.resource.id ?? "";
    const tag = new CreateTagsCommand({ Resources: [id], Tags: [{ Key: "a", Value: "b" }] });
    await assert.rejects(stage.ec2.send(tag), /is no AWS with the service/u);
    await captured(stage, "west");
    {
      await using host = stage.diskHost("west");
      const [capture] = await host.captures(t.signal);
      assert.match(capture?.uri ?? "", /^nbds:/u, "what leaves the machine does so over TLS");
    }
    const beforeCut = await databaseOf(stage, ({ now }) => now.last > inWest.boot.last);
    await stage.killVault();
    await databaseOf(stage, ({ now }) => now.last > beforeCut.now.last + 20);
    await stage.startVault();
    await captured(stage, "west");

    await stage.startEast();
    const beforeReturn = await databaseOf(stage, ({ now }) => now.last > inWest.boot.last + 20);
    stage.command(["failback", "shop", "--confirm", "shop", "--no-wait", "--reason", "east is back"]);
    const failback = await ended(stage, "failback");
    assert.equal(failback.state, "succeeded", failback.error ?? "");
    const home = await databaseOf(stage, ({ boot }) => boot.last >= beforeReturn.now.last);
    assert.equal(home.boot.torn, 0);
    assert.equal(home.boot.missing, 0);
    await bothAnswer(stage);
    await until(
      "the host to be scaled down",
      () => collect(stage.west.cloud.list("server", {}, t.signal)),
      (left) => left.length === reserve.length,
      limitMs,
    );
  },
);
