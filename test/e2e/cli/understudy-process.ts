/** The command line as its users have it: `bin/understudy` as a process, in a folder of its own, over two clouds. */
import { spawn, type ChildProcessByStdio } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { EC2Client } from "@aws-sdk/client-ec2";
import { startDevcloud, type Devcloud, type DevcloudOptions } from "#devcloud/start-devcloud.ts";
import type { EnvironmentStatus } from "#takeover/control.ts";
import type { JournalEntry } from "#model/command.ts";
import { freePorts } from "../../../demo/free-ports.ts";

const program = join(import.meta.dirname, "..", "..", "..", "bin", "understudy");
export const image = "ami-0a1b2c3d4e5f60001";

type Cleanup = Pick<TestContext, "after">;

export interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** The user that the process runs as; needs root. */
  readonly uid?: number;
}

export interface Running {
  readonly pid: number;
  /** The line of JSON that it printed when it was ready. */
  readonly ready: Readonly<Record<string, string>>;
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly ended: Promise<Ended>;
  signal(name: NodeJS.Signals): void;
  stop(name?: NodeJS.Signals): Promise<Ended>;
}

interface Spawned {
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly stdout: () => string;
  readonly stderr: () => string;
  readonly ended: Promise<Ended>;
}

function spawnProgram(args: readonly string[], folder: string, options: StartOptions): Spawned {
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, UNDERSTUDY_LOG_LEVEL: "warn", ...options.env },
    ...(options.uid === undefined ? {} : { uid: options.uid, gid: options.uid }),
  });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
  const ended = new Promise<Ended>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => resolve({ code, stdout, stderr }));
  });
  return { child, stdout: () => stdout, stderr: () => stderr, ended };
}

/** Runs `understudy ARGS` to its end. */
export async function run(
  folder: string,
  args: readonly string[],
  options: StartOptions = {},
): Promise<Ended> {
  const { child, ended } = spawnProgram(args, folder, options);
  // One that does not end is a failure of the test, not a process that stays behind it.
  const timer = setTimeout(() => child.kill("SIGKILL"), 30_000);
  try {
    return await ended;
  } finally {
    clearTimeout(timer);
  }
}

/** Starts `understudy ARGS` and waits for its first line; stopped at the latest when the test ends. */
export async function start(
  t: Cleanup,
  folder: string,
  args: readonly string[],
  options: StartOptions = {},
): Promise<Running> {
  const spawned = spawnProgram(args, folder, options);
  const { child, ended } = spawned;
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    new Promise<string>((resolve) => {
      lines.once("line", resolve);
    }),
    ended.then(({ code, stderr }) => {
      throw new Error(`${args.join(" ")} ended with ${code} before it was ready:\n${stderr}`);
    }),
  ]);
  return {
    pid: child.pid ?? 0,
    ready: first.startsWith("{") ? (JSON.parse(first) as Record<string, string>) : {},
    stdout: spawned.stdout,
    stderr: spawned.stderr,
    ended,
    signal: (name) => void child.kill(name),
    stop: (name = "SIGTERM") => {
      child.kill(name);
      return ended;
    },
  };
}

