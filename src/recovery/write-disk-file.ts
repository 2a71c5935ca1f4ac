/** A disk's content into a file of its own. */
import { open, type FileHandle } from "node:fs/promises";
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

/** Errors: `state.conflict` when it is there: no file is written over. */
export async function makeNewFile(path: string): Promise<FileHandle> {
  try {
    return await open(path, "wx", 0o600);
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
    throw new OperationalError(
      exists ? "state.conflict" : "store.failing",
      exists ? `${path} exists: name another file` : `${path} cannot be made`,
      { cause },
    );
  }
}

/**
 * Writes the disk into a new file, holes as holes, durable when it returns; answers how many bytes were read. A file that
 * is not whole is left behind on failure, and the error says so. Errors: `state.conflict`, `store.full`, `store.failing`, the source's.
 */
export async function writeDiskFile(
  reader: BlockReader,
  path: string,
  { signal, onProgress }: DiskFileOptions,
): Promise<{ readonly readBytes: number }> {
  await using file = await makeNewFile(path);
  await onFile(path, () => file.truncate(reader.sizeBytes));
  const pieces = piecesOf(reader, signal);
  let readBytes = 0;
  const work = async (): Promise<void> => {
    for (;;) {
      signal.throwIfAborted();
      const next = await pieces.next();
      if (next.done === true) return;
      const { offset, length } = next.value;
      const bytes = await reader.read(offset, length, signal);
      await onFile(path, () => writeAll(file, bytes, offset));
      readBytes += length;
      onProgress?.(offset + length, reader.sizeBytes);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  await onFile(path, () => file.sync());
  return { readBytes };
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
      full ? `there is no room for ${path}: it is not whole` : `${path} cannot be written: it is not whole`,
      { cause },
    );
  }
}
