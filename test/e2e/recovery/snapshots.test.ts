/**
 * Volumes of a cloud where no host agent of ours runs, kept by its snapshots: the command line, the control plane and the vault as real
 * processes over a cloud that speaks EC2 and EBS direct.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  linkSync,
  mkdirSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import {
  AttachVolumeCommand,
  CreateVolumeCommand,
  type EC2Client,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import type { KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import {
  adminOf,
  clientOf,
  createKey,
  image,
  makePlace,
  type Place,
  run,
  type Running,
  start,
  statusOf,
  up,
} from "../cli/understudy-process.ts";
import { until } from "#testing/until.ts";

const block = 512 * 1024;
const { signal } = new AbortController();

interface Calls {
  readonly calls: number;
  readonly succeeded: number;
}

interface Stage {
  readonly place: Place;
  readonly desk: VaultDesk;
  readonly volumes: readonly string[];
  engine: Running;
  vault: Running;
  /** Writes into the volume's disk as a machine would. */
  write(volume: string, offset: number, data: Buffer): void;
  blocksFetched(): Promise<number>;
  kept(): Promise<readonly KeptVolume[]>;
  /** Every volume's content is of a snapshot that began after now. */
  fresh(): Promise<readonly KeptVolume[]>;
}

async function makeStage(t: TestContext, every = "4s"): Promise<Stage> {
  const place = await makePlace(t, (yaml) =>
    yaml
      .replace(
        "sites:",
        `vault:
  store: {folder: ./store}
  passphrase: {file: ./phrase}
  data: ./vd
sites:`,
      )
      .replace(
        "    failover: {}",
        `    failover: {}
    protect: {volumes: {keep: "yes"}, snapshots: {every: ${every}}, pointsEvery: 1s}`,
      ),
  );
  const { folder } = place;
  writeFileSync(join(folder, "phrase"), "correct horse\n", { mode: 0o600 });
  const made = await run(folder, ["vault", "init"]);
  assert.equal(made.code, 0, made.stderr);
  const vault = await start(t, folder, ["vault", "serve", "--json"]);
  const keys = await createKey(folder);
  const engine = await up(t, place);
  const client = clientOf(t, `http://127.0.0.1:${place.ports.gateway}`, keys);
  const volumes = await makeServer(client);
  const desk = connectDesk(join(folder, "vd"));
  t.after(() => desk[Symbol.asyncDispose]());
  mkdirSync(join(folder, "east", "volumes"), { recursive: true });
  const keep = setInterval(() => keepSnapshots(folder), 20);
  t.after(() => clearInterval(keep));
  const kept = async (): Promise<readonly KeptVolume[]> => desk.volumes("shop", signal);
  const stage: Stage = {
    place,
    desk,
    volumes,
    engine,
    vault,
    write: (volume, offset, data) => {
      const file = openSync(join(folder, "east", "volumes", `${volume}.raw`), "a+");
      closeSync(file);
      const writable = openSync(join(folder, "east", "volumes", `${volume}.raw`), "r+");
      writeSync(writable, data, 0, data.length, offset);
      closeSync(writable);
    },
    blocksFetched: async () => (await callsOf(place, "GetSnapshotBlock")).succeeded,
    kept,
    fresh: async () => {
      const since = Date.now();
      return until("a snapshot of now in the vault", async () => {
        const seen = await kept();
        const whole = seen.every(
          ({ state, image: one }) => state === "continuous" && one !== null && one.atMs > since,
        );
        return seen.length === volumes.length && whole ? seen : undefined;
      });
    },
  };
  return stage;
}

/** A server with two volumes that are kept. */
async function makeServer(client: EC2Client): Promise<readonly string[]> {
  const zone = "us-east-1a";
  const { Instances } = await client.send(
    new RunInstancesCommand({
      ImageId: image,
      InstanceType: "t3.nano",
      MinCount: 1,
      MaxCount: 1,
      Placement: { AvailabilityZone: zone },
    }),
  );
  const volumes: string[] = [];
  for (const device of ["/dev/sdf", "/dev/sdg"]) {
    const { VolumeId = "" } = await client.send(
      new CreateVolumeCommand({
        AvailabilityZone: zone,
        Size: 1,
        VolumeType: "gp3",
        TagSpecifications: [{ ResourceType: "volume", Tags: [{ Key: "keep", Value: "yes" }] }],
      }),
    );
    const attach = { VolumeId, InstanceId: Instances?.[0]?.InstanceId ?? "", Device: device };
    await client.send(new AttachVolumeCommand(attach));
    volumes.push(VolumeId);
  }
  return volumes;
}

