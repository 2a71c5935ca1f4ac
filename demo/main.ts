// A whole disaster on one machine. Two clouds, a shop in one, a fraction of it in the other; the first cloud dies and comes
// back. Everything is real: processes, APIs, signals, files. Exits 0 only if nothing was lost or doubled and traffic came back.
import { parseArgs } from "node:util";
import type { RunView } from "#takeover/control.ts";
import type { ControlRoom } from "./control-room.ts";
import { openOpenstackOwner } from "./openstack-owner.ts";
import { perform } from "./perform.ts";
import { sendShoppers, type Answer, type Shoppers } from "./shoppers.ts";
import type { ShopOwner } from "./shop.ts";
import { image, setStage, type Stage } from "./stage.ts";
import { heading, now, say, until } from "./timeline.ts";
import { compare, liveServers, type CloudDump, type Verdict } from "./verify.ts";

const { values: flags } = parseArgs({
  options: {
    swap: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});

async function buildShop(owner: ShopOwner): Promise<void> {
  await owner.buildNetwork();
  await owner.launch("db", 4, "t3.small", image);
  await owner.launch("app", 9, "t3.small", image);
  await owner.launch("web", 12, "t3.small", image);
  await owner.allRunning();
  say(`${owner.expected.servers.size} servers in three tiers`);
  await owner.addVolumes(["db-1", "db-2", "db-3", "db-4"]);
  await owner.addAddresses(["web-1", "web-2"]);
  await owner.launch("web", 3, "t3.small", image);
  await owner.resize(["db-1", "db-2"], "t3.large");
  await owner.retag(["app-1", "app-2", "web-3"]);
  await owner.terminate(["web-5", "app-9"]);
  await owner.changeMind();
  await owner.allRunning();
  say(
    `scaled out, resized, retagged, some deleted: ${owner.expected.servers.size} servers, ${owner.expected.commands} commands`,
  );
}

interface Figures {
  readonly commandsJournaled: number;
  readonly commandsDrained: number;
  readonly serversActive: number;
  readonly serversReserve: number;
  readonly serversAfterTakeover: number;
  readonly lostCommands: number;
  readonly duplicateServers: number;
  readonly requestsFailed: number;
  readonly firstAnswerMs: number;
  readonly fullScaleMs: number;
  readonly returned: boolean;
}

async function play(folder: string): Promise<Figures> {
  heading("Two clouds, and Understudy between the first one and its users");
  const returnPolicy = flags.swap ? "swap" : "wait";
  const stage = await setStage({ folder, returnPolicy, probeEvery: "500ms", triggerFor: "2s" });
  const { room, owner, ports } = stage;
  say(`east speaks EC2, west speaks OpenStack`);

  heading("The owner builds a shop with the AWS SDK, through the gateway and knowing nothing of it");
  await buildShop(owner);

  const before = await room.follow(
    "the reserve to follow",
    () => room.status(),
    (status) =>
      status.behind.standby === 0 &&
      status.routes.every(({ error, missing }) => error === null && missing === 0),
    60_000,
  );
  const reserved = liveServers(await stage.readCloud("west")).length;
  say(`west holds ${reserved} of ${before.servers.active} servers, and all that costs nothing`);

  heading("Customers come");
  const shoppers = sendShoppers(`http://127.0.0.1:${ports.web}/`, 4, 50);
  await until(
    "a good answer from each customer",
    () => Promise.resolve(shoppers.answers.filter(({ ok }) => ok).length),
    (good) => good >= 20,
    15_000,
  );

  heading("East dies");
  const killedAt = now();
  await stage.killEast();
  say("SIGKILL: its API, its servers, everything");
  const moved = await room.follow(
    "the takeover",
    async () => ({ runs: await room.runs(), status: await room.status() }),
    ({ runs }) => runs.some(({ kind, state }) => kind === "failover" && state !== "running"),
    120_000,
  );
  const failover = moved.runs.find(({ kind }) => kind === "failover");
  const fullScaleMs = now() - killedAt;
  const firstGood = shoppers.answers.find(
    ({ at, ok, server }) => at > killedAt && ok && server?.startsWith("i-") === false,
  );
  const firstAnswerMs = firstGood === undefined ? Number.POSITIVE_INFINITY : firstGood.at - killedAt;
  say(
    `first answer from west after ${(firstAnswerMs / 1000).toFixed(1)} s, full scale after ${(fullScaleMs / 1000).toFixed(1)} s`,
  );
  const westNow = await stage.readCloud("west");
  const verdict = judge(owner, westNow);
  const after = await room.status();

  heading(flags.swap ? "East comes back, as the standby" : "East comes back");
  await stage.restartEast();
  const returned = flags.swap
    ? (await swapped(stage, shoppers, reserved)) && (await growInWest(stage))
    : await cameBack(room, shoppers);
  await shoppers.stop();
  const home = flags.swap ? null : judge(owner, await stage.readCloud("east"));
  const failed = shoppers.answers.filter(({ ok }) => !ok);
  const outside = failed.filter(({ at }) => at < killedAt || at > killedAt + fullScaleMs).length;
  say(
    `${shoppers.answers.length} requests, ${failed.length} of them failed, ${outside} of these not between the kill and full scale`,
  );
  const counts = after.journal;
  return {
    commandsJournaled: counts.commands,
    commandsDrained: drainedBy(failover),
    serversActive: before.servers.active,
    serversReserve: reserved,
    serversAfterTakeover: liveServers(westNow).length,
    lostCommands:
      verdict.lost.length + (home?.lost.length ?? 0) + Math.max(0, owner.expected.commands - counts.commands),
    duplicateServers: verdict.duplicates.length + (home?.duplicates.length ?? 0),
    requestsFailed: failed.length,
    firstAnswerMs: Math.round(firstAnswerMs),
    fullScaleMs: Math.round(fullScaleMs),
    returned,
  };
}

/** What the owner was promised against what the cloud has: after the takeover, and again after the return. */
function judge(owner: ShopOwner, cloud: CloudDump): Verdict {
  const verdict = compare(owner.expected, cloud);
  for (const what of verdict.lost) say(`LOST: ${what}`);
  for (const what of verdict.duplicates) say(`DOUBLED: ${what}`);
  return verdict;
}

/** As the run itself found when it looked through the whole journal. */
function drainedBy(run: RunView | undefined): number {
  const result = run?.steps.find(({ name }) => name === "verify")?.result as
    | { commandsDrained: number }
    | null
    | undefined;
  return result?.commandsDrained ?? 0;
}

/** The environment is at home again: east serves, west is down to the reserve, users get answers from east. */
async function cameBack(room: ControlRoom, shoppers: Shoppers): Promise<boolean> {
  const seen = await room.follow(
    "the return",
    () => room.runs(),
    (runs) => runs.some(({ kind, state }) => kind === "failback" && state !== "running"),
    120_000,
  );
  const state = seen.find(({ kind }) => kind === "failback")?.state;
  const answers = await answersSince(now(), shoppers);
  const home = answers.every(({ ok, server }) => ok && server?.startsWith("i-") === true);
  const status = await room.status();
  say(`the shop is at home; west is down to ${status.servers.reserve} servers`);
  return state === "succeeded" && home && status.phase === "protected" && status.activeSite === "east";
}

/** West is the active site for good; east, which is back, is scaled down to a reserve. */
async function swapped(stage: Stage, shoppers: Shoppers, reserve: number): Promise<boolean> {
  const { room } = stage;
  const seen = await room.follow(
    "east to become a reserve",
    async () => ({
      status: await room.status(),
      east: liveServers(await stage.readCloud("east")).length,
    }),
    ({ status, east }) =>
      status.phase === "protected" && status.run === null && status.activeSite === "west" && east === reserve,
    120_000,
  );
  say(`west is the active site for good; east is down to a reserve of ${seen.east} servers`);
  const answers = await answersSince(now(), shoppers);
  const served = answers.every(({ ok, server }) => ok && server?.startsWith("i-") === false);
  return served && seen.status.activeSite === "west" && seen.status.servers.active > seen.east;
}

/** The new active cloud is the intercepted one now: what its owner does there is recorded, and the reserve in east follows. */
async function growInWest({ room, gatewayUrl, key }: Stage): Promise<boolean> {
  heading("The owner goes on, in OpenStack now, through the same gateway");
  const before = await room.status();
  const owner = await openOpenstackOwner(gatewayUrl, "shop", key);
  for (const name of ["batch-1", "batch-2", "batch-3"]) await owner.startLike("app-1", name);
  const after = await room.follow(
    "the reserve in east to follow",
    () => room.status(),
    (status) =>
      status.servers.active === before.servers.active + 3 &&
      status.servers.reserve === before.servers.reserve + 1 &&
      status.behind.standby === 0,
    30_000,
  );
  say(
    `a new tier of 3 servers in west, ${after.servers.reserve - before.servers.reserve} of them in reserve in east`,
  );
  return after.journal.open === 0;
}

/** Enough customers' answers from now on to tell who serves. */
async function answersSince(at: number, shoppers: Shoppers): Promise<readonly Answer[]> {
  const look = (): Promise<readonly Answer[]> =>
    Promise.resolve(shoppers.answers.filter((answer) => answer.at > at));
  return until(
    "answers for the customers",
    look,
    (answers) => answers.filter(({ ok }) => ok).length >= 8,
    20_000,
  );
}

await perform(
  {
    folderName: "understudy-demo-",
    play,
    isWhole: ({ lostCommands, duplicateServers, returned, serversAfterTakeover, serversActive }) =>
      lostCommands === 0 && duplicateServers === 0 && returned && serversAfterTakeover === serversActive,
    whole: "nothing was lost, nothing doubled",
  },
  flags,
);
