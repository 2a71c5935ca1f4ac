/** A sparse disk in memory: for tests and for scratch. Holds only the pages that were written. */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import { appendExtent, checkRange } from "./device-range.ts";

const pageBytes = 64 * 1024;

export interface MemoryDeviceOptions {
  readonly sizeBytes: number;
  /** Writes that would hold more than this fail with `store.full`. Default: no limit. */
  readonly maxHeldBytes?: number;
}

export class MemoryDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly #maxPages: number;
  readonly #pages = new Map<number, Buffer>();

  constructor(options: MemoryDeviceOptions) {
    this.sizeBytes = options.sizeBytes;
    this.#maxPages = Math.floor((options.maxHeldBytes ?? Infinity) / pageBytes);
  }

  get heldBytes(): number {
    return this.#pages.size * pageBytes;
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const target = Buffer.allocUnsafe(length);
    await this.readInto(target, offset);
    return target;
  }

  async readInto(target: Buffer, offset: number): Promise<void> {
    checkRange(this.sizeBytes, offset, target.length);
    this.#eachPage(offset, target.length, (index, from, to, at) => {
      const page = this.#pages.get(index);
      if (page === undefined) target.fill(0, at, at + to - from);
      else page.copy(target, at, from, to);
    });
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: Extent[] = [];
    this.#eachPage(offset, length, (index, from, to, at) => {
      const kind = this.#pages.has(index) ? "data" : "hole";
      appendExtent(extents, { offset: offset + at, length: to - from, kind });
    });
    return extents;
  }

  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, data.length);
    this.#eachPage(offset, data.length, (index, from, to, at) => {
      let page = this.#pages.get(index);
      if (page === undefined) {
        if (this.#pages.size >= this.#maxPages)
          throw new OperationalError("store.full", "the disk in memory holds as much as it may");
        page = Buffer.alloc(pageBytes);
        this.#pages.set(index, page);
      }
      page.set(data.subarray(at, at + to - from), from);
    });
  }

  async zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, length);
    this.#eachPage(offset, length, (index, from, to) => {
      const whole = from === 0 && to === pageBytes;
      if (whole && options?.keepSpace !== true) this.#pages.delete(index);
      else this.#pages.get(index)?.fill(0, from, to);
    });
  }

  trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.zero(offset, length, options);
  }

  async flush(): Promise<void> {}

  async [Symbol.asyncDispose](): Promise<void> {
    this.#pages.clear();
  }

  /** Calls with a page's number, the range within it, and the range's place within the whole. */
  #eachPage(
    offset: number,
    length: number,
    each: (index: number, from: number, to: number, at: number) => void,
  ): void {
    let at = 0;
    while (at < length) {
      const index = Math.floor((offset + at) / pageBytes);
      const from = (offset + at) % pageBytes;
      const to = Math.min(pageBytes, from + length - at);
      each(index, from, to, at);
      at += to - from;
    }
  }
}
