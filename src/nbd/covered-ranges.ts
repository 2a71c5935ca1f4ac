/** Ranges that were filled, without overlaps. Servers send them in order as a rule: then there is one. */
export class CoveredRanges {
  /** Sorted, apart from each other. */
  readonly #ranges: { from: number; to: number }[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** How many there are that do not touch each other. */
  get pieces(): number {
    return this.#ranges.length;
  }

  /** Adds `from` up to and without `to`; false, and nothing added, where a part of it is there already. */
  add(from: number, to: number): boolean {
    if (from === to) return true;
    const ranges = this.#ranges;
    const index = this.#firstFrom(to);
    const before = ranges[index - 1];
    const after = ranges[index];
    if (before !== undefined && before.to > from) return false;
    this.#bytes += to - from;
    if (before?.to === from) {
      before.to = to;
      if (after?.from === to) {
        before.to = after.to;
        ranges.splice(index, 1);
      }
    } else if (after?.from === to) after.from = from;
    else ranges.splice(index, 0, { from, to });
    return true;
  }

  /** The index of the first range that begins at `place` or behind it. */
  #firstFrom(place: number): number {
    let [low, high] = [0, this.#ranges.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#ranges[middle]?.from ?? 0) >= place) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
