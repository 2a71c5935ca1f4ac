// What becomes of runs when disks are in trouble, told as stories in a simulated world: nothing happens by chance.
import assert from "node:assert/strict";
import { test } from "node:test";
import { listGaps } from "#environment/gaps.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { RunKind } from "#model/run.ts";
import type { RunRequest } from "#takeover/control.ts";
import { openRunLedger, type StoredRun } from "#takeover/run-ledger.ts";
import { keptTags } from "./simulated-disks.ts";
import type { SiteName } from "./simulated-sites.ts";
import { SimulatedUser } from "./simulated-user.ts";
import { environment, SimulatedWorld } from "./simulated-world.ts";

interface Story {
  readonly world: SimulatedWorld;
  readonly user: SimulatedUser;
  /** The server with a kept disk. */
  readonly database: string;
  readonly web: string;
}

/** A web server, and a database on a kept disk that something was written to. */
async function tell(
  settings: Parameters<typeof SimulatedWorld.create>[1],
  play: (story: Story) => Promise<void>,
): Promise<void> {
  const world = await SimulatedWorld.create(7, { fence: "stop_servers", returnPolicy: "wait", ...settings });
  try {
    await world.clock.drive(
      (async () => {
        const user = new SimulatedUser(world);
        await world.startEngine();
        await user.build();
        await seconds(world, 2);
        const web = await user.launch("web", "small");
        const database = await user.launch("db", "small");
        await seconds(world, 2);
        await user.addVolume(database, keptTags);
        await seconds(world, 10);
        world.disks.write();
        assert.equal(world.disks.met.writes, 1, "the database runs on its disk");
        await play({ world, user, database, web });
      })(),
    );
  } finally {
    await world.clock.drive(world.close());
  }
}

async function seconds(world: SimulatedWorld, count: number): Promise<void> {
  for (let second = 0; second < count; second += 1) {
    await world.report(null);
    await world.clock.sleep(1000);
  }
}

async function begin(
  world: SimulatedWorld,
  kind: RunKind,
  more: Partial<RunRequest> = {},
): Promise<StoredRun> {
  const request = { environment, kind, by: "person", reason: "a story", force: false, ...more };
  const { id } = await world.runtime.startRun(request);
  return latest(world, id);
}

async function latest(world: SimulatedWorld, id?: StoredRun["id"]): Promise<StoredRun> {
  const ledger = await openRunLedger(world);
  const run = id === undefined ? (await ledger.list(environment, 1))[0] : await ledger.get(id);
  assert.ok(run !== undefined, "there is a run");
  return run;
}

async function toItsEnd(world: SimulatedWorld, run: StoredRun): Promise<StoredRun> {
  await world.runtime.idle();
  return latest(world, run.id);
}

/** Its standing in a site, by name. */
function serverAt(world: SimulatedWorld, site: SiteName, name: string) {
  return world.sites[site].cloud.inspect
    .resources()
    .find((one) => one.kind === "server" && one.tags["Name"] === name);
}

function powerAt(world: SimulatedWorld, site: SiteName, name: string): string | undefined {
  const server = serverAt(world, site, name);
  return server?.kind === "server" ? server.spec.power : undefined;
}

function volumeIdOf(world: SimulatedWorld): string {
  const [volume] = [...world.runtime.state.resources()].filter(({ kind }) => kind === "volume");
  return volume?.id ?? "";
}

async function withheld(world: SimulatedWorld): Promise<readonly string[]> {
  const gaps = await listGaps(world.store, environment);
  return gaps
    .flatMap(({ code, resource }) => (code === "data.withheld" ? [resource?.kind ?? ""] : []))
    .toSorted();
}

async function stepNames(world: SimulatedWorld, run: StoredRun): Promise<readonly string[]> {
  return (await (await openRunLedger(world)).steps(run.id)).map(({ name }) => name);
}

