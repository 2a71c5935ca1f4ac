/** Work under one key happens one after the other, whatever became of the work before. */
export type OneAtATime = <T>(
  key: string,
  signal: AbortSignal,
  work: (first: boolean) => Promise<T>,
) => Promise<T>;

/** Its failure is told to its own caller, not to the one that waits here. */
function settledOrAborted(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    const onSettled = (): void => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    work.then(onSettled, onSettled);
  });
}

/** `first` tells whether no work under the key came before, as far as it was still held. */
export function oneAtATime(): OneAtATime {
  const tails = new Map<string, Promise<unknown>>();
  return async (key, signal, work) => {
    signal.throwIfAborted();
    const before = tails.get(key);
    const run = (async () => {
      if (before !== undefined) await settledOrAborted(before, signal);
      return work(before === undefined);
    })();
    tails.set(key, run);
    try {
      return await run;
    } finally {
      if (tails.get(key) === run) tails.delete(key);
    }
  };
}
