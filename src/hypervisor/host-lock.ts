/** One agent a folder. */
import { join } from "node:path";
import { lockFile } from "#kernel/lock-file.ts";

/** Errors: `state.conflict` when another agent has the folder. */
export function lockFolder(folder: string): Disposable {
  const taken = `another host agent uses ${folder}: stop it, or give this one its own folder`;
  return lockFile(join(folder, "agent.lock"), taken);
}
