interface Held {
  readonly from: number;
  readonly to: number;
  readonly exclusive: boolean;
  readonly done: Promise<void>;
}

/**
 * Keeps apart what may not run at once over one range: an exclusive holder (one that reads, changes and writes back) is alone, shared
 * holders (that replace whole blocks) go side by side. Ranges are `from` up to and without `to`, in units of the caller.
 */
export class RangeLock {
  readonly #held = new Set<Held>();

  /** Resolves to the release, which must be called once. */
  async acquire(from: number, to: number, exclusive: boolean): Promise<() => void> {
    for (let other = this.#conflict(from, to, exclusive); other !== undefined;) {
      await other.done;
      other = this.#conflict(from, to, exclusive);
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const held: Held = { from, to, exclusive, done: promise };
    this.#held.add(held);
    return () => {
      this.#held.delete(held);
      resolve();
    };
  }

  #conflict(from: number, to: number, exclusive: boolean): Held | undefined {
    for (const held of this.#held)
      if (held.from < to && from < held.to && (held.exclusive || exclusive)) return held;
    return undefined;
  }
}
