/** The redo log and the database that it belongs to: what a process that died had not brought over, and the log of one that serves. */
import { randomBytes } from "node:crypto";
import { type Kysely, sql } from "kysely";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import { AppendedCalls } from "./appended-calls.ts";
import type { FollowOptions } from "./follow-worker.ts";
import { RedoLog, readRedoLog, redoCall, redoPathOf } from "./redo-log.ts";
import type { RedoTable, Schema } from "./schema.ts";
import { BatchFailed, type CallResult, type RunBatch } from "./sqlite-batch.ts";
import { cannotFollow, storeError } from "./sqlite-errors.ts";
import { flushOf } from "./wal-flush.ts";

type Db = Kysely<Schema>;

/** Undefined for a database that no process served from yet. */
async function stateOf(db: Db): Promise<RedoTable | undefined> {
  const { rows } = await sql`select 1 from sqlite_master where type = 'table' and name = 'redo'`.execute(db);
  return rows.length === 0 ? undefined : db.selectFrom("redo").selectAll().executeTakeFirst();
}

/**
 * Brings over what the redo log has and the database has not, in one transaction (the log's length bounds it). `run`'s commits are
 * to be durable. Errors: as `readRedoLog`; `store.full`, `store.failing`.
 */
export async function redo(db: Db, path: string, run: RunBatch): Promise<void> {
  const state = await stateOf(db);
  const missing = readRedoLog(redoPathOf(path), state?.owner ?? "", state?.applied ?? 0);
  if (missing.length === 0) return;
  let refused: CallResult;
  try {
    [refused] = run([redoCall(missing)]);
  } catch (error) {
    throw error instanceof BatchFailed ? error.error : error;
  }
  if (refused !== undefined) throw cannotFollow(refused.error);
}

/** For a process that will serve: says whose its redo log is. `db`'s commits are to be durable: a log without its owner is not believed. */
export async function ownRedo(db: Db): Promise<void> {
  if ((await stateOf(db)) !== undefined) return;
  await db
    .insertInto("redo")
    .values({ owner: randomBytes(8).toString("hex"), applied: 0 })
    .execute();
}

/** How long a reader waits for the process that serves to bring over what its callers were told of. */
const readerPatienceMs = 2_000;

/**
 * For another process's reader: resolves when the database has what was durable at the call. Errors: `store.failing` if nobody brings it
 * over.
 */
export async function caughtUp(db: Db, path: string, clock: Clock): Promise<void> {
  const until = clock.monotonicMs() + readerPatienceMs;
  let last: number | undefined;
  for (;;) {
    const late = clock.monotonicMs() >= until;
    const state = await stateOf(db);
    const applied = state?.applied ?? 0;
    if (last !== undefined && applied >= last) return;
    try {
      last ??= readRedoLog(redoPathOf(path), state?.owner ?? "", applied).at(-1)?.ordinal ?? applied;
    } catch (error) {
      // The log may have started over between the two looks.
      if (late) throw error;
    }
    if (last !== undefined && late) {
      throw new OperationalError(
        "store.failing",
        `${path} has not got the last commands yet, which are in ${redoPathOf(path)}: start the engine once, it brings them over`,
      );
    }
    if (last === undefined || applied < last) await clock.sleep(5);
  }
}

export interface ServingOptions {
  readonly database: FollowOptions;
  readonly clock: Clock;
  readonly log: Log;
  /** See `AppendedCallsOptions`. */
  readonly onShown: (calls: number) => void;
}

/** For a database that has everything, and an owner. Undefined where there is no room for a log: everything goes through the database then. */
export async function openAppendedCalls(
  db: Db,
  { database, clock, log, onShown }: ServingOptions,
): Promise<AppendedCalls | undefined> {
  const state = await stateOf(db);
  invariant(state !== undefined, "a redo log has an owner");
  const redoPath = redoPathOf(database.path);
  let file: RedoLog;
  try {
    file = RedoLog.open(redoPath, state.owner, state.applied);
  } catch (error) {
    log.warn(
      { path: redoPath, error: storeError(error, redoPath) },
      "no redo log: each command waits for the database until the next start",
    );
    return undefined;
  }
  const flush = flushOf(file.file, redoPath, clock);
  try {
    return await AppendedCalls.open(database, { redo: file, flush, onShown, log });
  } catch (error) {
    file.close();
    throw error;
  }
}
