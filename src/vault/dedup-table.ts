import { invariant } from "#kernel/invariant.ts";
import { ID_BYTES } from "./block-ref.ts";

/**
 * Which blobs the vault holds, and where: a hash table with linear probing in shared memory, so that all threads look up and
 * enter without messages. 32 bytes a slot. A slot, once entered, does not change; its pack number is published last.
 */
const SLOT_WORDS = 8;
const [PACK, OFFSET, STORED] = [5, 6, 7];
const HEAD_WORDS = 16;
const [COUNT, NEXT_PACK] = [0, 1];
const EMPTY = 0;
const BEING_ENTERED = -1;

/** Beyond this share of slots probing gets long; the table must grow, or takes no more. */
const FULLEST = 0.7;

export interface Place {
  /** Number of the pack within this process; see `PackNumbers`. */
  readonly pack: number;
  readonly offset: number;
  readonly storedLength: number;
  readonly codec: number;
}

export class DedupTable {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #mask: number;
  readonly #slots: number;

  /** Over memory made by `make`, in this or another thread. */
  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
    this.#slots = (this.#words.length - HEAD_WORDS) / SLOT_WORDS;
    invariant(Number.isInteger(Math.log2(this.#slots)), "the table's slots are a power of two");
    this.#mask = this.#slots - 1;
  }

  static make(slots: number): DedupTable {
    return new DedupTable(new SharedArrayBuffer((HEAD_WORDS + slots * SLOT_WORDS) * 4));
  }

  get slots(): number {
    return this.#slots;
  }

  get count(): number {
    return Atomics.load(this.#words, COUNT);
  }

  get isFull(): boolean {
    return this.count >= this.#slots * FULLEST;
  }

  /** Every pack that is begun takes the next number, in whatever thread. */
  takePackNumber(): number {
    return Atomics.add(this.#words, NEXT_PACK, 1);
  }

  get nextPackNumber(): number {
    return Atomics.load(this.#words, NEXT_PACK);
  }

  set nextPackNumber(number: number) {
    Atomics.store(this.#words, NEXT_PACK, number);
  }

  find(id: Buffer): Place | undefined {
    const words = this.#words;
    for (let slot = id.readInt32LE(0) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = HEAD_WORDS + slot * SLOT_WORDS;
      const pack = Atomics.load(words, at + PACK);
      if (pack === EMPTY) return undefined;
      // One that another thread enters at this moment is missed: the blob is then stored twice, which harms nobody.
      if (pack === BEING_ENTERED || !this.#holds(at, id)) continue;
      const stored = words[at + STORED] as number;
      return {
        pack: pack - 1,
        offset: words[at + OFFSET] as number,
        storedLength: stored & 0xff_ffff,
        codec: stored >>> 28,
      };
    }
  }

  /** False if the table is full, or holds the id already. */
  enter(id: Buffer, place: Place): boolean {
    if (this.isFull) return false;
    const words = this.#words;
    for (let slot = id.readInt32LE(0) & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = HEAD_WORDS + slot * SLOT_WORDS;
      const seen = Atomics.compareExchange(words, at + PACK, EMPTY, BEING_ENTERED);
      if (seen === EMPTY) {
        for (let word = 0; word < ID_BYTES / 4; word += 1) words[at + word] = id.readInt32LE(word * 4);
        words[at + OFFSET] = place.offset;
        words[at + STORED] = place.storedLength | (place.codec << 28);
        Atomics.store(words, at + PACK, place.pack + 1);
        Atomics.add(words, COUNT, 1);
        return true;
      }
      if (seen !== BEING_ENTERED && this.#holds(at, id)) return false;
    }
  }

  /** A copy with more room. No other thread may enter meanwhile. */
  grown(slots: number): DedupTable {
    const larger = DedupTable.make(slots);
    const id = Buffer.alloc(ID_BYTES);
    for (let slot = 0; slot < this.#slots; slot += 1) {
      const at = HEAD_WORDS + slot * SLOT_WORDS;
      const pack = this.#words[at + PACK] as number;
      if (pack === EMPTY) continue;
      for (let word = 0; word < ID_BYTES / 4; word += 1)
        id.writeInt32LE(this.#words[at + word] as number, word * 4);
      const stored = this.#words[at + STORED] as number;
      const offset = this.#words[at + OFFSET] as number;
      larger.enter(id, { pack: pack - 1, offset, storedLength: stored & 0xff_ffff, codec: stored >>> 28 });
    }
    larger.nextPackNumber = this.nextPackNumber;
    return larger;
  }

  #holds(at: number, id: Buffer): boolean {
    for (let word = 0; word < ID_BYTES / 4; word += 1)
      if (this.#words[at + word] !== id.readInt32LE(word * 4)) return false;
    return true;
  }
}
