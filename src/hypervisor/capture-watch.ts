/** Whether a capture's jobs move, from what QEMU says of them. Pure. */

/** One job of `query-block-jobs`. */
export interface JobSample {
  /** Bytes done. */
  readonly offset: number;
  /** Bytes done, in flight and still to be done: a mirror counts a guest's write here before it goes to the target. */
  readonly length: number;
}

/** Since when a job has had something to do and got none of it done; null: it moves, or has nothing to do. */
export interface JobWatch {
  readonly offset: number;
  readonly stuckSince: number | null;
}

/** `now` in milliseconds of a clock that never goes back. */
export function watchJob(before: JobWatch | null, sample: JobSample, now: number): JobWatch {
  const waits = sample.length > sample.offset;
  if (!waits) return { offset: sample.offset, stuckSince: null };
  // Seen waiting for the first time, it may have begun to wait at any moment since the sample before; that is the caller's
  // margin. After progress, what waits now began to wait at the earliest then.
  const stuckSince = before?.offset === sample.offset ? (before.stuckSince ?? now) : now;
  return { offset: sample.offset, stuckSince };
}

export function stuckForMs(watch: JobWatch, now: number): number {
  return watch.stuckSince === null ? 0 : now - watch.stuckSince;
}

/**
 * How often to look, and how long a job may be seen stuck, so that a write is let go within the limit: it may have begun to
 * wait just after a look, and what lets it go takes a moment itself.
 */
export function planWatch(stallLimitMs: number): { readonly everyMs: number; readonly stuckMs: number } {
  const everyMs = Math.max(10, Math.min(200, stallLimitMs / 8));
  return { everyMs, stuckMs: Math.max(everyMs, stallLimitMs * 0.7 - everyMs) };
}
