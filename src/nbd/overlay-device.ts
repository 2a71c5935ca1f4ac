/**
 * A writable disk over one that is only read: a point of the vault that a guest runs on. Changes live in two sparse files of a
 * folder, `data` (the disk's own places) and `state` (which blocks count). They survive the death of the process at any moment, and
 * of the machine as far as they were flushed.
 *
 * Order that makes it so: data first, durable; only then the state that makes it count. A block that the state file does not know
 * reads as the base, whatever an unflushed write left in the data file.
 */
import { constants } from "node:fs";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, BlockReader, Extent, WriteOptions } from "#model/block-device.ts";
import { appendExtent, checkRange } from "./device-range.ts";
import type { DirtyExtent } from "./export-provider.ts";
import { FileIo, syncData } from "./file-io.ts";
import {
  BlockStates,
  blockState,
  decodeOverlayHeader,
  encodeOverlayHeader,
  overlayBlockBytes,
  stateHeaderBytes,
  statePageBytes,
} from "./overlay-state.ts";
import { RangeLock } from "./range-lock.ts";
import { SharedFlush } from "./shared-flush.ts";

export interface OverlayOptions {
  /** Made where it is missing. Used by one process at a time: that is the caller's to see to. */
  readonly folder: string;
  /** Not disposed by the overlay. */
  readonly base: BlockReader;
  /** Names the base for ever (a point's id): an overlay opens over the one it was made for only. */
  readonly baseId: string;
  /** Power of two from 512; for a new overlay. Default: 4096, more where that would mean more than 2^24 blocks. */
  readonly blockBytes?: number;
}

/** @throws OperationalError `vault.damaged`, or `state.conflict` where the overlay belongs to another base. */
export async function openOverlayDevice(options: OverlayOptions): Promise<OverlayDevice> {
  await mkdir(options.folder, { recursive: true, mode: 0o700 });
  const data = await openFile(join(options.folder, "data"));
  const state = await openFile(join(options.folder, "state")).catch(async (error: unknown) => {
    await data.close();
    throw error;
  });
  try {
    const { size } = await state.stat();
    const fresh = size < stateHeaderBytes;
    const header = fresh ? await initialize(options, data, state) : await readHeader(state);
    const { sizeBytes } = options.base;
    if (header.baseId !== options.baseId || header.sizeBytes !== sizeBytes)
      throw new OperationalError(
        "state.conflict",
        `the overlay in ${options.folder} was made for another disk`,
        {
          detail: `${header.baseId}, ${header.sizeBytes} bytes`,
        },
      );
    // Blocks behind the end of a shortened file would read as zeroes, and nobody would know.
    if ((await data.stat()).size < sizeBytes)
      throw new OperationalError(
        "vault.damaged",
        `the overlay's data file in ${options.folder} is too short`,
      );
    const bits = Buffer.alloc(Math.max(0, size - stateHeaderBytes));
    await new FileIo(state.fd).readInto(bits, stateHeaderBytes);
    const states = new BlockStates(Math.ceil(sizeBytes / header.blockBytes), bits);
    return new OverlayDevice({ data, state }, options.base, states, header.blockBytes);
  } catch (error) {
    await data.close();
    await state.close();
    throw error;
  }
}

function openFile(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
}

async function readHeader(state: FileHandle) {
  const bytes = Buffer.alloc(stateHeaderBytes);
  await new FileIo(state.fd).readInto(bytes, 0);
  return decodeOverlayHeader(bytes);
}

/** The header is durable, and the folder knows both files, before the first write can be. */
async function initialize(
  { folder, base, baseId, blockBytes }: OverlayOptions,
  data: FileHandle,
  state: FileHandle,
) {
  const { sizeBytes } = base;
  const header = { sizeBytes, blockBytes: blockBytes ?? overlayBlockBytes(sizeBytes), baseId };
  await data.truncate(sizeBytes);
  await data.sync();
  await new FileIo(state.fd).write(encodeOverlayHeader(header), 0);
  await state.sync();
  const directory = await open(folder);
  await directory.sync();
  await directory.close();
  return header;
}

