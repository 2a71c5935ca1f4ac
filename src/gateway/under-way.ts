/** Commands that the cloud may be working on, by operation: from being forwarded until the outcome is recorded. */
export class UnderWay {
  readonly #running = new Map<string, Set<Promise<unknown>>>();

  track<T>(operation: string, work: Promise<T>): Promise<T> {
    const running = this.#running.get(operation) ?? new Set();
    this.#running.set(operation, running);
    const tracked = work.finally(() => {
      running.delete(tracked);
      if (running.size === 0) this.#running.delete(operation);
    });
    running.add(tracked);
    return tracked;
  }

  /** Resolves when those under way now have ended, well or not. */
  async settled(operation: string): Promise<void> {
    await Promise.allSettled(this.#running.get(operation) ?? new Set());
  }
}
