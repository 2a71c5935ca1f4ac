/** How many calls of each operation came, and what became of them. */
export interface CallCount {
  calls: number;
  succeeded: number;
  refused: number;
  failed: number;
  throttled: number;
  faulted: number;
}

/** Operations are named by the dialect, so their number is bounded; this bounds a dialect's mistake. */
const MAX_OPERATIONS = 2000;

export class CallCounters {
  readonly #counts = new Map<string, CallCount>();

  of(operation: string): CallCount {
    const name = this.#counts.has(operation) || this.#counts.size < MAX_OPERATIONS ? operation : "(others)";
    let count = this.#counts.get(name);
    if (count === undefined) {
      count = { calls: 0, succeeded: 0, refused: 0, failed: 0, throttled: 0, faulted: 0 };
      this.#counts.set(name, count);
    }
    return count;
  }

  list(): Record<string, CallCount> {
    return Object.fromEntries([...this.#counts].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  clear(): void {
    this.#counts.clear();
  }
}
