import { DatabaseSync } from "node:sqlite";

/** A writer that another process blocks longer than this is an error; the thread waits, so it is short. */
export const busyTimeoutMs = 2_000;

export interface WriterOptions {
  readonly maxPages: number | undefined;
  /** Pages of the write-ahead log at which SQLite itself folds it into the database, inside a commit. */
  readonly checkpointPages: number;
}

/** The one connection that writes. With `synchronous = full`, until whoever opens it takes the flushing over. */
export function openWriter(path: string, { maxPages, checkpointPages }: WriterOptions): DatabaseSync {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, timeout: busyTimeoutMs });
  try {
    database.exec("pragma journal_mode = wal");
    database.exec("pragma synchronous = full");
    database.exec(`pragma wal_autocheckpoint = ${checkpointPages}`);
    if (maxPages !== undefined) database.exec(`pragma max_page_count = ${maxPages}`);
  } catch (error) {
    database.close();
    throw error;
  }
  return database;
}
