/**
 * Whether a flush is waited for on the spot, or made beside the event loop. A quick disk flushes in a tenth of a millisecond, which is
 * less than the way to another thread and back takes; a slow one would stop everything for as long as it takes. So a
 * flush for few callers is made at once, until one was slow; from then on they are made beside the loop, and now and then
 * another is tried.
 */
const fewCalls = 2;
const slowMs = 0.5;
const firstPauseMs = 1_000;
const longestPauseMs = 60_000;

export class FlushPace {
  #notBefore = Number.NEGATIVE_INFINITY;
  #pauseMs = firstPauseMs;

  /** Times are a monotonic clock's. */
  atOnce(calls: number, nowMs: number): boolean {
    return calls <= fewCalls && nowMs >= this.#notBefore;
  }

  /** To be told of each flush that was made at once. */
  took(ms: number, nowMs: number): void {
    if (ms <= slowMs) {
      this.#pauseMs = firstPauseMs;
      return;
    }
    this.#notBefore = nowMs + this.#pauseMs;
    this.#pauseMs = Math.min(2 * this.#pauseMs, longestPauseMs);
  }
}
