/** Durable state. One writer at a time per data directory or database; any number of readers. */
import type { CompiledQuery, Kysely } from "kysely";
import type { Schema } from "#store/schema.ts";

export interface Statement {
  readonly query: Pick<CompiledQuery, "sql" | "parameters">;
  /**
   * The number of rows it must touch; another number undoes this commit's statements and rejects with `onMismatch`. This is
   * how a fencing epoch is checked in the same transaction as what it guards.
   */
  readonly expectRows?: number;
  readonly onMismatch?: () => Error;
}

export interface Store {
  /** For reads, and for building the queries of `commit`. Writes go through `commit` alone. */
  readonly db: Kysely<Schema>;
  /**
   * Runs the statements in order, all or none, and resolves once they are on stable storage (SQLite: its log
   * flushed, see `wal-flush.ts`; PostgreSQL: synchronous_commit on). Calls made while one commit is under way share the next one's
   * disk flush (group commit) and keep the order in which they were made. One call's failure does not touch another's.
   * Errors: `store.full` (disk or quota), `store.failing`.
   */
  commit(statements: readonly Statement[]): Promise<void>;
  /** How many calls of `commit` there were: what was read or checked holds while this number stays. */
  commits(): number;
  /**
   * As `commit`, for records that no statement of a `commit` is checked against unless it comes later: the journal's. `since` is what `commits` was when
   * the caller knew that each of the statements will touch the rows it expects, and that nothing but another `commit` can change that.
   * If none came since, the records are durable before the database has them (SQLite: `redo-log.ts`). Resolves
   * with whether reads see them now; if not, they do in a moment.
   */
  append(statements: readonly Statement[], since: number | undefined): Promise<boolean>;
  /** Resolves when reads of `db` see all that was appended before. Errors: as `commit`. */
  showAppended(): Promise<void>;
  /** Calls back each time that reads see more of what was appended. */
  onShown(listener: () => void): void;
  close(): Promise<void>;
}
