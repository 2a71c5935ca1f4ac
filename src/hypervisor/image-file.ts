/** Image files by their names: an image is whole when it has its name, and none is put in the place of one that is there by mistake. */
import { access, link, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";

/**
 * Errors: `store.failing` where that can't be told: a store that hiccups has not lost its images, and none must be made in their place.
 */
export async function isThere(path: string): Promise<boolean> {
  try {
    await access(path);
    return true;
  } catch (error) {
    if (codeOf(error) === "ENOENT") return false;
    throw new OperationalError("store.failing", `whether ${path} is there cannot be told: check the disk`, {
      detail: String(error),
      cause: error,
    });
  }
}

/**
 * Gives the image its name, durably. `absent`: there is none by that name. Errors: `state.conflict` when there is one after all;
 * `store.full`, `store.failing`.
 */
export async function publishImage(making: string, path: string, expected: "absent" | "any"): Promise<void> {
  try {
    const file = await open(making, "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    // Unlike a renaming, a link never takes another file's place.
    if (expected === "absent") await link(making, path);
    else await rename(making, path);
    await syncFolder(dirname(path));
    await rm(making, { force: true });
  } catch (error) {
    const code = codeOf(error);
    if (code === "EEXIST") {
      throw new OperationalError("state.conflict", `${path} is there already: it is left as it is`, {
        cause: error,
      });
    }
    const full = code === "ENOSPC";
    throw new OperationalError(
      full ? "store.full" : "store.failing",
      full ? `no space is left for ${path}: free some` : `${path} cannot be made: check the disk`,
      { outcome: "unknown", detail: String(error), cause: error },
    );
  }
}

/** For one whose making is on record. */
export function missingImage(what: string, path: string): OperationalError {
  return new OperationalError(
    "store.failing",
    `the image of ${what} is missing: ${path} was made once, and an empty one in its place would hide that. Bring it back (is its file system mounted?)`,
  );
}

function codeOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | null)?.code;
}
