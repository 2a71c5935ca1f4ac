/** Blocks of a disk that were written to: a bit for each. */
import { passBlockBytes } from "#wire/agent/pass-part.ts";

export class DirtyBlocks {
  readonly #bits: Uint8Array;
  #count = 0;

  constructor(sizeBytes: number) {
    this.#bits = new Uint8Array(Math.ceil(Math.ceil(sizeBytes / passBlockBytes) / 8));
  }

  /** In bytes of whole blocks. */
  get bytes(): number {
    return this.#count * passBlockBytes;
  }

  /** What lies beyond the disk's end is nobody's. */
  add(offset: number, length: number): void {
    const end = Math.min(Math.ceil((offset + length) / passBlockBytes), this.#bits.length * 8);
    for (let block = Math.floor(offset / passBlockBytes); block < end; block += 1) {
      const bit = 1 << (block & 7);
      const byte = this.#bits[block >> 3] ?? 0;
      if ((byte & bit) !== 0) continue;
      this.#bits[block >> 3] = byte | bit;
      this.#count += 1;
    }
  }

  addAll(other: DirtyBlocks): void {
    this.#count = 0;
    for (const [at, byte] of this.#bits.entries()) {
      const both = byte | (other.#bits[at] ?? 0);
      this.#bits[at] = both;
      for (let rest = both; rest !== 0; rest &= rest - 1) this.#count += 1;
    }
  }

  /** From the first block to the last one within `length` bytes from `offset`, a multiple of the block; undefined: none. */
  spanIn(offset: number, length: number): { readonly from: number; readonly end: number } | undefined {
    const first = offset / passBlockBytes;
    const last = Math.ceil((offset + length) / passBlockBytes);
    let from: number | undefined;
    let end = 0;
    for (let block = first; block < last; block += 1) {
      if (((this.#bits[block >> 3] ?? 0) & (1 << (block & 7))) === 0) continue;
      from ??= block * passBlockBytes;
      end = (block + 1) * passBlockBytes;
    }
    return from === undefined ? undefined : { from, end: Math.min(end, offset + length) };
  }
}
