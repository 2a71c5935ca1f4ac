import type { Statement } from "./contract.ts";
import { OperationalError } from "#kernel/errors.ts";
import { BatchFailed } from "./sqlite-batch.ts";
import type { CallResult, RunBatch } from "./sqlite-batch.ts";

/** Bounds how long one batch holds the thread: some 2 ms of inserts. Calls beyond it go into the next batch, in order. */
const maxCallsPerBatch = 256;

interface Waiter {
  readonly statements: readonly Statement[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export interface GroupCommitOptions {
  readonly run: RunBatch;
  /** Called with the ordinal of each durable batch, after its flush and before anybody is told. */
  readonly onCommit?: ((count: number) => void) | undefined;
}

/**
 * Gathers the calls of one turn of the event loop into one batch. The batch runs in the turn's check phase, when every
 * socket that was readable has been heard: so concurrent callers share a flush, and a lone caller waits for nobody.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions;
  #queue: Waiter[] = [];
  #scheduled: NodeJS.Immediate | undefined;
  #batches = 0;
  #closed = false;

  constructor(options: GroupCommitOptions) {
    this.#options = options;
  }

  commit(statements: readonly Statement[]): Promise<void> {
    if (this.#closed) {
      return Promise.reject(
        new OperationalError("store.failing", "the store is closed: nothing more is recorded"),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ statements, resolve, reject });
      this.#schedule();
    });
  }

  /** Runs what was asked for before, then refuses more. */
  close(): void {
    this.#closed = true;
    while (this.#queue.length > 0) this.#flush();
    clearImmediate(this.#scheduled);
  }

  #schedule(): void {
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined;
      this.#flush();
      if (this.#queue.length > 0) this.#schedule();
    });
  }

  #flush(): void {
    const batch = this.#queue.splice(0, maxCallsPerBatch);
    if (batch.length === 0) return;
    let results: readonly CallResult[];
    try {
      results = this.#options.run(batch.map((waiter) => waiter.statements));
    } catch (error) {
      const reason = error instanceof BatchFailed ? error.error : error;
      for (const waiter of batch) waiter.reject(reason);
      return;
    }
    this.#batches += 1;
    this.#options.onCommit?.(this.#batches);
    for (const [index, waiter] of batch.entries()) {
      const failed = results[index];
      if (failed === undefined) waiter.resolve();
      else waiter.reject(failed.error);
    }
  }
}
