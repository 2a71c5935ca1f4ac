// The process that keeps the log dies (SIGKILL) at any moment under load, again and again over the same log, store and folder, also while it folds,
// prunes, ships or opens. Each time: no acknowledged write is missing, none is torn, and every moment is a state that the disks had.
// WRITE_LOG_ROUNDS sets the number of deaths.
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { initVault, type Vault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { openMoment } from "#vault/write-log/open-moment.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";
import type { WriteLog } from "#vault/write-log/write-log.ts";
import type { ChildOptions } from "./write-log-child.ts";

const rounds = Number(process.env["WRITE_LOG_ROUNDS"] ?? 6);
const seed = Number(process.env["WRITE_LOG_SEED"] ?? Date.now() % 1_000_000);
const volumes = ["a", "b"];
const stripeBytes = 128 * 1024;
const stripes = 4;
const sizeBytes = stripeBytes * stripes;

/** One writer's part of a disk. It writes one write at a time, so that what may be there is told exactly. */
interface Stripe {
  readonly volume: string;
  readonly offset: number;
  /** The content before this round, */
  before: Buffer;
  /** and the writes of this round in order; the last may have no answer. */
  writes: { readonly at: number; readonly data: Buffer | number; acknowledged: boolean }[];
}

const apply = (content: Buffer, { at, data }: Stripe["writes"][number]): Buffer => {
  const next = Buffer.from(content);
  if (typeof data === "number") next.fill(0, at, at + data);
  else data.copy(next, at);
  return next;
};

/** The stripe's content after each number of writes. */
function* states(stripe: Stripe): Generator<Buffer> {
  let content = stripe.before;
  yield content;
  for (const write of stripe.writes) {
    content = apply(content, write);
    yield content;
  }
}

async function startChild(options: ChildOptions): Promise<{ child: ChildProcess; serves: boolean }> {
  const child = spawn(process.execPath, [new URL("./write-log-child.ts", import.meta.url).pathname], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, WRITE_LOG_CHILD: JSON.stringify(options) },
  });
  const line = await createInterface({ input: child.stdout })[Symbol.asyncIterator]().next();
  return { child, serves: line.done !== true };
}

async function writeUntilDead(
  socketPath: string,
  parts: readonly Stripe[],
  killAfter: number,
  kill: () => void,
): Promise<void> {
  const random = createSeededRandom(killAfter + seed);
  let answers = 0;
  let dead = false;
  const clients = new Map(
    await Promise.all(
      volumes.map(async (volume) => {
        const options = {
          exportName: volume,
          clock: systemClock,
          random: systemRandom,
          log: silentLog,
          reconnectMs: 0,
        };
        return [
          volume,
          await openNbdClient({ ...options, address: { kind: "unix", path: socketPath } }),
        ] as const;
      }),
    ),
  );
  const writer = async (stripe: Stripe): Promise<void> => {
    const client = clients.get(stripe.volume);
    assert.ok(client !== undefined);
    while (!dead) {
      const length = 1 + Math.floor(random.fraction() * (random.fraction() < 0.2 ? 60_000 : 5000));
      const at = Math.floor(random.fraction() * (stripeBytes - length));
      const data = random.fraction() < 0.1 ? length : randomBytes(length);
      const write = { at, data, acknowledged: false };
      stripe.writes.push(write);
      try {
        if (typeof data === "number") await client.trim(stripe.offset + at, data);
        else await client.write(stripe.offset + at, data);
      } catch (error) {
        if (dead) return;
        throw error;
      }
      write.acknowledged = true;
      answers += 1;
      if (answers === killAfter) {
        dead = true;
        kill();
      }
    }
  };
  await Promise.all(parts.map(writer));
  for (const client of clients.values()) await client[Symbol.asyncDispose]().catch(() => {});
}

/** What is there now: every acknowledged write, and of the unanswered one all or nothing. */
async function checkPresent(log: WriteLog, parts: readonly Stripe[]): Promise<void> {
  for (const stripe of parts) {
    const content = await log.read(stripe.volume, stripe.offset, stripeBytes);
    const acknowledged = stripe.writes.filter((write) => write.acknowledged).length;
    const possible = [...states(stripe)].slice(acknowledged);
    const found = possible.findIndex((state) => state.equals(content));
    assert.ok(
      found >= 0,
      `${stripe.volume} at ${stripe.offset}: acknowledged writes are missing, or one is torn`,
    );
    stripe.writes = stripe.writes.slice(0, acknowledged + found);
  }
}

