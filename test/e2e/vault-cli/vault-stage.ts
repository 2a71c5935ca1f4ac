/** A vault's process with a disk whose writes it takes in, and the command line beside it: all real processes. */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient, type NbdClient } from "#nbd/nbd-client.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { until } from "#testing/until.ts";

const program = join(import.meta.dirname, "..", "..", "..", "bin", "understudy");
const { signal } = new AbortController();

export const group = "shop";
export const volume = "vol-00000000000000001";
export const blockBytes = 4096;

export interface Ended {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface Stage {
  readonly folder: string;
  readonly store: string;
  /** Runs `understudy vault ARGS` to its end. */
  vault(...args: readonly string[]): Promise<Ended>;
  understudy(...args: readonly string[]): Promise<Ended>;
  /** `understudy vault serve`, as a process. */
  serve(): Promise<Served>;
}

export interface Served extends AsyncDisposable {
  readonly desk: VaultDesk;
  readonly pid: number;
  kill(): Promise<void>;
}

export interface StageOptions {
  /** Lines of YAML within `vault:`, each with two spaces. */
  readonly vaultLines?: string;
  readonly foldEvery?: string;
  /** In the configuration's words; default: a folder. */
  readonly store?: string;
}

export function makeStage(
  t: TestContext,
  { vaultLines = "", foldEvery = "1h", store = "{folder: ./store}" }: StageOptions = {},
): Stage {
  const folder = mkdtempSync(join(tmpdir(), "understudy-vault-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, "phrase"), "correct horse battery staple\n", { mode: 0o600 });
  writeFileSync(
    join(folder, "understudy.yaml"),
    `version: 1
vault:
  store: ${store}
  passphrase: {file: ./phrase}
  data: ./vd
  foldEvery: ${foldEvery}
${vaultLines}sites: {}
environments: {}
`,
  );
  const understudy = (...args: readonly string[]): Promise<Ended> => run(folder, args);
  return {
    folder,
    store: join(folder, "store"),
    understudy,
    vault: (...args) => understudy("vault", ...args),
    serve: () => serve(t, folder),
  };
}

/** What a person has on the worst day. */
export function onlyStoreAndKey({ store, folder }: Stage): string[] {
  return ["--store", store, "--passphrase-file", join(folder, "phrase")];
}

function run(folder: string, args: readonly string[]): Promise<Ended> {
  const child = spawn(program, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const timer = setTimeout(() => child.kill("SIGKILL"), 60_000);
  const out: Buffer[] = [];
  let stderr = "";
  child.stdout.on("data", (chunk: Buffer) => void out.push(chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code) => {
      clearTimeout(timer);
      resolve({ code, stdout: Buffer.concat(out), stderr });
    });
  });
}

async function serve(t: TestContext, folder: string): Promise<Served> {
  const child = spawn(program, ["vault", "serve", "--json"], {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, UNDERSTUDY_LOG_LEVEL: "warn" },
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (stderr += chunk));
  const ended = new Promise<void>((resolve) => void child.once("close", () => resolve()));
  const end = async (name: NodeJS.Signals): Promise<void> => {
    child.kill(name);
    await ended;
  };
  t.after(() => end("SIGKILL"));
  await Promise.race([
    new Promise<void>((resolve) => {
      createInterface({ input: child.stdout }).once("line", () => resolve());
    }),
    ended.then(() => {
      throw new Error(`vault serve ended before it was ready:\n${stderr}`);
    }),
  ]);
  const desk = connectDesk(join(folder, "vd"));
  return {
    desk,
    pid: child.pid ?? 0,
    async kill() {
      await desk[Symbol.asyncDispose]();
      await end("SIGKILL");
    },
    async [Symbol.asyncDispose]() {
      await desk[Symbol.asyncDispose]();
      await end("SIGTERM");
    },
  };
}

/** Opens what the desk names, as a host does. */
export function openExport(uri: string): Promise<NbdClient> {
  const { address, exportName } = parseNbdUri(uri);
  const ports = { clock: systemClock, random: systemRandom, log: silentLog, reconnectMs: 0 };
  return openNbdClient({ ...ports, address, exportName }, signal);
}

/** A captured disk that is whole from here on. */
export async function captureDisk(desk: VaultDesk, sizeBytes: number, name = volume): Promise<NbdClient> {
  const { uri } = await desk.protect(group, { volume: name, sizeBytes, epoch: 1 }, signal);
  const host = await openExport(uri);
  await host.write(0, Buffer.alloc(blockBytes, 0x11));
  const kept = (await desk.volumes(group, signal)).find((one) => one.volume === name);
  await desk.markWhole(group, name, kept?.session ?? 0, signal);
  return host;
}

/** The last moment, as the desk names it. The next one is at least a millisecond later. */
export async function momentNow(
  desk: VaultDesk,
): Promise<{ readonly at: number; readonly sequence: number }> {
  const moment = await desk.moment(group, null, signal);
  await until("the clock to move on", () => (Date.now() > moment.at + 1 ? true : undefined));
  return moment;
}

/** Everything that was written so far is in the store. */
export async function shipped(desk: VaultDesk): Promise<void> {
  await until("the log to be in the store", async () =>
    (await desk.status(group, signal))?.shipLagMs === 0 ? true : undefined,
  );
}

/** Every file below the folder, largest last. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .toSorted((a, b) => statSync(a).size - statSync(b).size);
}

/** Flips a bit of the file, in place. */
export function flipBit(path: string, offset: number): void {
  const bytes = readFileSync(path);
  bytes[offset] = (bytes[offset] ?? 0) ^ 1;
  rmSync(path);
  writeFileSync(path, bytes);
}
