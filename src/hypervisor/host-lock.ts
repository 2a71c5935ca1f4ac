/** One agent a folder: the lock is the kernel's, so that it ends with the process, however that ends. */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { OperationalError } from "#kernel/errors.ts";

/**
 * Node offers no file locks; SQLite's exclusive mode holds one (POSIX record locks) for as long as the database is open.
 * Errors: `state.conflict` when another agent has the folder.
 */
export function lockFolder(folder: string): Disposable {
  const database = new DatabaseSync(join(folder, "agent.lock"));
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw new OperationalError(
      "state.conflict",
      `another host agent uses ${folder}: stop it, or give this one its own folder`,
      { detail: String(error), cause: error },
    );
  }
  return { [Symbol.dispose]: () => database.close() };
}
