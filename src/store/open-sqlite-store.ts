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
import { GroupCommit } from "./group-commit.ts";
import { migrate, requireKnownSchema } from "./migrations.ts";
import type { Schema } from "./schema.ts";
import { sqliteBatch } from "./sqlite-batch.ts";
import { nodeSqliteDialect } from "./sqlite-dialect.ts";
import { storeError } from "./sqlite-errors.ts";
import { type WalFlush, flushDirectory, openWalFlush } from "./wal-flush.ts";
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
}

/**
 * 64 MiB of write-ahead log before SQLite folds it into the database, which it does inside some caller's commit (10 ms and
 * more). At SQLite's own 1,000 pages that happened every 70 journaled commands and made their p99 (ADR 0002).
 */
const checkpointPages = 16_000;
/** A writer that another process blocks longer than this is an error; the process waits, so it is short. */
const busyTimeoutMs = 2_000;
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

function openWriter(path: string, maxPages: number | undefined): DatabaseSync {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: busyTimeoutMs });
  try {
    database.exec("pragma journal_mode = wal");
    // Until the schema stands; then every flush is `WalFlush`'s.
    database.exec("pragma synchronous = full");
    database.exec(`pragma wal_autocheckpoint = ${checkpointPages}`);
    if (maxPages !== undefined) database.exec(`pragma max_page_count = ${maxPages}`);
  } catch (error) {
    database.close();
    throw error;
  }
  return database;
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
  const { path, clock = systemClock } = options;
  const writer = openWriter(path, options.maxPages);
  // Not destroyed: that would close the writer. It is only a way to run the migrations on the writer's connection.
  const writing = new Kysely<Schema>({ dialect: nodeSqliteDialect(writer) });
  const shared = path === inMemory;
  let log: WalFlush | undefined;
  try {
    await migrate(writing, path, clock);
    if (!shared) {
      log = openWalFlush(path);
      writer.exec("pragma synchronous = normal");
    }
  } catch (error) {
    writer.close();
    throw error;
  }
  const db = shared ? writing : new Kysely<Schema>({ dialect: nodeSqliteDialect(openReader(path)) });
  const commits = new GroupCommit({
    run: sqliteBatch(writer, path),
    flush: log?.flush,
    onCommit: options.onCommit,
  });
  (options.log ?? silentLog).debug({ path }, "store opened");

  async function close(): Promise<void> {
    await commits.close();
    await db.destroy();
    if (!shared) writer.close();
    await log?.close();
  }
  return {
    db,
    commit: (statements: readonly Statement[]) => commits.commit(statements),
    close,
  };
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