async function failedOver(world: SimulatedWorld): Promise<void> {
  world.sites.east.down = true;
  const run = await toItsEnd(world, await begin(world, "failover"));
  assert.equal(run.state, "succeeded", run.error ?? "");
}

const noMoment = new OperationalError("not_found", "nothing was ever captured");
const vaultSilent = new OperationalError("api.unreachable", "the vault's process does not answer");

test("a failover without any moment goes without the disks, and names them", () =>
  tell({}, async ({ world, web, database }) => {
    world.disks.trouble = ({ what }) => (what === "moment" ? noMoment : undefined);
    world.sites.east.down = true;
    const run = await toItsEnd(world, await begin(world, "failover"));
    assert.equal(run.state, "incomplete", run.error ?? "");
    assert.match(run.error ?? "", /no content for vol/u);
    assert.equal(world.runtime.record.phase, "failed_over");
    assert.equal(powerAt(world, "west", web), "running");
    assert.equal(serverAt(world, "west", database), undefined, "it is not started without its disk");
    assert.deepEqual(await withheld(world), ["server", "volume"]);
    // Home again, nothing is missing.
    world.disks.trouble = () => undefined;
    world.sites.east.down = false;
    const back = await toItsEnd(world, await begin(world, "failback"));
    assert.equal(back.state, "succeeded", back.error ?? "");
    assert.deepEqual(await withheld(world), []);
    assert.equal(powerAt(world, "east", database), "running");
  }));

test("a kept disk that nothing has, without a content, makes a failover incomplete", () =>
  tell({}, async ({ world, user, database }) => {
    await user.addSpareVolume(keptTags);
    await seconds(world, 2);
    const spare = [...world.runtime.state.resources()].findLast(({ kind }) => kind === "volume")?.id ?? "";
    world.disks.trouble = ({ what, volume }) => (what === "seed" && volume === spare ? noMoment : undefined);
    world.sites.east.down = true;
    const run = await toItsEnd(world, await begin(world, "failover"));
    assert.equal(run.state, "incomplete");
    assert.match(run.error ?? "", new RegExp(spare, "u"));
    assert.equal(powerAt(world, "west", database), "running", "what has its disk runs");
    assert.deepEqual(await withheld(world), ["volume"]);
  }));

test("a drill that had to go without a disk is incomplete, and verifies nothing", () =>
  tell({}, async ({ world, user }) => {
    await user.addSpareVolume(keptTags);
    await seconds(world, 2);
    const spare = [...world.runtime.state.resources()].findLast(({ kind }) => kind === "volume")?.id ?? "";
    world.disks.trouble = ({ what, volume }) => (what === "seed" && volume === spare ? noMoment : undefined);
    const run = await toItsEnd(world, await begin(world, "drill"));
    assert.equal(run.state, "incomplete");
    assert.match(run.error ?? "", new RegExp(`no content for ${spare}`, "u"));
    assert.deepEqual(await withheld(world), [], "a drill leaves no gap");
  }));

test("a vault that is silent during a failover holds up nobody but who needs a disk", () =>
  tell({}, async ({ world, user, web, database }) => {
    // More than the reserve holds.
    const others = [await user.launch("web", "small"), await user.launch("web", "small")];
    await seconds(world, 10);
    world.disks.trouble = ({ what }) => (what === "moment" ? vaultSilent : undefined);
    world.sites.east.down = true;
    const run = await begin(world, "failover");
    await seconds(world, 60);
    assert.equal((await latest(world, run.id)).state, "running");
    for (const name of [web, ...others]) assert.equal(powerAt(world, "west", name), "running");
    assert.equal(world.route.targets.at(-1)?.backends.length, 3, "their users are there");
    assert.equal(serverAt(world, "west", database), undefined);
    world.disks.trouble = () => undefined;
    const ended = await toItsEnd(world, run);
    assert.equal(ended.state, "succeeded", ended.error ?? "");
    assert.equal(powerAt(world, "west", database), "running");
    world.disks.judge();
  }));

