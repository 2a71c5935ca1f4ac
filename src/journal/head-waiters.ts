import type { Clock } from "#kernel/clock.ts";

interface Waiter {
  readonly after: number;
  readonly wake: () => void;
}

export interface HeadWaitersOptions {
  readonly clock: Clock;
  readonly head: (environment: string) => Promise<number>;
  readonly pollMs?: number;
}

/** Readers that wait for an environment's head to move on. */
export class HeadWaiters {
  readonly #options: HeadWaitersOptions;
  readonly #waiting = new Map<string, Set<Waiter>>();

  constructor(options: HeadWaitersOptions) {
    this.#options = options;
  }

  announce(environment: string, position: number): void {
    for (const waiter of this.#waiting.get(environment) ?? []) {
      if (waiter.after < position) waiter.wake();
    }
  }

  /** Resolves when the head exceeds `after`, or the signal aborts. */
  async changed(environment: string, after: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const done = new AbortController();
    const woken = new Promise<void>((resolve) => {
      const waiter: Waiter = { after, wake: resolve };
      const waiting = this.#waiting.get(environment) ?? new Set();
      this.#waiting.set(environment, waiting.add(waiter));
      signal.addEventListener("abort", () => resolve(), { once: true, signal: done.signal });
      done.signal.addEventListener("abort", () => {
        waiting.delete(waiter);
        if (waiting.size === 0) this.#waiting.delete(environment);
      });
    });
    try {
      // Looked at only after waiting began, so that no record falls between the look and the wait.
      if ((await this.#options.head(environment)) > after) return;
      await (this.#options.pollMs === undefined
        ? woken
        : Promise.race([woken, this.#poll(environment, after, this.#options.pollMs, done.signal)]));
    } finally {
      done.abort();
    }
  }

  async #poll(environment: string, after: number, pollMs: number, signal: AbortSignal): Promise<void> {
    do {
      try {
        await this.#options.clock.sleep(pollMs, signal);
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
    } while ((await this.#options.head(environment)) <= after);
  }
}
