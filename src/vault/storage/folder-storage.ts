import { randomUUID } from "node:crypto";
import { type Dirent, constants } from "node:fs";
import { type FileHandle, link, mkdir, open, readdir, stat, unlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { OperationalError, type Outcome } from "#kernel/errors.ts";
import { checkBlobName, checkBlobPrefix, compareNames } from "./blob-name.ts";
import type { BlobFacts, BlobStorage } from "./blob-storage.ts";
import { checkRange } from "./memory-storage.ts";

/** Objects that are being written stand here under random names; `list` never shows a name that begins with a dot. */
const INCOMING = ".incoming";
/** An incoming file that nobody finished for so long belongs to a process that died. */
const STALE_INCOMING_MS = 24 * 3_600_000;
const OPEN_FILES = 64;

/**
 * A store in a folder of a local or mounted file system. A put writes a temporary file, flushes it, gives it its name by `link`
 * (which, unlike `rename`, never replaces), and flushes the folder. The file system must have hard links and honest fsync.
 */
export async function openFolderStorage(path: string): Promise<BlobStorage> {
  await attempt("opening", path, "not_applied", async () => {
    await mkdir(join(path, INCOMING), { recursive: true });
    await syncFolder(path);
    await removeStale(join(path, INCOMING));
  });
  return new FolderStorage(path);
}

class FolderStorage implements BlobStorage {
  readonly description: string;
  readonly #root: string;
  /** Folders known to exist durably. */
  readonly #folders = new Set<string>();
  readonly #open = new Map<string, OpenFile>();

  constructor(root: string) {
    this.#root = root;
    this.description = `folder ${root}`;
  }

  async put(name: string, parts: readonly Uint8Array[], signal?: AbortSignal): Promise<"stored" | "present"> {
    checkBlobName(name);
    signal?.throwIfAborted();
    const path = join(this.#root, name);
    const temporary = join(this.#root, INCOMING, randomUUID());
    try {
      await attempt("writing", name, "not_applied", () => writeDurably(temporary, parts));
      signal?.throwIfAborted();
      await attempt("writing", name, "not_applied", () => this.#makeFolder(dirname(path)));
      const linked = await attempt("writing", name, "unknown", () => linkIfFree(temporary, path));
      // Also when it was there before: whoever put it may have died before it flushed the folder.
      await attempt("writing", name, "unknown", () => syncFolder(dirname(path)));
      if (linked) return "stored";
    } finally {
      // What cannot be removed now is removed as stale later.
      await unlink(temporary).catch(() => {});
    }
    if (await holds(path, parts)) return "present";
    throw new OperationalError("state.conflict", `the store holds another object ${name}`);
  }

  async get(name: string, range?: { offset: number; length: number }, signal?: AbortSignal): Promise<Buffer> {
    checkBlobName(name);
    signal?.throwIfAborted();
    return attempt("reading", name, "not_applied", async () => {
      const file = await this.#acquire(name);
      try {
        const { offset, length } = range ?? { offset: 0, length: file.sizeBytes };
        if (range !== undefined) checkRange(name, file.sizeBytes, range);
        const buffer = Buffer.allocUnsafeSlow(length);
        for (let done = 0; done < length;) {
          const { bytesRead } = await file.handle.read(buffer, done, length - done, offset + done);
          if (bytesRead === 0) throw new OperationalError("disk.range", `${name} ended at ${offset + done}`);
          done += bytesRead;
        }
        return buffer;
      } finally {
        await file.letGo();
      }
    });
  }

  async size(name: string, signal?: AbortSignal): Promise<number> {
    checkBlobName(name);
    signal?.throwIfAborted();
    const facts = await attempt("reading", name, "not_applied", () => stat(join(this.#root, name)));
    return facts.size;
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<BlobFacts> {
    checkBlobPrefix(prefix);
    // Only the folder that the prefix names can hold it.
    const from = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    yield* this.#walk(join(this.#root, from), prefix, signal);
  }

  async delete(name: string, signal?: AbortSignal): Promise<void> {
    checkBlobName(name);
    signal?.throwIfAborted();
    const path = join(this.#root, name);
    const cached = this.#open.get(name);
    this.#open.delete(name);
    if (cached !== undefined) await cached.letGo();
    await attempt("deleting", name, "unknown", async () => {
      try {
        await unlink(path);
      } catch (error) {
        ignoreMissing(error);
        return;
      }
      await syncFolder(dirname(path));
    });
  }

  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(files.map((file) => file.letGo()));
  }

  /** Reads come in runs on few objects: opening and closing each time costs more than the read. */
  async #acquire(name: string): Promise<OpenFile> {
    const there = this.#open.get(name);
    if (there !== undefined) {
      there.users += 1;
      this.#open.delete(name);
      this.#open.set(name, there);
      // Another process may have deleted the object; its name may even be in use again.
      if ((await there.handle.stat()).nlink > 0) return there;
      if (this.#open.get(name) === there) {
        this.#open.delete(name);
        await there.letGo();
      }
      await there.letGo();
    }
    const handle = await open(join(this.#root, name), constants.O_RDONLY);
    const file = new OpenFile(handle, (await handle.stat()).size);
    file.users += 1;
    const raced = this.#open.get(name);
    if (raced === undefined) {
      file.users += 1;
      this.#open.set(name, file);
    }
    const [oldest] = this.#open;
    if (this.#open.size > OPEN_FILES && oldest !== undefined) {
      this.#open.delete(oldest[0]);
      await oldest[1].letGo();
    }
    return file;
  }

  async #makeFolder(path: string): Promise<void> {
    if (this.#folders.has(path)) return;
    if (path !== this.#root) await this.#makeFolder(dirname(path));
    await mkdir(path).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error;
    });
    await syncFolder(dirname(path));
    this.#folders.add(path);
  }

  async *#walk(folder: string, prefix: string, signal: AbortSignal | undefined): AsyncGenerator<BlobFacts> {
    signal?.throwIfAborted();
    const entries = await attempt("listing", folder, "not_applied", () => entriesOf(folder));
    // A folder sorts as its name with the slash, so that the whole comes in byte order.
    const named = entries
      .map((entry) => ({ entry, key: entry.isDirectory() ? `${entry.name}/` : entry.name }))
      .sort((a, b) => compareNames(a.key, b.key));
    for (const { entry, key } of named) {
      const path = join(folder, entry.name);
      const name = relative(this.#root, path) + (entry.isDirectory() ? "/" : "");
      if (key.startsWith(".") || !(name.startsWith(prefix) || prefix.startsWith(name))) continue;
      if (entry.isDirectory()) yield* this.#walk(path, prefix, signal);
      else if (name.startsWith(prefix)) {
        const facts = await stat(path).catch(ignoreMissing);
        if (facts !== undefined) yield { name, sizeBytes: facts.size, storedAtMs: facts.mtimeMs };
      }
    }
  }
}

/** Closed when nobody uses it and the table has let it go. */
class OpenFile {
  users = 0;
  readonly handle: FileHandle;
  readonly sizeBytes: number;

  constructor(handle: FileHandle, sizeBytes: number) {
    this.handle = handle;
    this.sizeBytes = sizeBytes;
  }

  async letGo(): Promise<void> {
    this.users -= 1;
    if (this.users === 0) await this.handle.close();
  }
}

async function writeDurably(path: string, parts: readonly Uint8Array[]): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  let position = 0;
  for (const part of parts) {
    for (let done = 0; done < part.length;) {
      const { bytesWritten } = await file.write(part, done, part.length - done, position);
      done += bytesWritten;
      position += bytesWritten;
    }
  }
  await file.sync();
}

async function linkIfFree(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === "EEXIST") return false;
    throw error;
  }
}

async function holds(path: string, parts: readonly Uint8Array[]): Promise<boolean> {
  const wanted = Buffer.concat(parts);
  await using file = await open(path, "r");
  if ((await file.stat()).size !== wanted.length) return false;
  return wanted.equals(await file.readFile());
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, constants.O_RDONLY);
  await folder.sync();
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") return [];
    throw error;
  }
}

async function removeStale(folder: string): Promise<void> {
  for (const entry of await readdir(folder)) {
    const path = join(folder, entry);
    const facts = await stat(path).catch(ignoreMissing);
    if (facts !== undefined && Date.now() - facts.mtimeMs > STALE_INCOMING_MS)
      await unlink(path).catch(ignoreMissing);
  }
}

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

function ignoreMissing(error: unknown): undefined {
  if (codeOf(error) !== "ENOENT") throw error;
}

/** Names what failed; `outcome` is what a failure of this very step leaves behind. */
async function attempt<T>(doing: string, name: string, outcome: Outcome, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof OperationalError || (error as Error).name === "AbortError") throw error;
    const code = codeOf(error);
    if (code === undefined) throw error;
    if (doing === "reading" && (code === "ENOENT" || code === "ENOTDIR" || code === "EISDIR"))
      throw new OperationalError("not_found", `the store has no object ${name}`, { cause: error });
    const options = { outcome, detail: `${code} ${(error as Error).message}`, cause: error };
    if (code === "ENOSPC" || code === "EDQUOT")
      throw new OperationalError("store.full", `the vault's disk is full: ${doing} ${name} failed`, options);
    if (code === "EACCES" || code === "EPERM" || code === "EROFS")
      throw new OperationalError(
        "auth.forbidden",
        `the vault's folder does not allow ${doing} ${name}`,
        options,
      );
    throw new OperationalError("store.failing", `the vault's disk fails: ${doing} ${name}`, options);
  }
}