test("a disk that fails for a moment does not have the others seeded twice at once", () =>
  tell({}, async ({ world, user, web, database }) => {
    await user.addVolume(web, keptTags);
    await seconds(world, 3);
    const volume = volumeIdOf(world);
    let failures = 0;
    world.disks.fillMs = 5000;
    world.disks.trouble = (call) => {
      if (call.what !== "seed" || call.volume !== volume || failures >= 3) return undefined;
      failures += 1;
      return vaultSilent;
    };
    world.sites.east.down = true;
    const run = await toItsEnd(world, await begin(world, "failover"));
    assert.equal(run.state, "succeeded", run.error ?? "");
    assert.equal(failures, 3);
    assert.deepEqual(
      [web, database].map((name) => powerAt(world, "west", name)),
      ["running", "running"],
    );
    world.disks.judge();
  }));

test("a failover that is begun again leaves servers that serve from their disks as they are", () =>
  tell({}, async ({ world, database }) => {
    world.sites.east.down = true;
    world.route.refusal = new OperationalError("traffic.unreachable", "no");
    const first = await begin(world, "failover");
    assert.equal((await toItsEnd(world, first)).state, "failed");
    assert.equal(world.runtime.record.phase, "failing_over");
    // Its users are there, and have written.
    const standing = serverAt(world, "west", database)?.id;
    world.disks.write();
    world.route.refusal = undefined;
    const volume = world.sites.west.cloud.inspect.resources().find(({ kind }) => kind === "volume")?.id ?? "";
    const written = world.disks.contentAt("west", volume);
    const second = await toItsEnd(world, await begin(world, "failover"));
    assert.equal(second.state, "succeeded", second.error ?? "");
    assert.equal(serverAt(world, "west", database)?.id, standing, "the same server");
    assert.equal(world.disks.contentAt("west", volume), written, "with what was written to it");
  }));

test("a failover that was rolled back gives the disks their content anew", () =>
  tell({}, async ({ world, database }) => {
    world.route.refusal = new OperationalError("traffic.unreachable", "no");
    const first = await begin(world, "failover");
    while (!(await stepNames(world, first)).includes("undo: reopen")) await world.clock.sleep(1000);
    world.route.refusal = undefined;
    assert.equal((await toItsEnd(world, first)).state, "rolled_back");
    assert.equal(powerAt(world, "east", database), "running");
    const given = await world.store.db.selectFrom("kept_volume").select("content").execute();
    assert.deepEqual(
      [...new Set(given.map(({ content }) => content))],
      [null],
      "what the copy held is no moment",
    );
    world.disks.write();
    await failedOver(world);
    assert.equal(powerAt(world, "west", database), "running");
    world.disks.judge();
  }));

test("disks that are not captured to the last write do not keep a failover from going", () =>
  tell({}, async ({ world, database }) => {
    const silent = new OperationalError("machine.failing", "the host agent does not answer");
    world.disks.trouble = ({ what }) => (what === "settle" ? silent : undefined);
    const begun = world.clock.now();
    const run = await toItsEnd(world, await begin(world, "failover"));
    assert.equal(run.state, "succeeded", run.error ?? "");
    assert.equal(powerAt(world, "west", database), "running");
    assert.ok(world.clock.now() - begun < 90_000, "it waits once");
    const events = await (await openRunLedger(world)).events(environment, 0, 1000);
    assert.ok(
      events.some(({ message }) => message.startsWith("what was written last may be missing: volume")),
      "and says what may be missing",
    );
  }));

test("a failover to a named moment waits for no last write", () =>
  tell({}, async ({ world }) => {
    let asked = 0;
    world.disks.trouble = ({ what }) => {
      if (what === "settle") asked += 1;
      return undefined;
    };
    const run = await toItsEnd(world, await begin(world, "failover", { at: world.clock.now() }));
    assert.equal(run.state, "succeeded", run.error ?? "");
    assert.equal(asked, 0);
  }));

