/** One durable batch: a transaction with one disk flush, and a savepoint for each call in it. */
import type { DatabaseSync, SQLInputValue, StatementSync } from "node:sqlite";
import type { Statement } from "./contract.ts";
import { OperationalError } from "#kernel/errors.ts";
import { storeError, voidsTransaction } from "./sqlite-errors.ts";
import { StatementCache } from "./statement-cache.ts";

/** `undefined`: recorded. Otherwise the reason why this call, and none of its statements, took effect. */
export type CallResult = { readonly error: unknown } | undefined;

export type RunBatch = (calls: readonly (readonly Statement[])[]) => readonly CallResult[];

/** Thrown through by the batch when nothing of it is durable; `error` is for every caller of the batch. */
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

function runCall(cache: StatementCache, statements: readonly Statement[]): CallResult {
  for (const statement of statements) {
    const { changes } = cache
      .prepare(statement.query.sql)
      .run(...(statement.query.parameters as SQLInputValue[]));
    if (statement.expectRows !== undefined && Number(changes) !== statement.expectRows) {
      return { error: mismatch(statement, Number(changes)) };
    }
  }
  return undefined;
}

function undoAll(database: DatabaseSync): void {
  // On a full disk or an I/O error SQLite may have rolled back already (sqlite.org/lang_transaction.html).
  if (database.isTransaction) database.exec("rollback");
}

/**
 * Gives a function that runs calls in order in one transaction. It returns once the transaction is on stable storage,
 * with a result per call; it throws `BatchFailed` if nothing of the batch is durable.
 */
export function sqliteBatch(database: DatabaseSync, path: string): RunBatch {
  const cache = new StatementCache(database);
  const frame: Frame = {
    begin: database.prepare("begin immediate"),
    commit: database.prepare("commit"),
    savepoint: database.prepare("savepoint call"),
    release: database.prepare("release call"),
  };

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

  return (calls) => {
    let committing = false;
    try {
      frame.begin.run();
      const results = calls.map(one);
      committing = true;
      frame.commit.run();
      return results;
    } catch (error) {
      undoAll(database);
      const failed = storeError(error, path);
      // A flush that failed may still have reached the disk; a full disk has certainly not taken the commit record.
      const full = failed instanceof OperationalError && failed.code === "store.full";
      throw new BatchFailed(committing && !full ? storeError(error, path, "unknown") : failed);
    }
  };
}
