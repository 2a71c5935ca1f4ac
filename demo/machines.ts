// A disaster with real machines: guests under QEMU, a volume whose every write is kept, a cloud that dies, the same guest live in
// another cloud from its last write, back home with what it wrote meanwhile, and then as it was before it was encrypted.
// Exits 0 only if no acknowledged record was lost or torn.
import { parseArgs } from "node:util";
import type { Json } from "#kernel/json.ts";
import type { EnvironmentStatus, PointsView, RunView } from "#takeover/control.ts";
import {
  buildDatabase,
  type Holdings,
  lastAcknowledged,
  ransom,
  readHoldings,
  type Records,
} from "./database.ts";
import { type MachineStage, setMachineStage, type Side } from "./machines-stage.ts";
import { perform } from "./perform.ts";
import { image } from "./stage.ts";
import { heading, now, say, until } from "./timeline.ts";
import { liveServers } from "./verify.ts";

const { values: flags } = parseArgs({
  options: { json: { type: "boolean", default: false }, keep: { type: "boolean", default: false } },
});

interface Figures {
  readonly recordsAcknowledged: number;
  readonly recordsLost: number;
  readonly recordsTorn: number;
  readonly rpoMs: number;
  readonly firstAnswerMs: number;
  readonly fullCopyMs: number;
  readonly guestDowntimeMs: number;
  readonly returnedBytes: number;
}

/** How long before the attack the isolated copy is to be, in milliseconds. */
const beforeAttackMs = 20_000;

async function play(stage: MachineStage): Promise<Figures> {
  const { room } = stage;
  heading("The owner builds a database in east with the AWS SDK, through the gateway");
  const { volumeId } = await buildDatabase(stage.ec2, image);
  const serving = await holdings(stage, "the database", ({ now: held }) => held.last > 0, 90_000);
  say(`it serves, and has written ${serving.now.last} records`);
  await captured(stage, "east");
  const points = stage.command(["point", "list", "shop"]) as PointsView;
  say(`every write of ${volumeId} is captured; any moment of the last ${age(points)} can be named`);
  await room.follow(
    "the reserve to follow",
    () => room.status(),
    ({ behind }) => behind.standby === 0 && behind.state === 0,
    60_000,
  );

  heading("East dies");
  await until(
    "some more records",
    () => Promise.resolve(lastAcknowledged(stage.consoles("east"))),
    (last) => last > serving.now.last + 50,
    60_000,
  );
  const killedAt = now();
  const killedAtMs = Date.now();
  await stage.killEast();
  const acknowledged = lastAcknowledged(stage.consoles("east"));
  say(
    `SIGKILL: its API, its host agent, its guests; the last record that anybody was told of is ${acknowledged}`,
  );
  const inWest = await holdings(stage, "the database in west", ({ boot }) => boot.last > 0, 120_000);
  const firstAnswerMs = now() - killedAt;
  const lost = missingOf(inWest.boot, acknowledged);
  say(
    `live in west after ${(firstAnswerMs / 1000).toFixed(1)} s with ${inWest.boot.last} records, ${lost} lost, ${inWest.boot.torn} torn; ${await copyState(stage)}`,
  );
  const failover = await ended(stage, "failover");
  const rpoMs = Math.max(0, killedAtMs - momentOf(failover));
  const copied = await until(
    "the disk to come over",
    () => stage.host("west").seeds(AbortSignal.timeout(5000)),
    (seeds) => seeds.length > 0 && seeds.every(({ state }) => state === "done"),
    120_000,
  );
  const fullCopyMs = now() - killedAt;
  say(
    `all ${copied.length} disk is in west after ${(fullCopyMs / 1000).toFixed(1)} s; the guest never stopped for it`,
  );
  await captured(stage, "west");
  say("what it writes in west is captured in its turn");

  heading("East comes back, and the database goes home with what it wrote meanwhile");
  await stage.restartEast();
  const beforeReturn = await holdings(
    stage,
    "records written in west",
    ({ now: held }) => held.last > inWest.boot.last + 20,
    60_000,
  );
  const watch = watchAnswers(stage);
  const told = watchAcknowledged(stage, "west");
  const returning = stage.room.follow(
    "the return",
    () => stage.room.runs(),
    (runs) => runs.some(({ kind, state }) => kind === "failback" && state !== "running"),
    180_000,
  );
  stage.command(["failback", "shop", "--confirm", "shop", "--no-wait", "--reason", "east is back"]);
  await returning;
  const failback = await ended(stage, "failback");
  const acknowledgedInWest = await told();
  const home = await holdings(
    stage,
    "the database at home",
    ({ boot }) => boot.last >= beforeReturn.now.last,
    120_000,
  );
  const guestDowntimeMs = await watch();
  const returnedBytes = bytesOf(failback);
  const lostAtReturn = missingOf(home.boot, acknowledgedInWest);
  say(
    `at home with ${home.boot.last} records, ${lostAtReturn} lost, ${home.boot.torn} torn: ${returnedBytes} bytes came back, users waited ${(guestDowntimeMs / 1000).toFixed(1)} s`,
  );

  heading("Somebody encrypts it");
  await captured(stage, "east");
  const attackedAtMs = await attack(stage, home.now.last);
  heading(`The same guest as it was ${beforeAttackMs / 1000} seconds before`);
  const before = await isolated(stage, attackedAtMs - beforeAttackMs);
  say(`an isolated copy in west holds ${before.boot.last} records, ${before.boot.torn} of them torn`);
  return {
    recordsAcknowledged: Math.max(acknowledged, acknowledgedInWest),
    recordsLost: lost + lostAtReturn + (before.boot.last > 0 ? before.boot.missing : 1),
    recordsTorn: inWest.boot.torn + home.boot.torn + before.boot.torn,
    rpoMs: Math.round(rpoMs),
    firstAnswerMs: Math.round(firstAnswerMs),
    fullCopyMs: Math.round(fullCopyMs),
    guestDowntimeMs: Math.round(guestDowntimeMs),
    returnedBytes,
  };
}

