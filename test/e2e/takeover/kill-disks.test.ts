// The control plane dies (SIGKILL) at its durable steps while an environment moves with its disks, and is started again. Each time
// the disk that serves holds every write that was captured, and no server ever ran on another content.
// SWEEP=all kills at every step; else at every eighth one, in each run of the tests from another of the first eight on, which SWEEP_SEED
// picks.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, test } from "node:test";
import type { RunKind } from "#model/run.ts";
import { HostUnderTest, openVaultUnderTest } from "./disks-under-test.ts";
import { type EngineUnderTest, type Side, isGone } from "./engine-under-test.ts";
import { buildShop } from "./small-shop.ts";
import { type Prepared, TwoClouds } from "./two-clouds.ts";
import { until } from "./until.ts";

const stride = process.env["SWEEP"] === "all" ? 1 : 8;
const seed = Number(process.env["SWEEP_SEED"] ?? randomInt(1_000));
const firstStep = 1 + (seed % stride);
/** No kind of run has more durable steps than this; reaching it means that the count runs away. */
const most = 200;

const more = `    protect: {volumes: {role: database}}
    probes: [{name: cloud, every: 1s, timeout: 1s, check: {cloudApi: active}}]
    failover: {triggers: []}
`;

/** Two of them play at once: most of a story is waiting for the control plane's next look. */
interface World {
  readonly clouds: TwoClouds;
  readonly hosts: Readonly<Record<Side, HostUnderTest>>;
}

const worlds: World[] = [];
let home: Prepared;

async function openWorld(like?: World): Promise<World> {
  const addressBases = ["127.47.0.0/16", "127.48.0.0/16"] as const;
  const clouds = await TwoClouds.open({ disks: true, more, addressBases }, like?.clouds);
  const host = (side: Side): HostUnderTest =>
    new HostUnderTest(clouds.folder, side, (id) => clouds.runsWith(side, id));
  const world = { clouds, hosts: { east: host("east"), west: host("west") } };
  worlds.push(world);
  await world.hosts.east.start();
  await world.hosts.west.start();
  return world;
}

before(async () => {
  const first = await openWorld();
  const { clouds } = first;
  await using _vault = await openVaultUnderTest(clouds.folder);
  const engine = await clouds.mustStartEngine();
  await buildShop(engine.gateway());
  await atRest(engine, "east");
  await engine.stop();
  home = await clouds.save("home");
  await openWorld(first);
});

after(async () => {
  for (const { clouds, hosts } of worlds) {
    for (const host of Object.values(hosts)) await host[Symbol.asyncDispose]();
    await clouds[Symbol.asyncDispose]();
  }
});

/** Served there, the reserve in order, and its disk captured; answers the disk's id. */
async function atRest(engine: EngineUnderTest, site: Side): Promise<string> {
  const status = await until(
    `the environment to rest at ${site} with its disk captured`,
    () => engine.status(),
    ({ run, activeSite, behind, disks }) =>
      run === null &&
      activeSite === site &&
      behind.state === 0 &&
      disks.length === 1 &&
      disks.every(({ site: at, capture }) => at === site && capture?.state === "continuous"),
    60_000,
  );
  return status.disks[0]?.volumeId ?? "";
}

interface Played {
  readonly engine: EngineUnderTest;
  readonly died: boolean;
}

/** Ends when the run has; dies on the way where it was told to, and is started again. Answers with the engine that lives. */
async function play(
  { clouds }: World,
  engine: EngineUnderTest,
  kind: RunKind,
  killAt: number,
  body: { readonly at?: number; readonly live?: boolean } = {},
): Promise<Played> {
  await engine.arm(killAt);
  if (await ended(engine, kind, body)) return { engine, died: false };
  const next = await clouds.mustStartEngine();
  assert.ok(
    await ended(next, kind, (await next.runs()).every((run) => run.kind !== kind) ? body : null),
    "it dies once",
  );
  return { engine: next, died: true };
}

/** False: it died. `begin`: null when it was begun before. */
async function ended(
  engine: EngineUnderTest,
  kind: RunKind,
  begin: { readonly at?: number; readonly live?: boolean } | null,
): Promise<boolean> {
  try {
    if (begin !== null) await engine.startRun(kind, begin);
    const runs = await until(
      `the ${kind} to end`,
      () => engine.runs(),
      (all) => all.some((run) => run.kind === kind) && all.every(({ state }) => state !== "running"),
      60_000,
    );
    const run = runs.find((one) => one.kind === kind);
    assert.equal(run?.state, "succeeded", `${kind}: ${run?.error ?? ""}`);
    return true;
  } catch (error) {
    if (await isGone(engine)) return false;
    throw error;
  }
}

/** As `atRest`; an engine whose last durable steps came after the run's end may die only now, and is started again. */
async function restAfter(
  { clouds }: World,
  played: Played,
  site: Side,
): Promise<{ readonly engine: EngineUnderTest; readonly died: boolean; readonly volumeId: string }> {
  try {
    return { ...played, volumeId: await atRest(played.engine, site) };
  } catch (error) {
    if (!(await isGone(played.engine))) throw error;
    const engine = await clouds.mustStartEngine();
    return { engine, died: true, volumeId: await atRest(engine, site) };
  }
}

