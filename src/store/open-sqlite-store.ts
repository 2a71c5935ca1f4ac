import { chmodSync, closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Kysely } from "kysely";
import type { Clock } from "#kernel/clock.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { silentLog } from "#kernel/log.ts";
import type { Statement, Store } from "./contract.ts";
import { GroupCommit, type GroupCommitOptions } from "./group-commit.ts";
import { migrate, requireKnownSchema } from "./migrations.ts";
import type { Schema } from "./schema.ts";
import { busyTimeoutMs, openWriter } from "./open-writer.ts";
import { openCommitThread } from "./commit-thread.ts";
import { sqliteBatch } from "./sqlite-batch.ts";
import { nodeSqliteDialect } from "./sqlite-dialect.ts";
import { storeError } from "./sqlite-errors.ts";
import { flushDirectory, openWalFlush } from "./wal-flush.ts";
import type { WriterLock } from "./writer-lock.ts";
import { takeWriterLock } from "./writer-lock.ts";

export interface SqliteStoreOptions {
  /** The database's file, or `:memory:` for one that ends with the process (not durable; for tests). */
  readonly path: string;
  readonly log?: Log;
  readonly clock?: Clock;
  /**
   * Called synchronously after each batch's flush, before any of its callers is told, with the number of batches
   * that this store has made durable. A test that kills the process here kills it at a durable step.
   */
  readonly onCommit?: (count: number) => void;
  /** Opens what another process writes: no writer lock, no migration, and `commit` is refused. */
  readonly readOnly?: boolean;
  /** The most pages the file may grow to: a quota. Default: the disk's. */
  readonly maxPages?: number;
  /**
   * Commits in a thread of its own, so that the event loop does nothing for a commit but send and receive it. For a process
   * that serves; a store that is opened briefly is better off without. Nothing else differs.
   */
  readonly ownThread?: boolean;
}

/**
 * 64 MiB of write-ahead log before SQLite folds it into the database, which it does inside some caller's commit (10 ms and
 * more). At SQLite's own 1,000 pages that happened every 70 journaled commands and made their p99 (ADR 0002).
 */
const checkpointPages = 16_000;
const inMemory = ":memory:";

const lockPathOf = (path: string): string => `${path}.lock`;

/** Only the engine's user may read it: it holds user data of servers. SQLite gives its `-wal` and `-shm` files the same mode. */
function prepareFile(path: string): void {
  const directory = dirname(path);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const file of [path, lockPathOf(path)]) {
    closeSync(openSync(file, "a", 0o600));
    chmodSync(file, 0o600);
  }
  flushDirectory(directory);
}

function openReader(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { readOnly: true, timeout: busyTimeoutMs });
  database.exec("pragma query_only = on");
  return database;
}

async function openForReading(path: string): Promise<Store> {
  const reader = openReader(path);
  const db = new Kysely<Schema>({ dialect: nodeSqliteDialect(reader) });
  try {
    await requireKnownSchema(db, path);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return {
    db,
    commit: () => Promise.reject(new OperationalError("store.failing", `${path} is open for reading only`)),
    close: () => db.destroy(),
  };
}

async function openForWriting(options: SqliteStoreOptions): Promise<Store> {
  const { path, clock = systemClock, maxPages } = options;
  const shared = path === inMemory;
  const writer = openWriter(path, { maxPages, checkpointPages });
  const opened = new AsyncDisposableStack();
  opened.defer(() => closeIfOpen(writer));
  try {
    // Not destroyed: that would close the writer. It is only a way to run the migrations on the writer's connection.
    const writing = new Kysely<Schema>({ dialect: nodeSqliteDialect(writer) });
    await migrate(writing, path, clock);
    const how =
      options.ownThread === true && !shared
        ? await commitElsewhere(writer, { path, maxPages }, opened)
        : commitHere(writer, path, opened);
    const db = shared ? writing : new Kysely<Schema>({ dialect: nodeSqliteDialect(openReader(path)) });
    opened.defer(() => db.destroy());
    const commits = new GroupCommit({ ...how, onCommit: options.onCommit });
    opened.defer(() => commits.close());
    (options.log ?? silentLog).debug({ path }, "store opened");
    const stack = opened.move();
    return {
      db,
      commit: (statements: readonly Statement[]) => commits.commit(statements),
      close: () => stack.disposeAsync(),
    };
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

function commitHere(
  writer: DatabaseSync,
  path: string,
  opened: AsyncDisposableStack,
): Pick<GroupCommitOptions, "run" | "flush"> {
  const run = sqliteBatch(writer, path);
  if (path === inMemory) return { run };
  const log = openWalFlush(path);
  opened.defer(() => log.close());
  writer.exec("pragma synchronous = normal");
  return { run, flush: log.flush };
}

async function commitElsewhere(
  writer: DatabaseSync,
  { path, maxPages }: { readonly path: string; readonly maxPages: number | undefined },
  opened: AsyncDisposableStack,
): Promise<Pick<GroupCommitOptions, "run">> {
  // The log's name in its directory has to be as durable as what will be in it.
  await openWalFlush(path).close();
  const thread = await openCommitThread({ path, maxPages, checkpointPages });
  opened.defer(() => thread.close());
  // Not before the thread has its own: the last connection to close would remove the log.
  writer.close();
  return { run: (calls) => thread.run(calls) };
}

function closeIfOpen(database: DatabaseSync): void {
  if (database.isOpen) database.close();
}

/**
 * Opens (and where needed creates and migrates) the embedded store.
 *
 * Errors: `store.version` (written by a newer program), `store.failing` (in use by another process, damaged, not
 * writable), `store.full`.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  const { path, clock = systemClock } = options;
  let lock: WriterLock | undefined;
  try {
    if (options.readOnly === true) return await openForReading(path);
    if (path !== inMemory) {
      prepareFile(path);
      lock = takeWriterLock(lockPathOf(path), path, clock);
    }
    const store = await openForWriting(options);
    let closed: Promise<void> | undefined;
    const close = async (): Promise<void> => {
      await store.close();
      lock?.release();
    };
    return { ...store, close: () => (closed ??= close()) };
  } catch (error) {
    lock?.release();
    throw storeError(error, path);
  }
}
