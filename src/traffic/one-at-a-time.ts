/**
 * Runs work in the order of its calls, one piece after the other: an older epoch's change that is still under way
 * must not land after a newer one's.
 */
export interface OneAtATime {
  run<T>(work: () => Promise<T>): Promise<T>;
  /** Resolves when nothing is under way or waiting. */
  idle(): Promise<void>;
}

export function oneAtATime(): OneAtATime {
  let tail: Promise<unknown> = Promise.resolve();
  return {
    run(work) {
      const turn = tail.then(work);
      // The next turn comes whether or not this one failed; its own caller has the error.
      tail = turn.catch(() => undefined);
      return turn;
    },
    async idle() {
      await tail;
    },
  };
}
