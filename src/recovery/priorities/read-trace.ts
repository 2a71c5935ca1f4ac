/** What a machine read of its disk, in the order in which it wanted it. Pure. */

/** A vault's block: less is never fetched. */
export const REGION_BYTES = 256 * 1024;
/** 256 MiB of a disk: what a start reads of a usual one, and what may be held for one recovery. */
export const MOST_REGIONS = 1024;

/** From this length on, a read may be a piece of a whole copy: QEMU's block-stream asks for 512 KiB, guests for less. */
const COPY_READ_BYTES = 256 * 1024;

export class ReadTrace {
  readonly #regions = new Set<number>();
  /** Where a copy in plain order that reads along would go on. */
  #frontier = 0;

  /** A background copy's own reads are no wish of the machine's, and are left out: large, each behind the one before. */
  note(offset: number, length: number): void {
    if (length >= COPY_READ_BYTES && offset >= this.#frontier) {
      this.#frontier = offset + length;
      return;
    }
    const last = Math.floor((offset + Math.max(1, length) - 1) / REGION_BYTES);
    for (let region = Math.floor(offset / REGION_BYTES); region <= last; region += 1) {
      if (this.#regions.size >= MOST_REGIONS) return;
      this.#regions.add(region);
    }
  }

  /** First wanted, first named. */
  get regions(): readonly number[] {
    return [...this.#regions];
  }
}
