import type { Clock } from "#kernel/clock.ts";

interface Sleeper {
  readonly at: number;
  readonly order: number;
  readonly wake: () => void;
}

export interface VirtualClock extends Clock {
  /** Runs `work` to its end, moving time on to the next sleeper whenever nothing else is left to do. */
  drive<T>(work: Promise<T>): Promise<T>;
}

/** Lets everything run that is not waiting for time: promises, and a store that commits on the event loop. */
function quiesce(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => setImmediate(resolve));
  });
}

/** Time that passes only when everyone sleeps. Work that waits for anything but this clock must end by itself. */
export function createVirtualClock(start = 1_700_000_000_000): VirtualClock {
  let now = 0;
  let order = 0;
  const sleepers: Sleeper[] = [];
  const insert = (sleeper: Sleeper): void => {
    let [low, high] = [0, sleepers.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = sleepers[middle];
      const later =
        other !== undefined &&
        (other.at > sleeper.at || (other.at === sleeper.at && other.order > sleeper.order));
      if (later) low = middle + 1;
      else high = middle;
    }
    // Latest first, so that the next one is popped off the end.
    sleepers.splice(low, 0, sleeper);
  };
  return {
    now: () => start + now,
    monotonicMs: () => now,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason as Error);
          return;
        }
        const onAbort = (): void => {
          const at = sleepers.indexOf(sleeper);
          if (at >= 0) sleepers.splice(at, 1);
          reject(signal?.reason as Error);
        };
        order += 1;
        const sleeper: Sleeper = {
          at: now + Math.max(0, ms),
          order,
          wake: () => {
            signal?.removeEventListener("abort", onAbort);
            resolve();
          },
        };
        signal?.addEventListener("abort", onAbort, { once: true });
        insert(sleeper);
      }),
    async drive(work) {
      let over = false;
      const watched = work.finally(() => {
        over = true;
      });
      watched.catch(() => {});
      for (;;) {
        await quiesce();
        if (over) return watched;
        const next = sleepers.pop();
        if (next === undefined) continue;
        now = Math.max(now, next.at);
        next.wake();
      }
    },
  };
}
