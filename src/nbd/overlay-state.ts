/**
 * What an overlay knows of each of its blocks, in memory and on disk. Two bits for a block. The file is a header of 4096 bytes and
 * the bits; a bit pattern says something about data in another file, so it is written only after that data is durable.
 */
import { OperationalError } from "#kernel/errors.ts";

/** `base`: as below. `data`: in the overlay's file. `zero`: reads as zeroes, whatever the file holds. 3 is not used. */
export const blockState = { base: 0, data: 1, zero: 2 } as const;

export const stateHeaderBytes = 4096;
/** Written and compared as one unit; also the unit in which changes of the bits reach the file. */
export const statePageBytes = 4096;
const magic = "UNDERSTUDY OVERLAY 1\n";

export interface OverlayHeader {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Names what lies below; an overlay is worthless over anything else. */
  readonly baseId: string;
}

export function encodeOverlayHeader(header: OverlayHeader): Buffer {
  const bytes = Buffer.alloc(stateHeaderBytes, "\n");
  bytes.write(magic + JSON.stringify(header), "utf8");
  return bytes;
}

/** @throws OperationalError `vault.damaged` where the bytes are no such header. */
export function decodeOverlayHeader(bytes: Buffer): OverlayHeader {
  const damaged = (cause?: unknown): OperationalError =>
    new OperationalError("vault.damaged", "the overlay's state file has no valid header", { cause });
  const text = bytes.toString("utf8");
  if (bytes.length < stateHeaderBytes || !text.startsWith(magic)) throw damaged();
  let header: Partial<OverlayHeader> | null;
  try {
    header = JSON.parse(text.slice(magic.length)) as Partial<OverlayHeader> | null;
  } catch (error) {
    throw damaged(error);
  }
  const { sizeBytes, blockBytes, baseId } = header ?? {};
  const valid =
    Number.isSafeInteger(sizeBytes) && Number.isSafeInteger(blockBytes) && typeof baseId === "string";
  if (!valid || sizeBytes === undefined || blockBytes === undefined || baseId === undefined) throw damaged();
  return { sizeBytes, blockBytes, baseId };
}

/** At most 2^24 blocks, so that the bits of a disk of any size take 4 MiB; 4 KiB at least. */
export function overlayBlockBytes(sizeBytes: number): number {
  let blockBytes = 4096;
  while (sizeBytes / blockBytes > 2 ** 24) blockBytes *= 2;
  return blockBytes;
}

/** By byte of four blocks: how many of them are in each state; undefined for a byte with a pattern that is no state. */
const countsOfByte = Array.from({ length: 256 }, (_, byte) => {
  const counts = [0, 0, 0, 0];
  for (let shift = 0; shift < 8; shift += 2)
    counts[(byte >>> shift) & 3] = (counts[(byte >>> shift) & 3] ?? 0) + 1;
  return counts[3] === 0 ? counts : undefined;
});

/** A byte whose four blocks are all in one state. */
const uniformByte = [0x00, 0x55, 0xaa] as const;

export class BlockStates {
  readonly blocks: number;
  readonly #bits: Uint8Array;
  readonly #dirtyPages = new Set<number>();
  readonly #counts = [0, 0, 0];

  /** `bits` as read from the file; missing ones mean `base`. @throws OperationalError `vault.damaged` for a pattern that is none. */
  constructor(blocks: number, bits: Uint8Array = new Uint8Array()) {
    this.blocks = blocks;
    const bytes = Math.ceil(blocks / 4);
    this.#bits = new Uint8Array(Math.ceil(bytes / statePageBytes) * statePageBytes);
    this.#bits.set(bits.subarray(0, bytes));
    for (let at = 0; at < bytes; at += 1) {
      const counts = countsOfByte[this.#bits[at] ?? 0];
      if (counts === undefined)
        throw new OperationalError(
          "vault.damaged",
          `the overlay's state of block ${at * 4} or the next three is none`,
        );
      for (const state of [0, 1, 2]) this.#count(state, counts[state] ?? 0);
    }
    // The last byte's places behind the last block are counted as `base` and are none.
    this.#count(blockState.base, blocks - bytes * 4);
  }

  get(block: number): number {
    return ((this.#bits[block >>> 2] ?? 0) >>> ((block & 3) * 2)) & 3;
  }

  set(block: number, state: number): void {
    const before = this.get(block);
    if (before === state) return;
    const shift = (block & 3) * 2;
    const byte = block >>> 2;
    this.#bits[byte] = ((this.#bits[byte] ?? 0) & ~(3 << shift)) | (state << shift);
    this.#dirtyPages.add(Math.floor(byte / statePageBytes));
    this.#count(before, -1);
    this.#count(state, 1);
  }

  count(state: number): number {
    return this.#counts[state] ?? 0;
  }

  /** The first block from `from` on that is in another state than that one; `to` when all before it are alike. */
  endOfRun(from: number, to: number): number {
    const state = this.get(from);
    const uniform = uniformByte[state as 0 | 1 | 2];
    let block = from + 1;
    while (block < to) {
      if ((block & 3) === 0 && this.#bits[block >>> 2] === uniform) block += 4;
      else if (this.get(block) === state) block += 1;
      else return block;
    }
    return to;
  }

  /** The first block from `from` on that reads from the base; `to` when there is none before it. */
  firstBase(from: number, to: number): number {
    let block = from;
    while (block < to) {
      const byte = this.#bits[block >>> 2] ?? 0;
      // No pair of bits is 00: none of the four.
      if ((block & 3) === 0 && ((byte | (byte >>> 1)) & 0x55) === 0x55) block += 4;
      else if (this.get(block) === blockState.base) return block;
      else block += 1;
    }
    return to;
  }

  /** Copies of the pages that changed since the last call, with their numbers. They are the caller's to write. */
  takeDirtyPages(): { readonly page: number; readonly bytes: Buffer }[] {
    const pages = [...this.#dirtyPages].sort((a, b) => a - b);
    this.#dirtyPages.clear();
    return pages.map((page) => {
      const at = page * statePageBytes;
      return { page, bytes: Buffer.from(this.#bits.slice(at, at + statePageBytes)) };
    });
  }

  #count(state: number, by: number): void {
    this.#counts[state] = (this.#counts[state] ?? 0) + by;
  }
}
