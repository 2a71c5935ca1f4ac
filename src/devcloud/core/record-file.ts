/** The records on disk: one SQLite table of JSON rows, written in groups, each group one transaction and one fsync. */
import { closeSync, mkdirSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { OperationalError } from "#kernel/errors.ts";

export interface StoredRecord {
  readonly table: string;
  readonly id: string;
  /** Null deletes it. */
  readonly record: unknown;
}

const FORMAT = 1;

export class RecordFile {
  readonly #db: DatabaseSync;
  readonly #upsert: StatementSync;
  readonly #delete: StatementSync;

  /** Errors: `store.version`, `store.failing`, `state.conflict` while another process has it open. */
  constructor(path: string) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // User data may hold secrets; SQLite gives its other files the same mode.
    closeSync(openSync(path, "a", 0o600));
    this.#db = new DatabaseSync(path);
    try {
      this.#db.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
    } catch (error) {
      this.#db.close();
      if (!/locked|busy/i.test(error instanceof Error ? error.message : "")) throw storeError(error);
      throw new OperationalError(
        "state.conflict",
        `another devcloud uses ${dirname(path)}: stop it, or give this one its own data directory`,
        { cause: error },
      );
    }
    const version = this.#db.prepare("PRAGMA user_version").get()?.["user_version"];
    if (version !== 0 && version !== FORMAT) {
      this.#db.close();
      throw new OperationalError(
        "store.version",
        `${path} was written by another version of devcloud (format ${String(version)}): use a new data directory`,
      );
    }
    // A rowid table: an update keeps the row's number, so loading in its order is loading in order of creation.
    this.#db.exec(
      `CREATE TABLE IF NOT EXISTS record (tbl TEXT NOT NULL, id TEXT NOT NULL, json TEXT NOT NULL, UNIQUE (tbl, id));
       PRAGMA user_version = ${FORMAT}`,
    );
    this.#upsert = this.#db.prepare(
      `INSERT INTO record (tbl, id, json) VALUES (?, ?, ?) ON CONFLICT (tbl, id) DO UPDATE SET json = excluded.json`,
    );
    this.#delete = this.#db.prepare("DELETE FROM record WHERE tbl = ? AND id = ?");
  }

  *load(): Generator<StoredRecord> {
    for (const row of this.#db.prepare("SELECT tbl, id, json FROM record ORDER BY rowid").iterate()) {
      yield { table: String(row["tbl"]), id: String(row["id"]), record: JSON.parse(String(row["json"])) };
    }
  }

  /** All or none, on stable storage when it returns. Errors: `store.full`, `store.failing`. */
  write(records: Iterable<StoredRecord>): void {
    try {
      this.#db.exec("BEGIN IMMEDIATE");
      try {
        for (const { table, id, record } of records) {
          if (record === null) this.#delete.run(table, id);
          else this.#upsert.run(table, id, JSON.stringify(record));
        }
        this.#db.exec("COMMIT");
      } catch (error) {
        if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
        throw error;
      }
    } catch (error) {
      throw storeError(error);
    }
  }

  close(): void {
    this.#db.close();
  }
}

function storeError(error: unknown): OperationalError {
  const message = error instanceof Error ? error.message : String(error);
  const full = /full|no space/i.test(message);
  return new OperationalError(
    full ? "store.full" : "store.failing",
    full
      ? "devcloud's data directory is full: free some space"
      : `devcloud cannot write its data directory: ${message}`,
    { outcome: "unknown", detail: message, cause: error },
  );
}