export class OverlayDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly blockBytes: number;
  readonly #base: BlockReader;
  readonly #files: { readonly data: FileHandle; readonly state: FileHandle };
  readonly #data: FileIo;
  readonly #state: FileIo;
  readonly #states: BlockStates;
  readonly #lock = new RangeLock();
  readonly #flush = new SharedFlush(() => this.#makeDurable());

  constructor(
    files: { readonly data: FileHandle; readonly state: FileHandle },
    base: BlockReader,
    states: BlockStates,
    blockBytes: number,
  ) {
    this.sizeBytes = base.sizeBytes;
    this.blockBytes = blockBytes;
    this.#base = base;
    this.#files = files;
    this.#data = new FileIo(files.data.fd);
    this.#state = new FileIo(files.state.fd);
    this.#states = states;
  }

  /** Blocks that do not read from the base any more. Times `blockBytes`: bytes. */
  get changedBlocks(): number {
    return this.#states.count(1) + this.#states.count(2);
  }

  get blocks(): number {
    return this.#states.blocks;
  }

  async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    const target = Buffer.allocUnsafeSlow(length);
    await this.readInto(target, offset, signal);
    return target;
  }

  async readInto(target: Buffer, offset: number, signal?: AbortSignal): Promise<void> {
    checkRange(this.sizeBytes, offset, target.length);
    // A block may be written while the base is read: the newest state is asked for each run when it is its turn.
    for (let at = 0; at < target.length;) {
      const { state, length } = this.#run(offset + at, target.length - at);
      const part = target.subarray(at, at + length);
      if (state === blockState.data) await this.#data.readInto(part, offset + at);
      else if (state === blockState.zero) part.fill(0);
      else (await this.#base.read(offset + at, length, signal)).copy(part);
      at += length;
    }
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: Extent[] = [];
    for (let at = 0; at < length;) {
      const run = this.#run(offset + at, length - at);
      if (run.state === blockState.base)
        for (const extent of await this.#base.extents(offset + at, run.length, signal))
          appendExtent(extents, extent);
      else {
        const kind = run.state === blockState.data ? "data" : "hole";
        appendExtent(extents, { offset: offset + at, length: run.length, kind });
      }
      at += run.length;
    }
    return extents;
  }

  /** What differs, or may differ, from the base. */
  async changedExtents(offset: number, length: number): Promise<DirtyExtent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: DirtyExtent[] = [];
    for (let at = 0; at < length;) {
      const run = this.#run(offset + at, length - at);
      const dirty = run.state !== blockState.base;
      const last = extents.at(-1);
      if (last?.dirty === dirty) extents[extents.length - 1] = { ...last, length: last.length + run.length };
      else extents.push({ offset: offset + at, length: run.length, dirty });
      at += run.length;
    }
    return extents;
  }

  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, data.length);
    const put = (from: number, to: number): Promise<void> =>
      this.#data.write(data.subarray(from - offset, to - offset), from);
    await this.#change(offset, data.length, options, {
      whole: async (from, to) => {
        await put(from, to);
        this.#mark(from, to, blockState.data);
      },
      part: async (block, from, to) => {
        await this.#takeOver(block, block + 1, options?.signal);
        await put(from, to);
      },
    });
  }

  async zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, length);
    await this.#change(offset, length, options, {
      // Whole blocks cost two bits each. Node cannot punch holes: space that was taken stays taken.
      whole: async (from, to) => this.#mark(from, to, blockState.zero),
      part: async (block, from, to) => {
        if (this.#states.get(block) === blockState.zero) return;
        await this.#takeOver(block, block + 1, options?.signal);
        await this.#data.write(Buffer.alloc(to - from), from);
      },
    });
  }

  /** Whole blocks read as zeroes afterwards; parts of blocks stay as they are. */
  async trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    checkRange(this.sizeBytes, offset, length);
    const from = Math.ceil(offset / this.blockBytes) * this.blockBytes;
    const end = offset + length;
    const to = end === this.sizeBytes ? end : end - (end % this.blockBytes);
    if (to > from) await this.zero(from, to - from, options);
  }

  /**
   * Takes blocks of the range that still read from the base into the overlay, and leaves alone what was written. For a copy in the
   * background: the base is needed no longer for what it has covered. Returns the number of bytes taken over.
   */
  async copyUp(offset: number, length: number, signal?: AbortSignal): Promise<number> {
    checkRange(this.sizeBytes, offset, length);
    const last = Math.ceil((offset + length) / this.blockBytes);
    let taken = 0;
    let first = this.#states.firstBase(Math.floor(offset / this.blockBytes), last);
    while (first < last) {
      signal?.throwIfAborted();
      const end = this.#states.endOfRun(first, Math.min(last, first + this.#blocksOf(1024 * 1024)));
      const release = await this.#lock.acquire(first, end, true);
      try {
        taken += await this.#takeOver(first, end, signal);
      } finally {
        release();
      }
      first = this.#states.firstBase(end, last);
    }
    return taken;
  }

  flush(): Promise<void> {
    return this.#flush.flush();
  }

  /** Flushes, and closes its files. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.flush();
    } finally {
      await this.#files.data.close();
      await this.#files.state.close();
    }
  }

  // --- inside

  #blocksOf(bytes: number): number {
    return Math.max(1, Math.floor(bytes / this.blockBytes));
  }

  /** The stretch from `offset` on whose blocks are in one state, at most `most` bytes. */
  #run(offset: number, most: number): { state: number; length: number } {
    const first = Math.floor(offset / this.blockBytes);
    const state = this.#states.get(first);
    const end = this.#states.endOfRun(first, Math.ceil((offset + most) / this.blockBytes));
    return { state, length: Math.min(end * this.blockBytes - offset, most) };
  }

  #mark(from: number, to: number, state: number): void {
    const last = Math.ceil(to / this.blockBytes);
    for (let block = Math.floor(from / this.blockBytes); block < last; block += 1)
      this.#states.set(block, state);
  }

  /**
   * Divides a change into whole blocks and parts of one. A part is changed with nobody else at its block, for what the block holds
   * besides must be kept: the file always has whole blocks.
   */
  async #change(
    offset: number,
    length: number,
    options: WriteOptions | undefined,
    change: {
      whole(from: number, to: number): Promise<void>;
      part(block: number, from: number, to: number): Promise<void>;
    },
  ): Promise<void> {
    const { blockBytes } = this;
    const end = offset + length;
    const wholeFrom = Math.min(Math.ceil(offset / blockBytes) * blockBytes, end);
    // The disk's last block is whole where the disk ends.
    const wholeTo = end === this.sizeBytes ? end : Math.max(end - (end % blockBytes), wholeFrom);
    const isWhole = wholeFrom === offset && wholeTo === end;
    const first = Math.floor(offset / blockBytes);
    const release = await this.#lock.acquire(first, Math.ceil(end / blockBytes), !isWhole);
    try {
      if (offset < wholeFrom) await change.part(first, offset, wholeFrom);
      if (wholeFrom < wholeTo) await change.whole(wholeFrom, wholeTo);
      if (wholeTo < end) await change.part(Math.floor(wholeTo / blockBytes), wholeTo, end);
    } finally {
      release();
    }
    if (options?.fua === true) await this.#flush.flush();
  }

  /** Blocks of the base become blocks of the overlay; blocks that read as zeroes get their zeroes written. Locks are held. */
  async #takeOver(first: number, end: number, signal: AbortSignal | undefined): Promise<number> {
    let taken = 0;
    for (let block = first; block < end;) {
      const state = this.#states.get(block);
      const next = this.#states.endOfRun(block, end);
      if (state !== blockState.data) {
        const from = block * this.blockBytes;
        const to = Math.min(next * this.blockBytes, this.sizeBytes);
        const zero = state === blockState.zero;
        const bytes = zero ? Buffer.alloc(to - from) : await this.#base.read(from, to - from, signal);
        await this.#data.write(bytes, from);
        this.#mark(from, to, blockState.data);
        taken += to - from;
      }
      block = next;
    }
    return taken;
  }

  /** The states are taken before the data is synced: a write that comes meanwhile counts at the next flush, not at this one. */
  async #makeDurable(): Promise<void> {
    const pages = this.#states.takeDirtyPages();
    await syncData(this.#files.data.fd);
    if (pages.length === 0) return;
    for (const { page, bytes } of pages)
      await this.#state.write(bytes, stateHeaderBytes + page * statePageBytes);
    await syncData(this.#files.state.fd);
  }
}
