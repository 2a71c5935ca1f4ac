/** The redo log and the database that it belongs to: what a process that died had not brought over, and the log of one that serves. */
import { randomBytes } from "node:crypto";
import { type Kysely, sql } from "kysely";
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { AppendedCalls } from "./appended-calls.ts";
import type { FollowOptions } from "./follow-worker.ts";
import { RedoLog, readRedoLog, redoCall, redoPathOf } from "./redo-log.ts";
import type { RedoTable, Schema } from "./schema.ts";
import type { RunBatch } from "./sqlite-batch.ts";
import { storeError } from "./sqlite-errors.ts";
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
  const [failed] = run([redoCall(missing)]);
  if (failed !== undefined) throw failed.error;
}

export interface ServingOptions {
  readonly database: FollowOptions;
  readonly clock: Clock;
  readonly log: Log;
  /** See `AppendedCallsOptions`. */
  readonly onShown: (calls: number) => void;
}

/** For a database that has everything. Undefined where there is no room for a log: everything goes through the database then. */
export async function openAppendedCalls(
  db: Db,
  { database, clock, log, onShown }: ServingOptions,
): Promise<AppendedCalls | undefined> {
  let state = await stateOf(db);
  if (state === undefined) {
    state = { owner: randomBytes(8).toString("hex"), applied: 0 };
    await db.insertInto("redo").values(state).execute();
  }
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
  return AppendedCalls.open(database, { redo: file, flush, onShown, log });
}
