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
  /**
   * Brings all that was committed before to stable storage; a promise where it takes its time. Without one,
   * commits are as durable as they get.
   */
  readonly flush?: (() => Promise<void> | void) | undefined;
  /** Called with the ordinal of each durable batch and the number of its calls, after its flush and before anybody is told. */
  readonly onCommit?: ((count: number, calls: number) => void) | undefined;
}

/**
 * Gathers calls into batches. A batch runs in the check phase of a turn of the event loop, when every socket that was
 * readable has been heard: so concurrent callers share a flush, and a lone caller waits for nobody. A flush that
 * takes its time runs beside the event loop; calls that come meanwhile make up the next batch.
 */
export class GroupCommit {
  readonly #options: GroupCommitOptions;
  #queue: Waiter[] = [];
  #scheduled: NodeJS.Immediate | undefined;
  #flushing: Promise<void> | undefined;
  /** Set by a flush that failed: what the disk holds is not known from then on (its page cache may have dropped writes). */
  #failed: { readonly error: unknown } | undefined;
  #batches = 0;
  #closed = false;
  #held = false;

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

  /** Lets the batch under way end; the next one runs when the result is disposed of. One at a time. */
  async pause(): Promise<Disposable> {
    this.#held = true;
    while (this.#flushing !== undefined) await this.#flushing;
    return {
      [Symbol.dispose]: () => {
        this.#held = false;
        this.#schedule();
      },
    };
  }

  /** Runs what was asked for before, then refuses more. */
  async close(): Promise<void> {
    this.#closed = true;
    for (;;) {
      if (this.#flushing !== undefined) await this.#flushing;
      else if (this.#queue.length > 0) this.#runBatch();
      else break;
    }
    clearImmediate(this.#scheduled);
  }

  #schedule(): void {
    if (this.#held || this.#flushing !== undefined || this.#queue.length === 0) return;
    this.#scheduled ??= setImmediate(() => {
      this.#scheduled = undefined;
      if (this.#flushing === undefined && !this.#held) this.#runBatch();
      this.#schedule();
    });
  }

  #runBatch(): void {
    const batch =
      this.#queue.length <= maxCallsPerBatch ? this.#queue : this.#queue.slice(0, maxCallsPerBatch);
    this.#queue = batch === this.#queue ? [] : this.#queue.slice(maxCallsPerBatch);
    if (batch.length === 0) return;
    let results: readonly CallResult[];
    try {
      if (this.#failed !== undefined) throw new BatchFailed(this.#failed.error);
      results = this.#options.run(batch.map((waiter) => waiter.statements));
    } catch (error) {
      refuseAll(batch, error instanceof BatchFailed ? error.error : error);
      return;
    }
    let flushing: Promise<void> | void;
    try {
      flushing = this.#options.flush?.();
    } catch (error) {
      this.#flushFailed(batch, error);
      return;
    }
    if (flushing === undefined) this.#durable(batch, results);
    else this.#flushing = this.#flushed(flushing, batch, results);
  }

  async #flushed(
    flushing: Promise<void>,
    batch: readonly Waiter[],
    results: readonly CallResult[],
  ): Promise<void> {
    try {
      await flushing;
    } catch (error) {
      this.#flushing = undefined;
      this.#flushFailed(batch, error);
      this.#schedule();
      return;
    }
    this.#flushing = undefined;
    this.#durable(batch, results);
    this.#schedule();
  }

  #flushFailed(batch: readonly Waiter[], error: unknown): void {
    this.#failed = { error };
    refuseAll(batch, error);
  }

  #durable(batch: readonly Waiter[], results: readonly CallResult[]): void {
    this.#batches += 1;
    this.#options.onCommit?.(this.#batches, batch.length);
    for (const [index, waiter] of batch.entries()) {
      const failed = results[index];
      if (failed === undefined) waiter.resolve();
      else waiter.reject(failed.error);
    }
  }
}

function refuseAll(batch: readonly Waiter[], reason: unknown): void {
  for (const waiter of batch) waiter.reject(reason);
}
