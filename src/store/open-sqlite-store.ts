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
import { type LogFolder, openLogFolder } from "./log-folder.ts";
import { migrate, requireKnownSchema } from "./migrations.ts";
import type { Schema } from "./schema.ts";
import { busyTimeoutMs, openWriter } from "./open-writer.ts";
import { caughtUp, openAppendedCalls, ownRedo, redo } from "./redo.ts";
import { sqliteBatch } from "./sqlite-batch.ts";
import { nodeSqliteDialect } from "./sqlite-dialect.ts";
import { storeError } from "./sqlite-errors.ts";
import { flushDirectory, openWalFlush } from "./wal-flush.ts";
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
  /**
   * Opens what another process writes, when all that is durable can be seen: no writer lock, no migration, and `commit` is refused. What
   * becomes durable later is seen some 50 ms later.
   */
  readonly readOnly?: boolean;
  /** The most pages the file may grow to: a quota. Default: the disk's. */
  readonly maxPages?: number;
  /**
   * For a process that serves: the log is folded into the database in a thread of its own, beside the commits (`log-folder.ts`), and what
   * is appended is durable before the database has it (`redo-log.ts`). A store that is opened briefly is better off without.
   * Nothing else differs.
   */
  readonly serving?: boolean;
}

/**
 * 64 MiB of write-ahead log before SQLite folds it into the database, which it does inside some caller's commit (10 ms and
 * more). At SQLite's own 1,000 pages that happened every 70 journaled commands and made their p99 (ADR 0002).
 */
const checkpointPages = 16_000;
/** With a thread that folds the log beside the commits, SQLite does it itself only where that thread could not for long. */
const lastResortPages = 8 * checkpointPages;
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

const readOnly = (path: string): OperationalError =>
  new OperationalError("store.failing", `${path} is open for reading only`);

async function openForReading({ path, clock = systemClock }: SqliteStoreOptions): Promise<Store> {
  const reader = openReader(path);
  const db = new Kysely<Schema>({ dialect: nodeSqliteDialect(reader) });
  try {
    await requireKnownSchema(db, path);
    await caughtUp(db, path, clock);
  } catch (error) {
    await db.destroy();
    throw error;
  }
  return {
    db,
    commits: () => 0,
    commit: () => Promise.reject(readOnly(path)),
    append: () => Promise.reject(readOnly(path)),
    showAppended: () => Promise.resolve(),
    onShown: () => undefined,
    close: () => db.destroy(),
  };
}

async function openForWriting(options: SqliteStoreOptions): Promise<Store> {
  const { path, clock = systemClock, log = silentLog, maxPages } = options;
  const shared = path === inMemory;
  const serving = options.serving === true && !shared;
  const opened = new AsyncDisposableStack();
  try {
    if (!shared) {
      prepareFile(path);
      const lock = takeWriterLock(lockPathOf(path), path, clock);
      opened.defer(() => lock.release());
    }
    const writerOptions = { maxPages, checkpointPages: serving ? lastResortPages : checkpointPages };
    const writer = openWriter(path, writerOptions);
    // What is in memory is closed with the reading side, which it is.
    if (!shared) opened.defer(() => writer.close());
    // Not destroyed: that would close the writer. It is only a way to run the migrations on the writer's connection.
    const writing = new Kysely<Schema>({ dialect: nodeSqliteDialect(writer) });
    if (shared) opened.defer(() => writing.destroy());
    const run = sqliteBatch(writer, path);
    // Before the schema changes: what was appended was meant for the one that it finds.
    if (!shared) await redo(writing, path, run);
    await migrate(writing, path, clock);
    if (serving) await ownRedo(writing);
    const flush = shared ? undefined : openWalFlush(path, clock);
    if (flush !== undefined) {
      opened.defer(() => flush.close());
      writer.exec("pragma synchronous = normal");
    }
    const db = shared ? writing : new Kysely<Schema>({ dialect: nodeSqliteDialect(openReader(path)) });
    if (!shared) opened.defer(() => db.destroy());
    let folder: LogFolder | undefined;
    const shown = new Set<() => void>();
    const appended = serving
      ? await openAppendedCalls(writing, {
          database: { path, ...writerOptions },
          clock,
          log,
          onShown: (calls) => {
            folder?.followed(calls);
            for (const listener of shown) listener();
          },
        })
      : undefined;
    if (appended !== undefined) opened.defer(() => appended.close());
    const commits = new GroupCommit({
      run,
      flush: flush?.flush,
      appended,
      onCommit: (count, calls) => {
        if (calls > 0) folder?.committed(calls);
        options.onCommit?.(count);
      },
    });
    if (serving) {
      const folding = await openLogFolder({
        path,
        pages: checkpointPages,
        pause: async () => {
          const held = new DisposableStack();
          held.use(await commits.pause());
          if (appended !== undefined) held.use(await appended.pause());
          return held;
        },
        log,
      });
      opened.defer(() => folding.close());
      folder = folding;
    }
    opened.defer(() => commits.close());
    log.debug({ path }, "store opened");
    const stack = opened.move();
    let closed: Promise<void> | undefined;
    return {
      db,
      commit: (statements: readonly Statement[]) => commits.commit(statements),
      commits: () => commits.commits,
      append: (statements: readonly Statement[], since: number | undefined) =>
        commits.append(statements, since),
      showAppended: () => commits.showAppended(),
      onShown: (listener: () => void) => void shown.add(listener),
      close: () => (closed ??= stack.disposeAsync()),
    };
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

/**
 * Opens (and where needed creates and migrates) the embedded store.
 *
 * Errors: `store.version` (written by a newer program), `store.failing` (in use by another process, damaged, not
 * writable), `store.full`.
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  try {
    return await (options.readOnly === true ? openForReading(options) : openForWriting(options));
  } catch (error) {
    throw storeError(error, options.path);
  }
}
