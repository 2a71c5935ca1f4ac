import type { DatabaseSync, StatementSync } from "node:sqlite";

/**
 * Prepared statements by their text: preparing costs more than running. Two generations: what was not used while `capacity`
 * others were prepared is dropped. (Keeping a Map in the order of use would change it at every statement.)
 */
export class StatementCache {
  readonly #database: DatabaseSync;
  readonly #capacity: number;
  #young = new Map<string, StatementSync>();
  #old = new Map<string, StatementSync>();

  constructor(database: DatabaseSync, capacity = 256) {
    this.#database = database;
    this.#capacity = capacity;
  }

  /** At most twice the capacity. */
  get size(): number {
    return this.#young.size + this.#old.size;
  }

  prepare(sql: string): StatementSync {
    const known = this.#young.get(sql);
    if (known !== undefined) return known;
    const statement = this.#old.get(sql) ?? this.#database.prepare(sql);
    this.#old.delete(sql);
    if (this.#young.size >= this.#capacity) {
      this.#old = this.#young;
      this.#young = new Map();
    }
    this.#young.set(sql, statement);
    return statement;
  }
}
