/**
 * One batch: one transaction. It runs straight through first, since calls that fail are rare and savepoints are not free;
 * if a call fails, it is undone and run again with a savepoint for each call, so that only the failing ones stay out.
 */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import type { Statement } from "./contract.ts";
import { OperationalError } from "#kernel/errors.ts";
import { storeError, voidsTransaction } from "./sqlite-errors.ts";
import { StatementCache } from "./statement-cache.ts";

/** `undefined`: recorded. Otherwise the reason why this call, and none of its statements, took effect. */
export type CallResult = { readonly error: unknown } | undefined;

export type RunBatch = (calls: readonly (readonly Statement[])[]) => readonly CallResult[];

/** Thrown through by the batch when nothing of it is recorded; `error` is for every caller of the batch. */
export class BatchFailed extends Error {
  override readonly name = "BatchFailed";
  readonly error: unknown;

  constructor(error: unknown) {
    super("the batch was rolled back");
    this.error = error;
  }
}

interface Frame {
  readonly begin: StatementSync;
  readonly commit: StatementSync;
  readonly savepoint: StatementSync;
  readonly release: StatementSync;
}

function mismatch(statement: Statement, rows: number): unknown {
  return (
    statement.onMismatch?.() ??
    new OperationalError(
      "state.conflict",
      `the record changed meanwhile: expected to touch ${statement.expectRows} rows, touched ${rows}; read it again, then repeat`,
      { detail: statement.query.sql },
    )
  );
}

function touched(cache: StatementCache, { query }: Statement): number {
  const { changes } = cache.prepare(query.sql).run(...(query.parameters as SQLInputValue[]));
  return Number(changes);
}

/** Whether every statement of every call did what it should; with false or an error, the transaction is to be undone. */
function runThrough(cache: StatementCache, calls: readonly (readonly Statement[])[]): boolean {
  for (const statements of calls) {
    for (const statement of statements) {
      const rows = touched(cache, statement);
      if (statement.expectRows !== undefined && rows !== statement.expectRows) return false;
    }
  }
  return true;
}

function runCall(cache: StatementCache, statements: readonly Statement[]): CallResult {
  for (const statement of statements) {
    const rows = touched(cache, statement);
    if (statement.expectRows !== undefined && rows !== statement.expectRows) {
      return { error: mismatch(statement, rows) };
    }
  }
  return undefined;
}

function undoAll(database: DatabaseSync): void {
  // On a full disk or an I/O error SQLite may have rolled back already (sqlite.org/lang_transaction.html).
  if (database.isTransaction) database.exec("rollback");
}

/**
 * Gives a function that runs calls in order in one transaction. It returns once the transaction is committed, with a result
 * per call; it throws `BatchFailed` if nothing of the batch is recorded.
 */
export function sqliteBatch(database: DatabaseSync, path: string): RunBatch {
  const cache = new StatementCache(database);
  const frame: Frame = {
    begin: database.prepare("begin immediate"),
    commit: database.prepare("commit"),
    savepoint: database.prepare("savepoint call"),
    release: database.prepare("release call"),
  };

  function all(calls: readonly (readonly Statement[])[]): boolean {
    try {
      return runThrough(cache, calls);
    } catch (error) {
      if (voidsTransaction(error)) throw error;
      return false;
    }
  }

  function one(statements: readonly Statement[]): CallResult {
    frame.savepoint.run();
    let result: CallResult;
    try {
      result = runCall(cache, statements);
    } catch (error) {
      if (voidsTransaction(error)) throw error;
      result = { error: storeError(error, path) };
    }
    if (result !== undefined) database.exec("rollback to call");
    frame.release.run();
    return result;
  }

  function oneByOne(calls: readonly (readonly Statement[])[]): readonly CallResult[] {
    undoAll(database);
    frame.begin.run();
    return calls.map(one);
  }

  return (calls) => {
    let committing = false;
    try {
      frame.begin.run();
      const results = all(calls) ? calls.map(() => undefined) : oneByOne(calls);
      committing = true;
      frame.commit.run();
      return results;
    } catch (error) {
      undoAll(database);
      const failed = storeError(error, path);
      // A write that failed may still have reached the disk; a full disk has certainly not taken the commit record.
      const full = failed instanceof OperationalError && failed.code === "store.full";
      throw new BatchFailed(committing && !full ? storeError(error, path, "unknown") : failed);
    }
  };
}