/** Snapshots are let go once the next one is here: the test keeps their files to compare with. */
function keepSnapshots(folder: string): void {
  const from = join(folder, "east", "snapshots");
  mkdirSync(join(folder, "seen"), { recursive: true });
  const there = new Set(readdirSync(join(folder, "seen")));
  let names: string[] = [];
  try {
    names = readdirSync(from);
  } catch {
    // None was taken yet.
  }
  for (const name of names) {
    if (!name.endsWith(".raw") || there.has(name)) continue;
    try {
      linkSync(join(from, name), join(folder, "seen", name));
    } catch {
      // Gone between the two looks.
    }
  }
}

async function callsOf({ east }: Place, operation: string): Promise<Calls> {
  const response = await fetch(`${east.endpoint}/_devcloud/calls`, {
    headers: { authorization: `Bearer ${east.adminToken.reveal()}` },
  });
  const all = (await response.json()) as Record<string, Calls>;
  return all[operation] ?? { calls: 0, succeeded: 0 };
}

/** The vault's content of the volume at the group's newest moment, and that of the snapshot that it is of. */
async function assertSame(stage: Stage, kept: readonly KeptVolume[]): Promise<void> {
  const moment = await stage.desk.moment("shop", null, signal);
  for (const { volume, image: of } of kept) {
    assert.ok(of !== null && of.atMs >= moment.at);
    const { uri, sizeBytes } = await stage.desk.serve("shop", volume, moment, signal);
    const { address, exportName } = parseNbdUri(uri);
    const ports = { address, exportName, clock: systemClock, random: systemRandom, log: silentLog };
    await using disk = await openNbdClient(ports, signal);
    const wanted = readFileSync(join(stage.place.folder, "seen", `${of.id}.raw`));
    assert.equal(sizeBytes, 1024 ** 3);
    const zeroes = Buffer.alloc(8 * block);
    for (const { offset, length, kind } of await disk.extents(0, sizeBytes, signal)) {
      for (let at = offset; at < offset + length; at += zeroes.length) {
        const part = Math.min(zeroes.length, offset + length - at);
        const expected = Buffer.concat([wanted.subarray(at, at + part), zeroes]).subarray(0, part);
        const found = kind === "data" ? await disk.read(at, part, signal) : zeroes.subarray(0, part);
        assert.ok(found.equals(expected), `${volume} at ${at}`);
      }
    }
  }
}

test("volumes without a host agent are kept by snapshots, of which only what changed comes over", async (t) => {
  const stage = await makeStage(t);
  const [first = "", second = ""] = stage.volumes;
  const content = randomBytes(20 * block);
  stage.write(first, 3 * block, content);
  stage.write(second, 0, randomBytes(4 * block));
  await assertSame(stage, await stage.fresh());
  assert.equal(await stage.blocksFetched(), 24);

  stage.write(first, 5 * block + 100, Buffer.from("changed"));
  stage.write(first, 700 * block, randomBytes(block));
  stage.write(second, block, Buffer.alloc(block));
  const kept = await stage.fresh();
  await assertSame(stage, kept);
  assert.equal(await stage.blocksFetched(), 26, "the block that was emptied is not asked for");
  const at = new Set(kept.map(({ image: of }) => of?.atMs));
  assert.equal(at.size, 1, "the volumes of one server show one instant");

  await until("nothing to complain of", async () => {
    const { disks } = await statusOf(stage.place);
    const good = disks.filter(({ problem, snapshot }) => problem === null && snapshot?.everyMs === 4000);
    return good.length === 2 ? true : undefined;
  });
  // A snapshot that is late at the very moment of the look is told instead.
  await until("the status to show it", async () => {
    const { stdout } = await run(stage.place.folder, ["status"]);
    return /a snapshot every 4/u.test(stdout) ? true : undefined;
  });
  const left = readdirSync(join(stage.place.folder, "east", "snapshots")).filter((name) =>
    name.endsWith(".raw"),
  );
  assert.ok(left.length <= 4, `the last set, and one under way: ${left.join(" ")}`);

  const out = join(stage.place.folder, "disk.raw");
  const written = await run(stage.place.folder, [
    "vault",
    "cat",
    "--volume",
    first,
    "--at",
    new Date().toISOString(),
    "--output",
    out,
  ]);
  assert.equal(written.code, 0, written.stderr);
  const taken = readFileSync(out);
  assert.ok(taken.subarray(3 * block, 5 * block).equals(content.subarray(0, 2 * block)));
  assert.equal(taken.subarray(5 * block + 100, 5 * block + 107).toString(), "changed");
});

