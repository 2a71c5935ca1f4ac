import { DatabaseSync } from "node:sqlite";
import { OperationalError } from "./errors.ts";

/**
 * One process a file: the lock is the kernel's, so that it ends with the process, however that ends. Node offers no file locks; SQLite's
 * exclusive mode holds one (POSIX record locks) for as long as the database is open. Errors: `state.conflict` with the message, when
 * another process has it.
 */
export function lockFile(path: string, taken: string): Disposable {
  const database = new DatabaseSync(path);
  try {
    database.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw new OperationalError("state.conflict", taken, { detail: String(error), cause: error });
  }
  return { [Symbol.dispose]: () => database.close() };
}
