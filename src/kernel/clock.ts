/** Time comes in through this port, so that a simulation can own it. */
export interface Clock {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Milliseconds of a clock that never goes back; only differences mean anything. */
  monotonicMs(): number;
  /** Resolves after `ms`; rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason as Error);
        return;
      }
      const onAbort = (): void => {
        clearTimeout(timer);
        reject(signal?.reason as Error);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", onAbort);
        resolve();
      }, ms);
      signal?.addEventListener("abort", onAbort, { once: true });
    }),
};

/** Aborts after `ms` of the clock; `cancel` when it is not needed any more. Unlike `AbortSignal.timeout`, a simulation owns it. */
export function deadlineAfter(clock: Clock, ms: number): { readonly signal: AbortSignal; cancel(): void } {
  const deadline = new AbortController();
  const over = new AbortController();
  clock.sleep(ms, over.signal).then(
    () => deadline.abort(new Error(`no answer within ${ms} ms`)),
    // Cancelled: nothing is to be aborted any more.
    () => {},
  );
  return { signal: deadline.signal, cancel: () => over.abort() };
}