test("a block that comes damaged, a token that has expired and a throttled account only cost time", async (t) => {
  const stage = await makeStage(t);
  const [first = ""] = stage.volumes;
  await stage.fresh();
  const { east } = stage.place;
  await adminOf(east, "POST", "faults", { operation: "GetSnapshotBlock", effect: "corrupt", count: 3 });
  await adminOf(east, "POST", "faults", {
    operation: "GetSnapshotBlock",
    effect: "refuse",
    status: 400,
    code: "INVALID_BLOCK_TOKEN",
    skip: 20,
    count: 1,
  });
  await adminOf(east, "PUT", "rate-limits", { GetSnapshotBlock: { perSecond: 40, burst: 5 } });
  stage.write(first, 0, randomBytes(60 * block));
  await assertSame(stage, await stage.fresh());
});

test("a control plane or a vault that is killed in the middle goes on where it was", async (t) => {
  const stage = await makeStage(t);
  const [first = ""] = stage.volumes;
  await stage.fresh();
  const { east } = stage.place;
  const before = await stage.blocksFetched();
  await adminOf(east, "POST", "faults", { operation: "GetSnapshotBlock", effect: "slow", delayMs: 60 });
  const blocks = 200;
  stage.write(first, 0, randomBytes(blocks * block));
  const passed = (part: number) =>
    until(`${part} blocks`, async () => ((await stage.blocksFetched()) - before >= part ? true : undefined));
  const half = async (): Promise<void> => {
    const [kept] = (await stage.kept()).filter(({ volume }) => volume === first);
    assert.equal(kept?.state, "synchronising", "half a snapshot is no moment");
  };
  await passed(60);
  await stage.engine.stop("SIGKILL");
  await half();
  stage.engine = await up(t, stage.place);
  await passed(130);
  await stage.vault.stop("SIGKILL");
  stage.vault = await start(t, stage.place.folder, ["vault", "serve", "--json"]);
  await half();
  await adminOf(east, "DELETE", "faults");
  await assertSame(stage, await stage.fresh());
  const fetched = (await stage.blocksFetched()) - before;
  // A batch of 32 and what was on its way, each time.
  assert.ok(fetched >= blocks && fetched <= blocks + 2 * 40, `${fetched} blocks were fetched`);
});

test("what a failed set leaves behind is removed, and the gap is told until the next one", async (t) => {
  const stage = await makeStage(t);
  await stage.fresh();
  const { east, folder } = stage.place;
  await adminOf(east, "POST", "faults", {
    operation: "CreateSnapshots",
    effect: "fail-after",
    answer: "cut",
    count: 1,
  });
  await until("the fault", async () =>
    (await callsOf(stage.place, "CreateSnapshots")).calls > 2 ? true : undefined,
  );
  await assertSame(stage, await stage.fresh());
  await adminOf(east, "POST", "faults", { operation: "CreateSnapshots", effect: "refuse", status: 500 });
  await until("the gap", async () => {
    const { disks } = await statusOf(stage.place);
    return disks.every(({ problem }) => problem?.includes("CreateSnapshots")) ? true : undefined;
  });
  await adminOf(east, "DELETE", "faults");
  await stage.fresh();
  await until("no gap", async () => {
    const { disks } = await statusOf(stage.place);
    return disks.every(({ problem }) => problem === null) ? true : undefined;
  });
  await until("no more than two sets", () => {
    const left = readdirSync(join(folder, "east", "snapshots")).filter((name) => name.endsWith(".raw"));
    return left.length <= 4 ? true : undefined;
  });
});