/** Records that somebody was told of and that are not there, at the end or in between. */
function missingOf(held: Records, acknowledged: number): number {
  return held.missing + Math.max(0, acknowledged - held.last);
}

async function holdings(
  { room, databaseUrl }: MachineStage,
  what: string,
  done: (seen: Holdings) => boolean,
  limitMs: number,
): Promise<Holdings> {
  const seen = await room.follow(
    what,
    () => readHoldings(databaseUrl),
    (held) => held !== null && done(held),
    limitMs,
  );
  if (seen === null) throw new Error(`${what}: no answer`);
  return seen;
}

/** Every write reaches the vault before the guest is told, and moments are offered. */
async function captured(stage: MachineStage, site: string): Promise<EnvironmentStatus> {
  return stage.room.follow(
    `the capture in ${site}`,
    () => stage.room.status(),
    ({ disks, servingSite }) =>
      servingSite === site &&
      disks.length > 0 &&
      disks.every(({ capture }) => capture?.state === "continuous") &&
      (stage.command(["point", "list", "shop"]) as PointsView).group?.volumes.every(
        ({ state }) => state === "continuous",
      ) === true,
    120_000,
  );
}

function age({ group }: PointsView): string {
  const { last, oldest } = group ?? {};
  return last && oldest ? `${((last.at - oldest.at) / 1000).toFixed(1)} s` : "0 s";
}

/** The run of that kind, which must have succeeded. */
async function ended({ room }: MachineStage, kind: RunView["kind"]): Promise<RunView> {
  const runs = await room.follow(
    `the ${kind} to end`,
    () => room.runs(),
    (all) => all.some((run) => run.kind === kind && run.state !== "running"),
    180_000,
  );
  const run = runs.find((one) => one.kind === kind);
  if (run === undefined) throw new Error(`there is no ${kind}`);
  if (run.state !== "succeeded") throw new Error(`the ${kind} is ${run.state}: ${run.error ?? ""}`);
  return run;
}

function resultOf(run: RunView, step: string): Json {
  return run.steps.find(({ name }) => name === step)?.result ?? null;
}