/** Writes a numbered block, and answers what the disk should hold from then on. */
async function writeBlocks(
  host: HostUnderTest,
  volumeId: string,
  from: number,
  value = from,
): Promise<Buffer[]> {
  const blocks = Array.from({ length: 4 }, (_, index) => Buffer.alloc(4096, value + index));
  for (const [index, block] of blocks.entries()) await host.write(volumeId, (from + index) * 8192, block);
  return blocks;
}

async function holds(
  host: HostUnderTest,
  volumeId: string,
  from: number,
  blocks: readonly Buffer[],
): Promise<void> {
  for (const [index, block] of blocks.entries()) {
    const found = await host.read(volumeId, (from + index) * 8192, block.length);
    assert.ok(found.equals(block), `block ${from + index} of ${volumeId}`);
  }
}

/** The moment can be named once the loop has told the vault that the copy is whole. */
async function pointsOf(engine: EngineUnderTest): Promise<void> {
  await until(
    "a moment that can be named",
    () => engine.points(),
    ({ group }) =>
      group?.last != null &&
      group.volumes.every(({ state, confirmed }) => state === "continuous" && confirmed),
    30_000,
  );
}

/** A time that nothing was captured at, behind what was captured until now. */
async function momentAfter(engine: EngineUnderTest, ms: number): Promise<number> {
  await until(
    "time to pass",
    () => engine.points(),
    () => Date.now() > ms + 5,
    10_000,
  );
  return Date.now() - 2;
}

/** A whole story: written at home, moved, written there, and brought home again. Answers whether the engine died in the named run. */
async function story(
  world: World,
  kind: "failover" | "migrate" | "swap" | "drill" | "failback" | "restore",
  killAt: number,
): Promise<boolean> {
  const { clouds, hosts } = world;
  await clouds.restore(home);
  for (const host of Object.values(hosts)) await host.reset();
  await hosts.east.start();
  await using _vault = await openVaultUnderTest(clouds.folder);
  let engine = await clouds.mustStartEngine();
  try {
    const atHome = await atRest(engine, "east");
    await pointsOf(engine);
    const first = await writeBlocks(hosts.east, atHome, 1);
    if (kind === "restore") {
      await hosts.east.write(atHome, 1 << 20, Buffer.alloc(4096, 77));
      const at = await momentAfter(engine, Date.now());
      await writeBlocks(hosts.east, atHome, 1, 100);
      const played = await play(world, engine, "restore", killAt, { at, live: true });
      const rested = await restAfter(world, played, "east");
      engine = rested.engine;
      await holds(hosts.east, atHome, 1, first);
      const kept = await hosts.east.read(atHome, 1 << 20, 4096);
      assert.ok(kept.equals(Buffer.alloc(4096, 77)), "what was written before the moment");
      return rested.died;
    }
    if (kind === "drill") {
      const played = await play(world, engine, "drill", killAt);
      engine = played.engine;
      await holds(hosts.east, atHome, 1, first);
      assert.ok((await hosts.west.seeds()).length > 0, "the drill had its disk");
      return played.died;
    }
    if (kind !== "swap" && kind !== "migrate") {
      await clouds.stop("east");
      await hosts.east.stop();
    }
    const [run, at] = kind === "failback" ? (["failover", 0] as const) : ([kind, killAt] as const);
    const moved = await restAfter(world, await play(world, engine, run, at), "west");
    engine = moved.engine;
    const away = moved.volumeId;
    await holds(hosts.west, away, 1, first);
    if (kind !== "failback") return moved.died;
    await pointsOf(engine);
    const second = await writeBlocks(hosts.west, away, 20);
    await clouds.start("east");
    await hosts.east.start();
    const back = await restAfter(world, await play(world, engine, "failback", killAt), "east");
    engine = back.engine;
    const again = back.volumeId;
    await holds(hosts.east, again, 1, first);
    await holds(hosts.east, again, 20, second);
    return back.died;
  } finally {
    await engine.kill();
    for (const { wrong } of Object.values(hosts)) assert.deepEqual(wrong.splice(0), []);
  }
}

/** Tells it at one step after another, in both worlds at once, until a run gets past its last. Answers with the last one that was reached. */
async function sweep(kind: Parameters<typeof story>[1]): Promise<number> {
  let next = firstStep;
  let last = 0;
  let over = false;
  const told = await Promise.allSettled(
    worlds.map(async (world) => {
      try {
        while (!over) {
          const killAt = next;
          next += stride;
          assert.ok(killAt < most, "a run's steps are bounded");
          if (await story(world, kind, killAt)) last = Math.max(last, killAt);
          else over = true;
        }
      } finally {
        over = true;
      }
    }),
  );
  const failures = told.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
  if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join("\n"));
  return last;
}

for (const kind of ["failover", "migrate", "swap", "failback", "drill", "restore"] as const) {
  test(`${kind} with a disk: killed at its durable steps`, { timeout: 900_000 }, async (t) => {
    const last = await sweep(kind);
    t.diagnostic(`SWEEP_SEED=${seed}: killed at every ${stride}. durable step from ${firstStep} to ${last}`);
    assert.ok(last > 10, "a run has more than a handful of durable steps");
  });
}
