import { OperationalError } from "#kernel/errors.ts";

/**
 * Lets many callers share one costly flush. Whatever was done before a call of `flush` is covered when it resolves: a flush that
 * was under way already does not count, the one after it does, for all who came meanwhile.
 *
 * A flush that failed is never followed by one that succeeds: the kernel forgets which pages it could not write
 * (https://lwn.net/Articles/752063/), so a later success would promise what is not there.
 */
export class SharedFlush {
  readonly #work: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;
  #failure: OperationalError | undefined;

  constructor(work: () => Promise<void>) {
    this.#work = work;
  }

  /** @throws OperationalError `disk.failing` or `store.full`, for ever once it has. */
  flush(): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext(),
    );
    return this.#next;
  }

  #startNext(): Promise<void> {
    this.#next = undefined;
    if (this.#failure === undefined) return this.#start();
    this.#running = undefined;
    return Promise.reject(this.#failure);
  }

  #start(): Promise<void> {
    this.#running = this.#work()
      .catch((error: unknown) => {
        const full = (error as { readonly code?: unknown } | null)?.code === "ENOSPC";
        this.#failure = new OperationalError(
          full ? "store.full" : "disk.failing",
          "the disk could not make written data durable; what was written since the last flush must be written again",
          { outcome: "unknown", cause: error },
        );
        throw this.#failure;
      })
      .finally(() => {
        // Where one waits for this one's end, it is the one that runs from now on: who comes before it has begun joins it, and no two
        // run side by side, of which one could answer for what the other is still writing.
        if (this.#next === undefined) this.#running = undefined;
      });
    return this.#running;
  }
}