/** When the last write that the copy has was captured, in milliseconds since the epoch. */
function momentOf(run: RunView): number {
  return (resultOf(run, "choose-moment") as { moment: { at: number } | null } | null)?.moment?.at ?? 0;
}

function bytesOf(run: RunView): number {
  const steps = ["restore-disks", "restore-last-writes"];
  return steps.reduce(
    (sum, step) => sum + ((resultOf(run, step) as { writtenBytes: number } | null)?.writtenBytes ?? 0),
    0,
  );
}

async function copyState(stage: MachineStage): Promise<string> {
  const [seed] = await stage.host("west").seeds(AbortSignal.timeout(5000));
  if (seed === undefined) return "no disk is on its way";
  return seed.state === "done"
    ? "its disk is there already"
    : `${Math.round((100 * seed.copiedBytes) / Math.max(1, seed.totalBytes))} % of its disk is there`;
}

/** A machine that goes takes its console along: it is read while it is there. Ends with the last record that anybody was told of. */
function watchAcknowledged(stage: MachineStage, side: Side): () => Promise<number> {
  const stop = new AbortController();
  let last = 0;
  const watching = (async () => {
    while (!stop.signal.aborted) {
      last = Math.max(last, lastAcknowledged(stage.consoles(side)));
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  return async () => {
    stop.abort();
    await watching;
    return last;
  };
}

/** Ends with the longest time that users were not answered. */
function watchAnswers({ databaseUrl }: MachineStage): () => Promise<number> {
  const stop = new AbortController();
  let longest = 0;
  const watching = (async () => {
    let last = now();
    while (!stop.signal.aborted) {
      if ((await readHoldings(databaseUrl)) !== null) {
        longest = Math.max(longest, now() - last);
        last = now();
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  })();
  return async () => {
    stop.abort();
    await watching;
    return longest;
  };
}

/** Answers when it was, once it is long enough ago for the story, and the last good record before it. */
async function attack(stage: MachineStage, from: number): Promise<number> {
  const begun = Date.now();
  say(`it goes on writing for ${beforeAttackMs / 1000} s`);
  await until(
    "enough of a past",
    () => Promise.resolve(Date.now() - begun),
    (passed) => passed > beforeAttackMs + 2000,
    beforeAttackMs + 10_000,
  );
  const attackedAtMs = Date.now();
  await ransom(stage.databaseUrl);
  const torn = await holdings(stage, "the damage", ({ now: held }) => held.torn > 0, 30_000);
  say(`${torn.now.torn} of its records can't be read any more (it had ${from} and more)`);
  return attackedAtMs;
}

/** The database in a drill's isolation, as it was then. */
async function isolated(stage: MachineStage, atMs: number): Promise<Holdings> {
  const existing = new Set(liveServers(await stage.readCloud("west")).map(({ id }) => id));
  stage.command(["drill", "shop", "--at", new Date(atMs).toISOString(), "--hold", "20", "--no-wait"]);
  const seen = await stage.room.follow(
    "the isolated copy",
    async () => {
      const [copy] = liveServers(await stage.readCloud("west")).filter(({ id }) => !existing.has(id));
      return copy === undefined ? null : readHoldings(`http://${copy.hostAddress}:8080/`);
    },
    (held) => held !== null && held.boot.last > 0,
    120_000,
  );
  if (seen === null) throw new Error("the isolated copy does not answer");
  const drill = await ended(stage, "drill");
  say(`the drill: ${drill.steps.map(({ name, summary }) => `${name}: ${summary ?? ""}`).at(-1) ?? ""}`);
  return seen;
}

let stage: MachineStage | undefined;
await perform(
  {
    // Unix sockets have short names.
    folderName: "us-",
    play: async (folder) => {
      heading("Two clouds with real machines, a vault, and Understudy between the first cloud and its users");
      stage = await setMachineStage(folder);
      return play(stage);
    },
    isWhole: ({ recordsLost, recordsTorn }) => recordsLost === 0 && recordsTorn === 0,
    whole: "no acknowledged record was lost or torn",
    leave: () => stage?.endGuests(),
  },
  flags,
);
