/** A disk's content into a file of its own. */
import { access, link, open, type FileHandle, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import type { BlockReader } from "#model/block-device.ts";

const pieceBytes = 1024 * 1024;
/** Window of one question for extents: bounded answers, also for a huge sparse disk. */
const windowBytes = 1024 * 1024 * 1024;
/** Pieces under way at once: bounds memory, hides the source's latency. */
const atOnce = 8;

export interface DiskFileOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * A file that is there under its name only once it is whole and durable: until then it is `PATH.part`, which goes when the work fails.
 * Errors: `state.conflict` when either is there: no file is written over.
 */
export async function inNewFile<T>(
  path: string,
  write: (part: string, file: FileHandle) => Promise<T>,
): Promise<T> {
  if (await isThere(path)) throw existing(path);
  const part = `${path}.part`;
  await using file = await openNew(part);
  try {
    const result = await write(part, file);
    await onFile(path, () => file.sync());
    await publish(part, path);
    return result;
  } finally {
    await rm(part, { force: true });
    await syncFolder(dirname(path));
  }
}

function existing(path: string): OperationalError {
  return new OperationalError("state.conflict", `${path} exists: name another file`);
}

/** A link is never made over a file that has come since; a file system without links has to be looked at instead. */
async function publish(part: string, path: string): Promise<void> {
  try {
    await link(part, path);
  } catch (cause) {
    const { code = "" } = cause as NodeJS.ErrnoException;
    if (code === "EEXIST") throw existing(path);
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "EMLINK"].includes(code)) {
      throw new OperationalError("store.failing", `${path} cannot be made`, { cause });
    }
    if (await isThere(path)) throw existing(path);
    await onFile(path, () => rename(part, path));
  }
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function openNew(part: string): Promise<FileHandle> {
  try {
    return await open(part, "wx", 0o600);
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
    throw new OperationalError(
      exists ? "state.conflict" : "store.failing",
      exists
        ? `${part} exists: another copy is under way there, or was killed; if none is, remove it`
        : `${part} cannot be made`,
      { cause },
    );
  }
}

/** The name is as durable as the content. */
async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

/**
 * Writes the disk into a new file, holes as holes, durable when it returns; answers how many bytes were read. Nothing is left on
 * failure. Errors: `state.conflict`, `store.full`, `store.failing`, the source's.
 */
export function writeDiskFile(
  reader: BlockReader,
  path: string,
  { signal, onProgress }: DiskFileOptions,
): Promise<{ readonly readBytes: number }> {
  return inNewFile(path, async (_part, file) => {
    await onFile(path, () => file.truncate(reader.sizeBytes));
    const pieces = piecesOf(reader, signal);
    let readBytes = 0;
    let failed = false;
    const work = async (): Promise<void> => {
      try {
        for (;;) {
          signal.throwIfAborted();
          const next = await pieces.next();
          if (next.done === true || failed) return;
          const { offset, length } = next.value;
          const bytes = await reader.read(offset, length, signal);
          await onFile(path, () => writeAll(file, bytes, offset));
          readBytes += length;
          onProgress?.(offset + length, reader.sizeBytes);
        }
      } catch (error) {
        failed = true;
        throw error;
      }
    };
    // All of them, also when one fails: the file is closed after that.
    const ends = await Promise.allSettled(Array.from({ length: atOnce }, work));
    for (const end of ends) if (end.status === "rejected") throw end.reason;
    return { readBytes };
  });
}

async function* piecesOf(
  reader: BlockReader,
  signal: AbortSignal,
): AsyncGenerator<{ readonly offset: number; readonly length: number }, void, void> {
  for (let from = 0; from < reader.sizeBytes; from += windowBytes) {
    const extents = await reader.extents(from, Math.min(windowBytes, reader.sizeBytes - from), signal);
    for (const { offset, length, kind } of extents) {
      if (kind !== "data") continue;
      for (let at = offset; at < offset + length; at += pieceBytes) {
        yield { offset: at, length: Math.min(pieceBytes, offset + length - at) };
      }
    }
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, offset + done);
    done += bytesWritten;
  }
}

async function onFile<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    const full = ["ENOSPC", "EDQUOT", "EFBIG"].includes((cause as NodeJS.ErrnoException).code ?? "");
    throw new OperationalError(
      full ? "store.full" : "store.failing",
      full ? `there is no room for ${path}` : `${path} cannot be written`,
      { cause },
    );
  }
}
