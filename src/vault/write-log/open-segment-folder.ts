/**
 * Segments in a folder of the local disk. Callback functions of `fs` rather than `FileHandle`: fewer allocations for each write.
 */
import { constants, close, fdatasync, fstat, fsync, ftruncate, mkdirSync, open, read, writev } from "node:fs";
import { readdir, unlink } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { promisify } from "node:util";
import { OperationalError } from "#kernel/errors.ts";
import type { SegmentFile, SegmentFolder } from "./segment-folder.ts";

const openFile = promisify(open) as (path: string, flags: number | string, mode?: number) => Promise<number>;
const closeFile = promisify(close);
const syncFile = promisify(fsync);
const syncData = promisify(fdatasync);

function folderFailing(error: unknown, path: string): OperationalError {
  const options = { outcome: "unknown", detail: (error as Error).message, cause: error } as const;
  return new OperationalError(
    "store.failing",
    `the disk under ${path} fails: look at the system log`,
    options,
  );
}

function folderError(error: unknown, path: string): OperationalError {
  const { code, message } = error as NodeJS.ErrnoException;
  const options = { detail: message, cause: error };
  if (code === "ENOSPC" || code === "EDQUOT")
    return new OperationalError("store.full", `the disk under ${path} is full: make room`, options);
  if (code === "ENOENT") return new OperationalError("not_found", `${path} is not there`, options);
  return folderFailing(error, path);
}

/** `writev` may write less than asked; the rest is written by a further call, which then also brings the error. */
async function writeAll(descriptor: number, buffers: readonly Buffer[], position: number): Promise<void> {
  let left = buffers;
  let at = position;
  while (left.length > 0) {
    const written = await new Promise<number>((resolve, reject) => {
      writev(descriptor, left, at, (error, bytes) => (error === null ? resolve(bytes) : reject(error)));
    });
    at += written;
    left = withoutFirst(left, written);
  }
}

function withoutFirst(buffers: readonly Buffer[], bytes: number): readonly Buffer[] {
  let skip = bytes;
  let index = 0;
  while (index < buffers.length && skip >= (buffers[index]?.length ?? 0)) {
    skip -= buffers[index]?.length ?? 0;
    index += 1;
  }
  const rest = buffers.slice(index);
  if (skip > 0 && rest[0] !== undefined) rest[0] = rest[0].subarray(skip);
  return rest;
}

function segmentFile(descriptor: number, path: string): SegmentFile {
  const named = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      throw folderError(error, path);
    }
  };
  const readOnce = (buffer: Buffer, position: number): Promise<number> =>
    new Promise((resolve, reject) => {
      read(descriptor, buffer, 0, buffer.length, position, (error, bytes) =>
        error === null ? resolve(bytes) : reject(error),
      );
    });
  const readFully = async (buffer: Buffer, position: number): Promise<number> => {
    let filled = 0;
    while (filled < buffer.length) {
      const bytes = await readOnce(buffer.subarray(filled), position + filled);
      if (bytes === 0) break;
      filled += bytes;
    }
    return filled;
  };
  return {
    write: (buffers, position) => named(writeAll(descriptor, buffers, position)),
    sync: async () => {
      try {
        await syncData(descriptor);
      } catch (error) {
        // Whatever the cause, also a full disk: what was written before may be gone.
        throw folderFailing(error, path);
      }
    },
    read: (buffer, position) => named(readFully(buffer, position)),
    sizeBytes: async () => (await named(promisify(fstat)(descriptor))).size,
    truncate: (sizeBytes) => named(promisify(ftruncate)(descriptor, sizeBytes)),
    close: () => closeFile(descriptor),
  };
}

/** A lock that the operating system drops with its process: a transaction held open beside the segments. */
function takeLock(path: string): DatabaseSync {
  const database = new DatabaseSync(join(path, "owner.lock"));
  try {
    database.exec("pragma busy_timeout = 250; begin exclusive");
    return database;
  } catch (error) {
    database.close();
    throw new OperationalError("store.failing", `${path} is in use by another process: stop it first`, {
      retry: "never",
      cause: error,
    });
  }
}

/** Made if it is not there (mode 0700). Errors: `store.failing` if another process owns it. */
export function openSegmentFolder(path: string): SegmentFolder {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw folderError(error, path);
  }
  const lock = takeLock(path);
  const opened = async (name: string, flags: number): Promise<SegmentFile> => {
    try {
      return segmentFile(await openFile(join(path, name), flags, 0o600), join(path, name));
    } catch (error) {
      throw folderError(error, join(path, name));
    }
  };
  return {
    name: path,
    list: async () => (await readdir(path)).filter((name) => name.endsWith(".seg")),
    create: (name) => opened(name, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL),
    open: (name) => opened(name, constants.O_RDONLY),
    remove: async (name) => {
      try {
        await unlink(join(path, name));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw folderError(error, join(path, name));
      }
    },
    syncEntries: async () => {
      try {
        const descriptor = await openFile(path, "r");
        try {
          await syncFile(descriptor);
        } finally {
          await closeFile(descriptor);
        }
      } catch (error) {
        throw folderError(error, path);
      }
    },
    close: async () => lock.close(),
  };
}
