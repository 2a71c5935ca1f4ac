import type { Clock } from "#kernel/clock.ts";

/** Paces bytes: over any time, no more leave than the rate allows in it, and one slice. */
export class TokenBucket {
  readonly #clock: Clock;
  readonly #bytesPerSecond: number;
  /** When what was taken so far is paid for. */
  #paidMs: number;

  constructor(clock: Clock, bytesPerSecond: number) {
    this.#clock = clock;
    this.#bytesPerSecond = bytesPerSecond;
    this.#paidMs = clock.monotonicMs();
  }

  /** Resolves when so many bytes may leave. Callers are served in the order of their calls. */
  async take(bytes: number, signal: AbortSignal): Promise<void> {
    const now = this.#clock.monotonicMs();
    this.#paidMs = Math.max(now, this.#paidMs) + (1000 * bytes) / this.#bytesPerSecond;
    const waitMs = this.#paidMs - now;
    if (waitMs > 0) await this.#clock.sleep(waitMs, signal);
  }
}
