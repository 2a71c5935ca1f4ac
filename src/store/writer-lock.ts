/**
 * One writer per data directory, by a lock that the operating system drops when its process dies: a transaction held
 * open on a small database beside the data. No time-out to wait for after a crash, and no stale lock file.
 */
import { hostname } from "node:os";
import { DatabaseSync } from "node:sqlite";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { isBusy, storeError } from "./sqlite-errors.ts";

export interface WriterLock {
  release(): void;
}

function holderOf(database: DatabaseSync): string {
  const row = database.prepare("select host, pid, since from holder where one = 1").get();
  if (row === undefined) return "another process";
  return `process ${String(row["pid"])} on ${String(row["host"])} (since ${new Date(Number(row["since"])).toISOString()})`;
}

/** Waits at most `busy_timeout`, which is there for two processes that start in the same moment. */
function take(database: DatabaseSync, clock: Clock): void {
  database.exec("pragma busy_timeout = 250; begin immediate");
  database.exec(
    "create table if not exists holder (one integer primary key, host text, pid integer, since integer)",
  );
  database
    .prepare("insert or replace into holder values (1, ?, ?, ?)")
    .run(hostname(), process.pid, clock.now());
  // The holder's name must be committed to be readable by others; the second transaction is the lock itself.
  // Readers still get in beside it, another writer does not.
  database.exec("commit; begin immediate");
}

/**
 * Errors: `store.failing` naming the process that holds it.
 * @param lockPath a file of the lock's own; SQLite must be able to create it.
 */
export function takeWriterLock(lockPath: string, storePath: string, clock: Clock): WriterLock {
  const database = new DatabaseSync(lockPath);
  try {
    take(database, clock);
  } catch (error) {
    const busy = isBusy(error);
    const holder = busy ? holderOf(database) : "";
    database.close();
    if (!busy) throw storeError(error, lockPath);
    throw new OperationalError(
      "store.failing",
      `${storePath} is in use by ${holder}: stop it, or give this one a data directory of its own`,
      { retry: "never", cause: error },
    );
  }
  return { release: () => database.close() };
}
