/**
 * Whether a flush is waited for on the spot, or made beside the event loop. A quick disk flushes in a tenth of a millisecond, which is
 * less than the way to another thread and back takes; a slow one would stop everything for as long as it takes. So
 * flushes are made at once, and each slow one is paid for: for twenty times as long as it took the others are made beside the loop.
 * Slow ones, however slow, hold the loop for a twentieth of the time at most.
 */
const slowMs = 0.5;
const pausePerMs = 20;

export class FlushPace {
  #notBefore = Number.NEGATIVE_INFINITY;

  /** Times are a monotonic clock's. */
  atOnce(nowMs: number): boolean {
    return nowMs >= this.#notBefore;
  }

  /** To be told of each flush that was made at once. */
  took(ms: number, nowMs: number): void {
    if (ms > slowMs) this.#notBefore = nowMs + pausePerMs * ms;
  }
}
