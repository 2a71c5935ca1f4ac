/** A disk that is a file or a block device of this machine. */
import { constants } from "node:fs";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { basename } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import { appendExtent, checkRange } from "./device-range.ts";
import { FileIo, syncData } from "./file-io.ts";
import { SharedFlush } from "./shared-flush.ts";

export interface FileDeviceOptions {
  readonly path: string;
  readonly writable: boolean;
  /** Makes the file, sparse and of this size. It must not be there yet. */
  readonly createBytes?: number;
}

const pieceBytes = 1024 * 1024;
/** Zeroes are told from data in units of this size. */
const grainBytes = 64 * 1024;
const zeroes = Buffer.alloc(pieceBytes);

/**
 * Node offers neither hole search nor hole punching: `extents` reads what it is asked about and says `zero` for what is empty,
 * `zero` writes (but leaves alone what is zero already), `trim` does nothing.
 * @throws OperationalError `not_found`, `state.conflict` (the file to make is there), `disk.failing`.
 */
export async function openFileDevice(options: FileDeviceOptions): Promise<FileDevice> {
  const create = options.createBytes === undefined ? 0 : constants.O_CREAT | constants.O_EXCL;
  const access = options.writable ? constants.O_RDWR : constants.O_RDONLY;
  const file = await open(options.path, access | create, 0o600).catch((error: NodeJS.ErrnoException) => {
    const code =
      error.code === "ENOENT" ? "not_found" : error.code === "EEXIST" ? "state.conflict" : "disk.failing";
    throw new OperationalError(code, `cannot open the disk ${options.path}: ${error.message}`, {
      cause: error,
    });
  });
  try {
    if (options.createBytes !== undefined) await file.truncate(options.createBytes);
    return new FileDevice(file, await sizeOf(file, options.path));
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** A block device's size is not in its `stat`; the kernel says it in units of 512 bytes. */
async function sizeOf(file: FileHandle, path: string): Promise<number> {
  const stat = await file.stat();
  if (!stat.isBlockDevice()) return stat.size;
  return Number(await readFile(`/sys/class/block/${basename(path)}/size`, "utf8")) * 512;
}

export class FileDevice implements BlockDevice {
  readonly sizeBytes: number;
  readonly #file: FileHandle;
  readonly #io: FileIo;
  readonly #flush: SharedFlush;

  constructor(file: FileHandle, sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    this.#file = file;
    this.#io = new FileIo(file.fd);
    this.#flush = new SharedFlush(() => syncData(file.fd));
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const target = Buffer.allocUnsafeSlow(length);
    await this.readInto(target, offset);
    return target;
  }

  async readInto(target: Buffer, offset: number): Promise<void> {
    checkRange(this.sizeBytes, offset, target.length);
    await this.#io.readInto(target, offset);
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: Extent[] = [];
    const piece = Buffer.allocUnsafe(Math.min(pieceBytes, length));
    for (let at = 0; at < length; at += pieceBytes) {
      signal?.throwIfAborted();
      const target = piece.subarray(0, Math.min(pieceBytes, length - at));
      await this.#io.readInto(target, offset + at);
      for (let from = 0; from < target.length; from += grainBytes) {
        const grain = target.subarray(from, from + grainBytes);
        const kind = isZero(grain) ? "zero" : "data";
        appendExtent(extents, { offset: offset + at + from, length: grain.length, kind });
      }
    }
    return extents;
  }

  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, data.length);
    await this.#io.write(data, offset);
    if (options?.fua === true) await this.#flush.flush();
  }

  async zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    checkRange(this.sizeBytes, offset, length);
    const present = Buffer.allocUnsafe(Math.min(pieceBytes, length));
    for (let at = 0; at < length; at += pieceBytes) {
      options?.signal?.throwIfAborted();
      const piece = zeroes.subarray(0, Math.min(pieceBytes, length - at));
      // Reading costs less than writing, and leaves a hole a hole. Who wants the space held gets it written.
      if (options?.keepSpace !== true) {
        const target = present.subarray(0, piece.length);
        await this.#io.readInto(target, offset + at);
        if (isZero(target)) continue;
      }
      await this.#io.write(piece, offset + at);
    }
    if (options?.fua === true) await this.#flush.flush();
  }

  async trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    options?.signal?.throwIfAborted();
    checkRange(this.sizeBytes, offset, length);
  }

  flush(): Promise<void> {
    return this.#flush.flush();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

export function isZero(bytes: Uint8Array): boolean {
  for (let at = 0; at < bytes.length; at += zeroes.length) {
    const piece = bytes.subarray(at, at + zeroes.length);
    if (Buffer.compare(piece, zeroes.subarray(0, piece.length)) !== 0) return false;
  }
  return true;
}
