import type { Statement } from "./contract.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { AppendedCalls } from "./appended-calls.ts";
import { BatchFailed } from "./sqlite-batch.ts";
import type { CallResult, RunBatch } from "./sqlite-batch.ts";

/** Bounds how long one batch holds the thread: some 2 ms of inserts. Calls beyond it go into the next batch, in order. */
const maxCallsPerBatch = 256;

interface Waiter {
  readonly statements: readonly Statement[];
  /** Nothing can keep them from taking effect. */
  readonly sure: boolean;
  readonly resolve: (shown: boolean) => void;
  readonly reject: (error: unknown) => void;
}

export interface GroupCommitOptions {
  readonly run: RunBatch;
  /**
   * Brings all that was committed before to stable storage; a promise where it takes its time. Without one,
   * commits are as durable as they get.
   */
  readonly flush?: (() => Promise<void> | void) | undefined;
  /** Takes batches of calls that are sure to take effect. Without one, those are run like the others. */
  readonly appended?: AppendedCalls | undefined;
  /**
   * Called with the ordinal of each durable batch and the number of its calls that the database has got with it, after its flush and
   * before anybody is told.
   */
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
  #commits = 0;

  constructor(options: GroupCommitOptions) {
    this.#options = options;
  }

  /** How many calls of `commit` there were. */
  get commits(): number {
    return this.#commits;
  }

  async commit(statements: readonly Statement[]): Promise<void> {
    this.#commits += 1;
    await this.#ask(statements, false);
  }

  /** See `Store.append`. */
  append(statements: readonly Statement[], since: number | undefined): Promise<boolean> {
    return this.#ask(statements, since === this.#commits);
  }

  /** See `Store.showAppended`. */
  async showAppended(): Promise<void> {
    if (this.#options.appended?.behind === true) await this.#options.appended.catchUp();
  }

  #ask(statements: readonly Statement[], sure: boolean): Promise<boolean> {
    if (this.#closed) {
      return Promise.reject(
        new OperationalError("store.failing", "the store is closed: nothing more is recorded"),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ statements, sure, resolve, reject });
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
    const { appended } = this.#options;
    if (this.#failed !== undefined) refuseAll(batch, this.#failed.error);
    else if (appended === undefined) this.#commit(batch);
    else if (!batch.every(({ sure }) => sure) || !this.#append(appended, batch)) {
      if (appended.behind) this.#flushing = this.#caughtUp(appended, batch);
      else this.#commit(batch);
    }
  }

  /** False if the batch was not taken. After a write that failed nothing more is recorded, as after a flush that failed. */
  #append(appended: AppendedCalls, batch: readonly Waiter[]): boolean {
    try {
      if (!appended.write(batch.map((waiter) => waiter.statements))) return false;
    } catch (error) {
      if (isOperational(error)) this.#flushFailed(batch, error);
      else refuseAll(batch, error);
      return true;
    }
    this.#flush(
      batch,
      () => appended.flush(),
      () => {
        appended.landed(batch.length);
        this.#durable(batch, undefined);
      },
    );
    return true;
  }

  async #caughtUp(appended: AppendedCalls, batch: readonly Waiter[]): Promise<void> {
    try {
      await appended.catchUp();
      this.#flushing = undefined;
      this.#commit(batch);
    } catch (error) {
      this.#flushing = undefined;
      refuseAll(batch, error);
    }
    this.#schedule();
  }

  #commit(batch: readonly Waiter[]): void {
    const { appended, run, flush } = this.#options;
    let results: readonly CallResult[];
    try {
      results = run(batch.map((waiter) => waiter.statements));
    } catch (error) {
      refuseAll(batch, error instanceof BatchFailed ? error.error : error);
      return;
    }
    this.#flush(
      batch,
      () => flush?.(),
      () => {
        appended?.startOver();
        this.#durable(batch, results);
      },
    );
  }

  #flush(batch: readonly Waiter[], flush: () => Promise<void> | void, durable: () => void): void {
    let flushing: Promise<void> | void;
    try {
      flushing = flush();
    } catch (error) {
      this.#flushFailed(batch, error);
      return;
    }
    if (flushing === undefined) durable();
    else this.#flushing = this.#flushed(flushing, batch, durable);
  }

  async #flushed(flushing: Promise<void>, batch: readonly Waiter[], durable: () => void): Promise<void> {
    try {
      await flushing;
    } catch (error) {
      this.#flushing = undefined;
      this.#flushFailed(batch, error);
      this.#schedule();
      return;
    }
    this.#flushing = undefined;
    durable();
    this.#schedule();
  }

  #flushFailed(batch: readonly Waiter[], error: unknown): void {
    this.#failed = { error };
    refuseAll(batch, error);
  }

  /** Without results: the batch was appended. */
  #durable(batch: readonly Waiter[], results: readonly CallResult[] | undefined): void {
    this.#batches += 1;
    this.#options.onCommit?.(this.#batches, results === undefined ? 0 : batch.length);
    for (const [index, waiter] of batch.entries()) {
      const failed = results?.[index];
      if (failed === undefined) waiter.resolve(results !== undefined);
      else waiter.reject(failed.error);
    }
  }
}

function refuseAll(batch: readonly Waiter[], reason: unknown): void {
  for (const waiter of batch) waiter.reject(reason);
}