/** Each moment of this round shows each stripe after some number of its writes, never fewer than an earlier moment. */
async function checkMoments(
  log: WriteLog,
  parts: readonly Stripe[],
  from: number,
  picks: readonly number[],
): Promise<void> {
  const last = log.lastRecord.sequence;
  const sequences = picks.map((pick) => from + Math.floor(pick * (last - from + 1))).sort((a, b) => a - b);
  const reached = new Map(parts.map((stripe) => [stripe, 0]));
  for (const sequence of new Set([...sequences, last])) {
    const readers = new Map<string, Buffer>();
    for (const volume of volumes) {
      await using moment = await openMoment(log, volume, { sequence });
      readers.set(volume, await moment.read(0, sizeBytes));
    }
    for (const stripe of parts) {
      const content = readers.get(stripe.volume)?.subarray(stripe.offset, stripe.offset + stripeBytes);
      const least = reached.get(stripe) ?? 0;
      const found = [...states(stripe)].findIndex((state, index) => index >= least && content?.equals(state));
      assert.ok(
        found >= 0,
        `${stripe.volume} at ${stripe.offset}, record ${sequence}: no state that the disk had`,
      );
      reached.set(stripe, found);
      // Two states may be the same bytes (zeroes trimmed), so the end is told by its content.
      if (sequence === last)
        assert.ok(
          [...states(stripe)].at(-1)?.equals(content ?? Buffer.alloc(0)),
          "the last moment lacks writes",
        );
    }
  }
}

test(`no acknowledged write is missing after ${rounds} deaths (WRITE_LOG_SEED=${seed})`, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "write-log-kill-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const passphrase = "kill sweep";
  const storage = await openFolderStorage(join(folder, "store"));
  t.after(() => storage.close());
  const unlock = { passphrase: new Secret(passphrase) };
  await using vault: Vault = await initVault({ storage, unlock, scrypt: { N: 2, r: 1, p: 1 }, threads: 0 });
  const options: ChildOptions = {
    logPath: join(folder, "log"),
    storePath: join(folder, "store"),
    socketPath: join(folder, "nbd.sock"),
    passphrase,
    volumes,
    sizeBytes,
  };
  const parts: Stripe[] = volumes.flatMap((volume) =>
    Array.from({ length: stripes }, (_, index) => ({
      volume,
      offset: index * stripeBytes,
      before: Buffer.alloc(stripeBytes),
      writes: [],
    })),
  );
  const random = createSeededRandom(seed);
  let from = 5;
  let writes = 0;
  let points = 0;
  for (let round = 0; round < rounds; round += 1) {
    const { child, serves } = await startChild(options);
    const exit = once(child, "exit");
    const kill = (): void => void child.kill("SIGKILL");
    assert.ok(serves, "the log opens after a death");
    await writeUntilDead(options.socketPath, parts, 1 + Math.floor(random.fraction() ** 2 * 700), kill);
    await exit;
    const log = await openWriteLog({
      folder: openSegmentFolder(options.logPath),
      group: "g",
      logKey: vault.context.keys.log,
      clock: systemClock,
      points: vaultPoints(vault),
    });
    try {
      await checkPresent(log, parts);
      const oldest = await vaultPoints(vault).list("g", "a");
      points = oldest.length;
      // What left the window in this round is not asked for.
      const first = log.shelf.segments[0]?.header.firstSequence ?? 1;
      const base = Math.max(0, ...(await firstBases(log, vault, first)));
      await checkMoments(log, parts, Math.max(from, base), [
        random.fraction(),
        random.fraction(),
        random.fraction(),
      ]);
      await log.verify();
      from = log.lastRecord.sequence;
    } finally {
      await log.close();
    }
    for (const stripe of parts) {
      writes += stripe.writes.length;
      stripe.before = [...states(stripe)].at(-1) ?? stripe.before;
      stripe.writes = [];
    }
  }
  t.diagnostic(`${writes} writes kept over ${rounds} deaths, ${points} points of each volume`);
});

/** For each volume, the first point on which the log can still stand; 0 while the log reaches back to the beginning. */
async function firstBases(log: WriteLog, vault: Vault, first: number): Promise<number[]> {
  if (first === 1) return [0];
  const bases: number[] = [];
  for (const volume of volumes) {
    const points = await vaultPoints(vault).list(log.group, volume);
    bases.push(points.find(({ sequence }) => sequence >= first - 1)?.sequence ?? 0);
  }
  return bases;
}