/** Starts a command that ends by itself or by a signal, without waiting for anything. */
export function watch(
  t: Cleanup,
  folder: string,
  args: readonly string[],
): Pick<Running, "stderr" | "ended" | "signal"> {
  const { child, stderr, ended } = spawnProgram(args, folder, {});
  t.after(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  return { stderr, ended, signal: (name) => void child.kill(name) };
}

export interface Place {
  readonly folder: string;
  readonly east: Devcloud;
  readonly west: Devcloud;
  readonly ports: { readonly gateway: number; readonly api: number; readonly web: number };
  /** Ends a cloud; its state stays in its folder. */
  stopCloud(name: "east" | "west"): Promise<void>;
  startCloud(name: "east" | "west"): Promise<void>;
}

export function makeFolder(t: Cleanup): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-cli-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Two clouds that speak EC2, in this process, and an understudy.yaml over them that is in order. */
export async function makePlace(t: Cleanup, edit: (yaml: string) => string = (yaml) => yaml): Promise<Place> {
  const folder = makeFolder(t);
  const [gateway = 0, api = 0, web = 0, ...cloudPorts] = await freePorts(5);
  const optionsOf = (name: "east" | "west"): DevcloudOptions => ({
    dialect: "ec2",
    dataDir: join(folder, name),
    compute: "none",
    region: name === "east" ? "us-east-1" : "us-west-2",
    port: cloudPorts[name === "east" ? 0 : 1] ?? 0,
    lifecycle: { bootMs: 20 },
  });
  const clouds = new Map<string, Devcloud>();
  const startCloud = async (name: "east" | "west"): Promise<void> => {
    mkdirSync(join(folder, name), { recursive: true });
    clouds.set(name, await startDevcloud(optionsOf(name)));
  };
  const stopCloud = async (name: "east" | "west"): Promise<void> => {
    await clouds.get(name)?.close();
    clouds.delete(name);
  };
  await Promise.all([startCloud("east"), startCloud("west")]);
  t.after(() => Promise.all([stopCloud("east"), stopCloud("west")]));
  const cloud = (name: string): Devcloud => {
    const found = clouds.get(name);
    if (found === undefined) throw new Error(`${name} is not running`);
    return found;
  };
  const place: Place = {
    folder,
    get east() {
      return cloud("east");
    },
    get west() {
      return cloud("west");
    },
    ports: { gateway, api, web },
    stopCloud,
    startCloud,
  };
  writeFileSync(join(folder, "understudy.yaml"), edit(configOf(place)));
  return place;
}

function configOf({ east, west, ports }: Place): string {
  const site = (name: string, { region, endpoint }: Devcloud): string => `  ${name}:
    driver: ec2
    region: ${region}
    endpoint: ${endpoint}
    credentials: {accessKeyId: {env: ${name.toUpperCase()}_KEY}, secretAccessKey: {file: ./${name}/secret-key}}
`;
  return `version: 1
data: ./data
listen: {gateway: "127.0.0.1:${ports.gateway}", api: "127.0.0.1:${ports.api}"}
sites:
${site("east", east)}${site("west", west)}environments:
  shop:
    active: east
    standby: west
    translate: {images: {${image}: ${image}}}
    traffic:
      - {name: web, select: {tier: web}, port: 8080, through: {forwarder: {listen: "127.0.0.1:${ports.web}", mode: http}}}
    probes:
      - {name: cloud, every: 200ms, timeout: 1s, check: {cloudApi: active}}
    failover: {}
`;
}

/** Every devcloud that speaks EC2 has this key id; the secrets are their own. */
const cloudKeys = { EAST_KEY: "AKIADEVCLOUD00000001", WEST_KEY: "AKIADEVCLOUD00000001" };

export function up(t: Cleanup, place: Pick<Place, "folder">, options: StartOptions = {}): Promise<Running> {
  return start(t, place.folder, ["up", "--json"], { ...options, env: { ...cloudKeys, ...options.env } });
}

/** `up` that is expected to end by itself. */
export function failUp(
  place: Pick<Place, "folder">,
  options: StartOptions = {},
  config = "understudy.yaml",
): Promise<Ended> {
  return run(place.folder, ["up", "--config", config], { ...options, env: { ...cloudKeys, ...options.env } });
}

export interface Keys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export async function createKey(folder: string): Promise<Keys> {
  const { code, stdout, stderr } = await run(folder, ["keys", "create", "shop", "--json"]);
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as Keys;
}

export function clientOf(t: Cleanup, endpoint: string, keys: Keys, more: object = {}): EC2Client {
  const client = new EC2Client({ endpoint, region: "us-east-1", credentials: keys, maxAttempts: 1, ...more });
  t.after(() => client.destroy());
  return client;
}

export function operatorToken(folder: string, data = "data"): string {
  return readFileSync(join(folder, data, "api-token"), "utf8").trim();
}

/** Asks the API as the operator; the answer's JSON. */
export async function ask<T>(place: Pick<Place, "folder" | "ports">, path: string): Promise<T> {
  const response = await fetch(`http://127.0.0.1:${place.ports.api}${path}`, {
    headers: { authorization: `Bearer ${operatorToken(place.folder)}` },
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${path}: ${response.status} ${text}`);
  return JSON.parse(text) as T;
}

export function statusOf(place: Place): Promise<EnvironmentStatus> {
  return ask(place, "/v1/environments/shop");
}

export async function journalOf(place: Place): Promise<readonly JournalEntry[]> {
  const { entries } = await ask<{ entries: readonly JournalEntry[] }>(
    place,
    "/v1/environments/shop/journal?limit=1000",
  );
  return entries;
}

/** The servers of a cloud that are not gone, from its own records. */
export async function serversOf(cloud: Devcloud): Promise<readonly { id: string; state: string }[]> {
  const response = await fetch(`${cloud.endpoint}/_devcloud/state`, {
    headers: { authorization: `Bearer ${cloud.adminToken.reveal()}` },
  });
  const { tables } = (await response.json()) as {
    tables: Record<string, readonly { id: string; state: string }[]>;
  };
  return (tables["server"] ?? []).filter(({ state }) => state !== "terminated" && state !== "deleted");
}

export async function adminOf(cloud: Devcloud, method: string, path: string, body?: unknown): Promise<void> {
  const response = await fetch(`${cloud.endpoint}/_devcloud/${path}`, {
    method,
    headers: { authorization: `Bearer ${cloud.adminToken.reveal()}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
}
