/**
 * The order of a volume's writes over all connections that bring them: where two overlap, the one that came first lands first. A host that
 * gives up a connection and begins another sends the newer content by that, while the older may still wait for the store here.
 */
interface Write {
  readonly from: number;
  readonly to: number;
  readonly over: Promise<void>;
}

export class WriteOrder {
  readonly #underWay = new Set<Write>();

  /** Its place is that of the call; `work` runs when no earlier one that overlaps is under way. */
  async run(offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const [from, to] = [offset, offset + length];
    const before: Promise<void>[] = [];
    for (const write of this.#underWay) if (write.from < to && from < write.to) before.push(write.over);
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const write = { from, to, over };
    this.#underWay.add(write);
    try {
      if (before.length > 0) await Promise.all(before);
      await work();
    } finally {
      this.#underWay.delete(write);
      resolve();
    }
  }
}
