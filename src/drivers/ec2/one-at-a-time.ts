/** Work under one key happens one after the other, whatever became of the work before. */
export type OneAtATime = <T>(
  key: string,
  signal: AbortSignal,
  work: (first: boolean) => Promise<T>,
) => Promise<T>;

/** `first` tells whether no work under the key came before, as far as it was still held. */
export function oneAtATime(): OneAtATime {
  const tails = new Map<string, Promise<unknown>>();
  return async (key, signal, work) => {
    signal.throwIfAborted();
    const before = tails.get(key);
    const run = (async () => {
      // Its failure is told to its own caller.
      await before?.catch(() => undefined);
      signal.throwIfAborted();
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
