import { mkdir, open, readFile, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { OperationalError } from "./errors.ts";

/**
 * Replaces a small file so that a crash leaves the old or the new content, whole: temporary file, fsync, rename,
 * fsync of the directory. One writer a path. Throws `store.failing`: `not_applied` when the old content is in
 * force, `unknown` when the rename happened but may not outlive a power cut.
 */
export async function replaceFile(path: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${path}.new`;
  try {
    const file = await open(temporary, "w", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw failure(path, "not_applied", cause);
  }
  try {
    await syncFolder(dirname(path));
  } catch (cause) {
    throw failure(path, "unknown", cause);
  }
}

/** What another process wrote into it outlives a power cut afterwards. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Names that were made, renamed or removed in the folder outlive a power cut afterwards. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Makes the folder, mode 0700, with the parents that it lacks; all of them outlive a power cut when it returns. Errors: `store.full`,
 * `store.failing`. `sync` is for tests.
 */
export async function makeFolder(
  path: string,
  sync: (folder: string) => Promise<void> = syncFolder,
): Promise<void> {
  try {
    const first = await mkdir(path, { recursive: true, mode: 0o700 });
    // The name of each folder that was made stands in the one above it.
    const top = dirname(resolve(first ?? path));
    for (let at = dirname(resolve(path)); ; at = dirname(at)) {
      await sync(at);
      if (at === top) return;
    }
  } catch (cause) {
    throw failure(path, "unknown", cause);
  }
}

/** The file's text, or null if there is none. */
export async function readFileIfAny(path: string): Promise<string | null> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new OperationalError("store.failing", `cannot read ${path}: check its permissions and the disk`, {
      detail: String(cause),
      cause,
    });
  }
}

/** The file's content as `parse` understands it, or null if there is none. What `parse` throws is the cause of `damaged`. */
export async function readParsedIfAny<T>(
  path: string,
  parse: (text: string) => T,
  damaged: (cause: unknown) => OperationalError,
): Promise<T | null> {
  const text = await readFileIfAny(path);
  if (text === null) return null;
  try {
    return parse(text);
  } catch (cause) {
    throw damaged(cause);
  }
}

function failure(path: string, outcome: "not_applied" | "unknown", cause: unknown): OperationalError {
  const full = (cause as NodeJS.ErrnoException).code === "ENOSPC";
  return new OperationalError(
    full ? "store.full" : "store.failing",
    full
      ? `cannot write ${path}: the disk is full`
      : `cannot write ${path}: check that its folder exists and is writable`,
    { outcome, detail: String(cause), cause },
  );
}