test("a failback whose capture does not work stops nobody", () =>
  tell({}, async ({ world, database }) => {
    await failedOver(world);
    world.sites.east.down = false;
    world.disks.trouble = ({ what }) => {
      // It works as long as nobody looks: a stop would show.
      assert.equal(powerAt(world, "west", database), "running");
      return what === "settle" ? new OperationalError("machine.failing", "it still comes over") : undefined;
    };
    const run = await toItsEnd(world, await begin(world, "failback"));
    assert.equal(run.state, "rolled_back");
    assert.match(run.error ?? "", /check-capture: not everything that was written is in the vault/u);
    assert.ok(!(await stepNames(world, run)).includes("hold-writes"));
    assert.equal(powerAt(world, "west", database), "running");
    assert.equal(world.runtime.record.phase, "failed_over");
  }));

test("a failback that is rolled back leaves no database running at home", () =>
  tell({}, async ({ world, web, database }) => {
    await failedOver(world);
    world.sites.east.down = false;
    const run = await begin(world, "failback");
    while (!(await stepNames(world, run)).includes("start-servers")) await world.clock.sleep(10);
    // Behind everyone's back: home is never whole.
    const gone = serverAt(world, "east", web);
    assert.ok(gone !== undefined);
    await world.sites.east.cloud.delete("server", gone.id, new AbortController().signal);
    const ended = await toItsEnd(world, run);
    assert.equal(ended.state, "rolled_back", ended.error ?? "");
    assert.equal(powerAt(world, "east", database), "stopped");
    assert.equal(powerAt(world, "west", database), "running");
    world.disks.write();
    world.disks.judge();
  }));

test("a drill that is being looked at gives way to a failover, and is removed when that is over", () =>
  tell({}, async ({ world, database }) => {
    const drill = await begin(world, "drill", { holdMs: 86_400_000 });
    while (!(await stepNames(world, drill)).includes("hold")) await seconds(world, 1);
    const inDrill = serverAt(world, "west", database)?.id;
    assert.ok(inDrill !== undefined);
    const lost = world.clock.now();
    world.sites.east.down = true;
    while (world.runtime.record.phase !== "failed_over") await seconds(world, 1);
    assert.ok(world.clock.now() - lost < 60_000, "nobody waits for the drill");
    assert.equal((await latest(world, drill.id)).state, "failed");
    assert.match((await latest(world, drill.id)).error ?? "", /hold: gives way to a failover by witnesses/u);
    world.disks.judge();
    await seconds(world, 120);
    const servers = world.sites.west.cloud.inspect.resources().filter(({ kind }) => kind === "server");
    assert.ok(!servers.some(({ id }) => id === inDrill), "nothing of the drill is left");
    assert.equal(servers.length, 2);
  }));

test("a drill that a person ends is undone", () =>
  tell({}, async ({ world }) => {
    const before = world.sites.west.cloud.inspect.resources().length;
    const drill = await begin(world, "drill", { holdMs: 86_400_000 });
    while (!(await stepNames(world, drill)).includes("hold")) await seconds(world, 1);
    world.runtime.endRun(drill.id, "ann");
    const ended = await toItsEnd(world, drill);
    assert.equal(ended.state, "rolled_back");
    assert.match(ended.error ?? "", /hold: ended by ann/u);
    assert.equal(world.sites.west.cloud.inspect.resources().length, before);
    assert.throws(() => world.runtime.endRun(drill.id, "ann"), /not under way/u);
  }));

test("a restore that waits for the vault gives way to a failover", () =>
  tell({}, async ({ world, database }) => {
    world.disks.trouble = ({ what }) => (what === "restore" ? vaultSilent : undefined);
    const volumes = [volumeIdOf(world)];
    const restore = await begin(world, "restore", { volumes, at: world.clock.now() });
    while (!(await stepNames(world, restore)).includes("restore-disks")) await world.clock.sleep(100);
    world.sites.east.down = true;
    while (world.runtime.record.phase !== "failed_over") await seconds(world, 1);
    assert.equal((await latest(world, restore.id)).state, "failed");
    assert.equal(powerAt(world, "west", database), "running");
    world.disks.judge();
  }));

