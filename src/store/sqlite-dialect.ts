import type { DatabaseSync, SQLInputValue } from "node:sqlite";
import type { Dialect, SqliteDatabase, SqliteStatement } from "kysely";
import { SqliteDialect } from "kysely";
import { StatementCache } from "./statement-cache.ts";

type Parameters = readonly unknown[];

/** Kysely asks for the better-sqlite3 shape; `node:sqlite` differs in how parameters are passed and has no `reader`. */
class KyselyDatabase implements SqliteDatabase {
  readonly #database: DatabaseSync;
  readonly #statements: StatementCache;

  constructor(database: DatabaseSync) {
    this.#database = database;
    this.#statements = new StatementCache(database);
  }

  prepare(sql: string): SqliteStatement {
    const statement = this.#statements.prepare(sql);
    return {
      reader: statement.columns().length > 0,
      all: (parameters: Parameters) => statement.all(...(parameters as SQLInputValue[])),
      run: (parameters: Parameters) => statement.run(...(parameters as SQLInputValue[])),
      // A statement of its own: a cached one could be reset under a reader that is still walking its rows.
      iterate: (parameters: Parameters) =>
        this.#database.prepare(sql).iterate(...(parameters as SQLInputValue[])),
    };
  }

  close(): void {
    this.#database.close();
  }
}

/** Kysely over `node:sqlite`. Destroying the Kysely instance closes the database. */
export function nodeSqliteDialect(database: DatabaseSync): Dialect {
  return new SqliteDialect({ database: new KyselyDatabase(database) });
}
