/** Small files that are whole or as they were, whenever the process or the host dies. */
import { open, readFile, rename } from "node:fs/promises";
import { dirname } from "node:path";
import { OperationalError } from "#kernel/errors.ts";

/** Temp file, fsync, rename, fsync of the folder. Errors: `store.full`, `store.failing`. */
export async function writeDurably(path: string, content: Uint8Array | string, mode = 0o600): Promise<void> {
  try {
    const file = await open(`${path}.new`, "w", mode);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await syncFolder(dirname(path));
  } catch (error) {
    const full = (error as NodeJS.ErrnoException).code === "ENOSPC";
    throw new OperationalError(
      full ? "store.full" : "store.failing",
      full ? `no space is left for ${path}: free some` : `${path} cannot be written`,
      { outcome: "unknown", detail: String(error), cause: error },
    );
  }
}

/** Null when there is none. Errors: `store.failing`. */
export async function readIfThere(path: string): Promise<Buffer | null> {
  try {
    return await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new OperationalError("store.failing", `${path} cannot be read`, {
      detail: String(error),
      cause: error,
    });
  }
}

/** What another process wrote into it. */
export async function syncFile(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Names that were made, renamed or removed in the folder are durable afterwards. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