test("a failover gives way to nobody, and is not ended on its way", () =>
  tell({}, async ({ world }) => {
    world.disks.trouble = ({ what }) => (what === "moment" ? vaultSilent : undefined);
    const run = await begin(world, "failover");
    await assert.rejects(begin(world, "drill"), /is in a failover already/u);
    await assert.rejects(begin(world, "failover"), /is in a failover already/u);
    assert.throws(() => world.runtime.endRun(run.id, "ann"), /is not ended on its way/u);
    world.disks.trouble = () => undefined;
    assert.equal((await toItsEnd(world, run)).state, "succeeded");
  }));

test("a restore that can't be done stops no server", () =>
  tell({}, async ({ world, database }) => {
    world.disks.trouble = ({ what }) => {
      assert.equal(powerAt(world, "east", database), "running");
      return what === "check" ? noMoment : undefined;
    };
    const volumes = [volumeIdOf(world)];
    const run = await toItsEnd(world, await begin(world, "restore", { volumes, at: world.clock.now() }));
    assert.equal(run.state, "rolled_back");
    assert.match(run.error ?? "", /check-disks: nothing was ever captured/u);
    assert.ok(!(await stepNames(world, run)).includes("stop-servers"));
    assert.equal(powerAt(world, "east", database), "running");
  }));

test("a restore that wrote nothing yet starts its servers again", () =>
  tell({}, async ({ world, database }) => {
    world.disks.trouble = ({ what }) => (what === "restore" ? vaultSilent : undefined);
    const volumes = [volumeIdOf(world)];
    const run = await toItsEnd(world, await begin(world, "restore", { volumes, at: world.clock.now() }));
    assert.equal(run.state, "rolled_back", run.error ?? "");
    assert.equal(powerAt(world, "east", database), "running");
  }));

test("a restore that broke off half-way starts nothing, until it was done to its end", () =>
  tell({}, async ({ world, database }) => {
    world.disks.trouble = ({ what }) =>
      what === "torn_restore" ? new OperationalError("nbd.unreachable", "the vault went away") : undefined;
    const volumes = [volumeIdOf(world)];
    const asked = { volumes, at: world.clock.now() };
    const run = await toItsEnd(world, await begin(world, "restore", asked));
    assert.equal(run.state, "failed");
    assert.match(run.error ?? "", /was written to already, so that its servers stay stopped/u);
    assert.equal(powerAt(world, "east", database), "stopped");
    world.disks.trouble = () => undefined;
    const again = await toItsEnd(world, await begin(world, "restore", asked));
    assert.equal(again.state, "succeeded", again.error ?? "");
    assert.equal(powerAt(world, "east", database), "running");
    world.disks.judge();
  }));

test("a disk that is part old and part new is believed when a person says so, and then its servers start", () =>
  tell({}, async ({ world, database }) => {
    const volumes = [volumeIdOf(world)];
    const whole = await toItsEnd(world, await begin(world, "restore", { volumes, asItIs: true }));
    assert.equal(whole.state, "rolled_back");
    assert.match(whole.error ?? "", /nothing to be taken as it is/u);
    world.disks.trouble = ({ what }) =>
      what === "torn_restore"
        ? new OperationalError("nbd.unreachable", "the vault is gone for good")
        : undefined;
    await toItsEnd(world, await begin(world, "restore", { volumes, at: world.clock.now() }));
    assert.equal(powerAt(world, "east", database), "stopped");
    const run = await toItsEnd(world, await begin(world, "restore", { volumes, asItIs: true }));
    assert.equal(run.state, "succeeded", run.error ?? "");
    assert.equal(powerAt(world, "east", database), "running");
    const again = await toItsEnd(world, await begin(world, "restore", { volumes, asItIs: true }));
    assert.notEqual(again.state, "succeeded");
  }));
