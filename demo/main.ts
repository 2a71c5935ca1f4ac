// A whole disaster on one machine. Two clouds, a shop in one, a fraction of it in the other; the first cloud dies and comes
// back. Everything is real: processes, APIs, signals, files. Exits 0 only if nothing was lost or doubled and traffic came back.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { parseArgs } from "node:util";
import { EC2Client } from "@aws-sdk/client-ec2";
import { request } from "undici";
import type { EnvironmentStatus, RunView } from "#takeover/control.ts";
import type { TimelineEvent } from "#takeover/run-ledger.ts";
import { openOpenstackOwner } from "./openstack-owner.ts";
import { killAll, startActor, type Actor } from "./processes.ts";
import { sendShoppers, type Answer, type Shoppers } from "./shoppers.ts";
import { ShopOwner, type Tier } from "./shop.ts";
import { heading, now, say, until } from "./timeline.ts";
import { compare, liveServers, readCloud } from "./verify.ts";

const { values: flags } = parseArgs({
  options: {
    swap: { type: "boolean", default: false },
    json: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});

const image = "ami-0a1b2c3d4e5f60001";
const folder = mkdtempSync(join(tmpdir(), "understudy-demo-"));

interface Ports {
  readonly east: number;
  readonly west: number;
  readonly gateway: number;
  readonly api: number;
  readonly web: number;
  readonly app: number;
  readonly db: number;
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once("error", reject);
          server.listen(0, "127.0.0.1", () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => {
    const address = server.address();
    return address !== null && typeof address === "object" ? address.port : 0;
  });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

async function choosePorts(): Promise<Ports> {
  const [east = 0, west = 0, gateway = 0, api = 0, web = 0, app = 0, db = 0] = await freePorts(7);
  return { east, west, gateway, api, web, app, db };
}

function startEast(ports: Ports): Promise<Actor> {
  const args = ["devcloud", "up", "--dialect", "ec2", "--port", String(ports.east), "--data", "./east"];
  return startActor("east", [...args, "--address-base", "127.41.0.0/16"], folder);
}

function startWest(ports: Ports): Promise<Actor> {
  const args = ["devcloud", "up", "--dialect", "openstack", "--port", String(ports.west), "--data", "./west"];
  return startActor("west", [...args, "--address-base", "127.42.0.0/16"], folder);
}

function writeConfig(ports: Ports, east: Actor, west: Actor): void {
  for (const name of ["witness-north", "witness-south"]) {
    writeFileSync(join(folder, `${name}.token`), randomBytes(24).toString("hex"), { mode: 0o600 });
  }
  const forwarder = (port: number): string =>
    `{forwarder: {listen: "127.0.0.1:${port}", mode: http, drain: 1s}}`;
  writeFileSync(
    join(folder, "understudy.yaml"),
    `version: 1
data: ./understudy-data
listen: {gateway: "127.0.0.1:${ports.gateway}", api: "127.0.0.1:${ports.api}"}
sites:
  east:
    driver: ec2
    region: ${String(east.ready["region"])}
    endpoint: ${String(east.ready["endpoint"])}
    credentials: {accessKeyId: {env: EAST_KEY}, secretAccessKey: {file: ./east/secret-key}}
  west:
    driver: openstack
    authUrl: ${String(west.ready["endpoint"])}/identity/v3
    region: ${String(west.ready["region"])}
    project: ${String(west.ready["project"] ?? "understudy")}
    credentials: {username: ${String(west.ready["accessKeyId"])}, password: {file: ./west/secret-key}}
environments:
  shop:
    active: east
    standby: west
    reserve: {servers: {ratio: 0.2, minimumPerGroup: 1, groupBy: tier}}
    translate: {images: {${image}: understudy/guest}}
    traffic:
      - {name: web, select: {tier: web}, port: 8080, through: ${forwarder(ports.web)}}
      - {name: app, select: {tier: app}, port: 8081, through: ${forwarder(ports.app)}}
      - {name: db, select: {tier: db}, port: 8082, through: ${forwarder(ports.db)}}
    probes:
      - {name: shop, every: 500ms, timeout: 1500ms, check: {http: "http://127.0.0.1:${ports.web}/"}}
      - {name: cloud, every: 500ms, timeout: 1s, check: {cloudApi: active}}
    witnesses: [engine, {name: north, token: {file: ./witness-north.token}}, {name: south, token: {file: ./witness-south.token}}]
    failover:
      triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: 2s}]
    return: {policy: ${flags.swap ? "swap" : "wait"}, stableFor: 2s}
`,
  );
}

class ControlRoom {
  readonly #url: string;
  readonly #token: string;
  #shown = 0;

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  async #get<T>(path: string): Promise<T> {
    const { statusCode, body } = await request(new URL(path, this.#url), {
      headers: { authorization: `Bearer ${this.#token}` },
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${path}: ${statusCode} ${text}`);
    return JSON.parse(text) as T;
  }

  status(): Promise<EnvironmentStatus> {
    return this.#get("/v1/environments/shop");
  }

  async runs(): Promise<readonly RunView[]> {
    const { runs } = await this.#get<{ runs: readonly { id: string }[] }>("/v1/runs?environment=shop");
    return Promise.all(runs.map(({ id }) => this.#get<RunView>(`/v1/runs/${id}`)));
  }

  /** Prints what the control plane has said since the last time. */
  async listen(): Promise<void> {
    const { events } = await this.#get<{ events: readonly TimelineEvent[] }>(
      `/v1/environments/shop/events?after=${this.#shown}`,
    );
    for (const event of events) {
      this.#shown = Math.max(this.#shown, event.ordinal);
      say(`  ${event.message}`);
    }
  }

  async follow<T>(
    what: string,
    look: () => Promise<T>,
    done: (seen: T) => boolean,
    limitMs: number,
  ): Promise<T> {
    return until(
      what,
      async () => {
        await this.listen();
        return look();
      },
      done,
      limitMs,
    );
  }
}

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

interface AccessKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
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

async function play(): Promise<Figures> {
  heading("Two clouds, and Understudy between the first one and its users");
  const ports = await choosePorts();
  const [firstEast, west] = await Promise.all([startEast(ports), startWest(ports)]);
  let east = firstEast;
  say(`east speaks EC2, west speaks OpenStack`);
  writeConfig(ports, east, west);
  const environment = { EAST_KEY: String(east.ready["accessKeyId"]), UNDERSTUDY_LOG_LEVEL: "info" };
  const key = JSON.parse(
    execFileSync(join(import.meta.dirname, "..", "bin", "understudy"), ["keys", "create", "shop", "--json"], {
      cwd: folder,
    }).toString(),
  ) as AccessKey;
  const engine = await startActor("engine", ["up", "--json"], folder, environment);
  const api = String(engine.ready["api"]);
  await Promise.all(
    ["north", "south"].map((name) =>
      startActor(
        `witness-${name}`,
        ["witness", "--api", api, "--token-file", `./witness-${name}.token`],
        folder,
      ),
    ),
  );
  const room = new ControlRoom(
    api,
    readFileSync(join(folder, "understudy-data", "api-token"), "utf8").trim(),
  );

  heading("The owner builds a shop with the AWS SDK, through the gateway and knowing nothing of it");
  const tiers: readonly Tier[] = [
    { name: "db", port: 8082, next: null },
    { name: "app", port: 8081, next: `http://127.0.0.1:${ports.db}/` },
    { name: "web", port: 8080, next: `http://127.0.0.1:${ports.app}/` },
  ];
  const ec2 = new EC2Client({
    region: "us-east-1",
    endpoint: String(engine.ready["gateway"]),
    credentials: key,
    maxAttempts: 3,
  });
  const owner = new ShopOwner(ec2, tiers);
  await buildShop(owner);

  const before = await room.follow(
    "the reserve to follow",
    () => room.status(),
    (status) =>
      status.behind.standby === 0 &&
      status.routes.every(({ error, missing }) => error === null && missing === 0),
    60_000,
  );
  const reserved = liveServers(
    await readCloud(String(west.ready["endpoint"]), join(folder, "west", "admin-token")),
  ).length;
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
  await east.kill();
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
  const westNow = await readCloud(String(west.ready["endpoint"]), join(folder, "west", "admin-token"));
  const verdict = compare(owner.expected, westNow);
  for (const what of verdict.lost) say(`LOST: ${what}`);
  for (const what of verdict.duplicates) say(`DOUBLED: ${what}`);
  const after = await room.status();

  heading(flags.swap ? "East comes back, as the standby" : "East comes back");
  east = await startEast(ports);
  const returned = flags.swap
    ? (await swapped(room, shoppers, ports, reserved)) &&
      (await growInWest(room, String(engine.ready["gateway"]), key))
    : await cameBack(room, shoppers);
  await shoppers.stop();
  const failed = shoppers.answers.filter(({ ok }) => !ok).length;
  say(`${shoppers.answers.length} requests, ${failed} of them failed, all between the kill and the takeover`);
  const counts = after.journal;
  return {
    commandsJournaled: counts.commands,
    commandsDrained: drainedBy(failover),
    serversActive: before.servers.active,
    serversReserve: reserved,
    serversAfterTakeover: liveServers(westNow).length,
    lostCommands: verdict.lost.length + Math.max(0, owner.expected.commands - counts.commands),
    duplicateServers: verdict.duplicates.length,
    requestsFailed: failed,
    firstAnswerMs: Math.round(firstAnswerMs),
    fullScaleMs: Math.round(fullScaleMs),
    returned,
  };
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
async function swapped(
  room: ControlRoom,
  shoppers: Shoppers,
  ports: Ports,
  reserve: number,
): Promise<boolean> {
  const seen = await room.follow(
    "east to become a reserve",
    async () => ({
      status: await room.status(),
      east: liveServers(
        await readCloud(`http://127.0.0.1:${ports.east}`, join(folder, "east", "admin-token")),
      ).length,
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
async function growInWest(room: ControlRoom, gateway: string, key: AccessKey): Promise<boolean> {
  heading("The owner goes on, in OpenStack now, through the same gateway");
  const before = await room.status();
  const owner = await openOpenstackOwner(gateway, "shop", key);
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

let exitCode = 1;
try {
  const figures = await play();
  const whole =
    figures.lostCommands === 0 &&
    figures.duplicateServers === 0 &&
    figures.returned &&
    figures.serversAfterTakeover === figures.serversActive;
  say(whole ? "nothing was lost, nothing doubled" : "NOT whole: see above");
  if (flags.json) process.stdout.write(`${JSON.stringify(figures)}\n`);
  exitCode = whole ? 0 : 1;
} catch (error) {
  say(`the demo broke off: ${error instanceof Error ? error.message : String(error)}`);
  say(`everyone's logs are in ${folder}`);
} finally {
  killAll();
  if (exitCode === 0 && !flags.keep) rmSync(folder, { recursive: true, force: true });
  else if (flags.keep) say(`logs and data are in ${folder}`);
}
process.exit(exitCode);
