/**
 * A gateway as a process of its own, which can be told to die (SIGKILL) at its n-th durable step. Both ends of it: what the
 * process runs, and what a test starts it with. Which cloud stands behind, the scripts beside say.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type AccessKeyDirectory, openAccessKeys } from "#gateway/access-keys.ts";
import type { Dialect, Upstreams } from "#gateway/dialect.ts";
import { startGateway } from "#gateway/start-gateway.ts";
import { openJournal } from "#journal/open-journal.ts";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { type Random, systemRandom } from "#kernel/random.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";

export interface ChildOptions {
  readonly folder: string;
  readonly environment: string;
  /** 0: never. */
  readonly killAt: number;
}

export interface ChildFront {
  readonly services: Upstreams;
  readonly dialect: Dialect;
  close?(): Promise<void>;
}

export interface FrontParts {
  readonly keys: AccessKeyDirectory;
  readonly clock: Clock;
  readonly random: Random;
}

/** Where a client finds the gateway, and the key that it has there. */
export interface ChildAddress {
  readonly address: string;
  readonly id: string;
  readonly secret: string;
}

/** What the test gave the child. */
export const childOptions = (): unknown => JSON.parse(process.env["GATEWAY_CHILD"] ?? "{}");

/** The child's side: serves until its standard input ends. `open` makes the front. */
export async function runGatewayChild(
  options: ChildOptions,
  open: (parts: FrontParts) => ChildFront | Promise<ChildFront>,
): Promise<void> {
  const id = environmentId(options.environment);
  const ports = { clock: systemClock, random: systemRandom };
  let armed = false;
  let steps = 0;
  const store = await openSqliteStore({
    path: join(options.folder, "state.db"),
    serving: true,
    onCommit: () => {
      if (!armed) return;
      steps += 1;
      if (steps === options.killAt) process.kill(process.pid, "SIGKILL");
    },
  });
  const row = { id, active_site: "a", standby_site: "b", phase: "protected", epoch: 1, updated_at: 0 };
  const insert = store.db.insertInto("environment").values(row);
  await store.commit([{ query: insert.onConflict((on) => on.column("id").doNothing()).compile() }]);
  const keys = await openAccessKeys(join(options.folder, "keys.json"), ports);
  const key = await keys.create({ environment: id, rights: "change", label: "e2e" });
  const front = await open({ keys, ...ports });
  armed = true;
  const gateway = await startGateway({
    listen: { host: "127.0.0.1", port: 0 },
    environments: [{ id, services: front.services }],
    dialects: [front.dialect],
    journal: await openJournal(store, { clock: systemClock }),
    fence: () => ({ epoch: 1, moved: null }),
    ...ports,
    log: silentLog,
    limits: { settleMs: 300, answerTimeoutMs: 5_000, lockWaitMs: 10_000 },
  });
  const said: ChildAddress = { address: gateway.address, id: key.id, secret: key.secret.reveal() };
  console.log(JSON.stringify(said));
  process.stdin.on("end", () => {
    void gateway
      .close()
      .then(() => front.close?.())
      .then(() => store.close())
      .then(() => process.exit(0));
  });
  process.stdin.resume();
}

/** The test's side. Undefined: it was killed while it resolved what an earlier one left, which is a durable step too. */
export async function startGatewayChild(
  script: URL,
  options: ChildOptions,
): Promise<{ process: ChildProcess; at: ChildAddress } | undefined> {
  const child = spawn(process.execPath, [script.pathname], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, GATEWAY_CHILD: JSON.stringify(options) },
  });
  const line = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  return line.done === true ? undefined : { process: child, at: JSON.parse(line.value) as ChildAddress };
}

export async function stopGatewayChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, "exit");
  child.stdin?.end();
  await gone;
}
