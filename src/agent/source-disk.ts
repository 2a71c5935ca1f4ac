/** A disk of this machine as an agent reads it: read-only, and as it is on the medium. */
import { constants } from "node:fs";
import { type FileHandle, open, readFile } from "node:fs/promises";
import { OperationalError } from "#kernel/errors.ts";

/** Of one read. */
export const readChunkBytes = 4 * 1024 * 1024;
/** Direct reads want memory, offset and length in multiples of the medium's block; 4096 is one of every block in use. */
const alignment = 4096;

export interface SourceDisk extends AsyncDisposable {
  readonly sizeBytes: number;
  /** At most `readChunkBytes`, from a multiple of 4096. The buffer is overwritten by the next read. */
  read(offset: number, length: number): Promise<Buffer>;
  /**
   * Another text once the disk was written to. The same text proves nothing: it is what the kernel counts (of a block device its
   * writes and discards, of a file its times), and that can be told too late, or switched off.
   */
  activity(): Promise<string>;
}

/** The part of it that is used here; Node's types leave it to the browser's. */
declare const WebAssembly: {
  readonly Memory: new (size: { initial: number; maximum: number }) => { readonly buffer: ArrayBuffer };
};

/** Memory for direct reads. Only that of WebAssembly is aligned to pages in Node. */
export function createReadBuffer(): Buffer {
  const pages = readChunkBytes / 65_536;
  return Buffer.from(new WebAssembly.Memory({ initial: pages, maximum: pages }).buffer);
}

/**
 * A block device, or a file that is a disk. Reads go past the page cache: what a mounted file system has written lies in another part of
 * it than the device's own pages, which may be old. Errors: `config.invalid` (no disk, no right to read it), `disk.failing`.
 */
export async function openSourceDisk(path: string, buffer: Buffer): Promise<SourceDisk> {
  const file = await openDirect(path);
  try {
    const facts = await file.stat();
    if (!facts.isBlockDevice() && !facts.isFile())
      throw new OperationalError("config.invalid", `${path} is neither a block device nor a file`);
    const device = facts.isBlockDevice() ? `/sys/dev/block/${deviceNumber(facts.rdev)}` : undefined;
    const sizeBytes = device === undefined ? facts.size : await sizeOf(device);
    if (sizeBytes === 0)
      throw new OperationalError("config.invalid", `${path} has no content: its size is 0`);
    return {
      sizeBytes,
      read: (offset, length) => readFully(file, path, buffer, offset, length),
      activity: () => (device === undefined ? timesOf(file) : writesOf(device)),
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function openDirect(path: string): Promise<FileHandle> {
  const flags = constants.O_RDONLY | constants.O_NOCTTY;
  try {
    return await open(path, flags | constants.O_DIRECT).catch((error: NodeJS.ErrnoException) => {
      // A file system without direct reads. Of a block device they always work.
      if (error.code !== "EINVAL") throw error;
      return open(path, flags);
    });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why = code === "ENOENT" ? "it is not there" : `${String(code)}: this user must be able to read it`;
    throw new OperationalError("config.invalid", `cannot open ${path}: ${why}`, { cause });
  }
}

async function readFully(
  file: FileHandle,
  path: string,
  buffer: Buffer,
  offset: number,
  length: number,
): Promise<Buffer> {
  for (let done = 0; done < length;) {
    // Beyond the end there is nothing: the answer is shorter then.
    const wanted = Math.ceil((length - done) / alignment) * alignment;
    let bytesRead: number;
    try {
      ({ bytesRead } = await file.read(buffer, done, Math.min(wanted, buffer.length - done), offset + done));
    } catch (cause) {
      const { message } = cause as Error;
      throw new OperationalError("disk.failing", `cannot read ${path} at ${offset + done}: ${message}`, {
        cause,
      });
    }
    if (bytesRead === 0) {
      throw new OperationalError(
        "disk.failing",
        `${path} ended at ${offset + done}: it was cut while it was read`,
      );
    }
    done += bytesRead;
    // A short answer that is no multiple cannot be gone on from directly.
    if (done < length && done % alignment !== 0) done -= done % alignment;
  }
  return buffer.subarray(0, length);
}

/** `MAJOR:MINOR`, as Linux packs them (sysmacros.h). */
export function deviceNumber(rdev: number): string {
  const number = BigInt(rdev);
  const major = ((number >> 8n) & 0xfffn) | ((number >> 32n) & ~0xfffn);
  const minor = (number & 0xffn) | ((number >> 12n) & 0xffff_ff00n);
  return `${major}:${minor}`;
}

async function sizeOf(device: string): Promise<number> {
  // In sectors of 512 bytes, whatever the medium's own are (Documentation/ABI/stable/sysfs-block).
  return Number.parseInt(await readFile(`${device}/size`, "utf8"), 10) * 512;
}

/** Writes and discards, and their sectors (Documentation/admin-guide/iostats.rst). */
async function writesOf(device: string): Promise<string> {
  const fields = (await readFile(`${device}/stat`, "utf8")).trim().split(/\s+/u);
  return [4, 6, 11, 13].map((field) => fields[field] ?? "").join(":");
}

async function timesOf(file: FileHandle): Promise<string> {
  const { mtimeNs, ctimeNs, size } = await file.stat({ bigint: true });
  return `${mtimeNs}:${ctimeNs}:${size}`;
}
