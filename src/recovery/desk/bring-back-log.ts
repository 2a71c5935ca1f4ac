/** The write log of an environment, brought back from the store: after the folder of the vault's process was lost, or an older copy of it came back. */
import { stat, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { makeFolder, syncFolder } from "#kernel/durable-file.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Vault } from "#vault/open-vault.ts";
import { restoreLogFolder } from "#vault/write-log/open-log-archive.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { groupName } from "./export-name.ts";
import { openLog } from "./group-desk.ts";
import { groupFolderIn } from "./open-desk.ts";

export interface BringBackLogOptions {
  /** Of the vault's process. */
  readonly folder: string;
  readonly group: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly signal: AbortSignal;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

export interface BroughtBackLog {
  readonly segments: number;
  /** When the last write was captured that the store has, in milliseconds since the epoch. */
  readonly lastMs: number;
  /** Where what stood in the folder was put; null: nothing did. */
  readonly putAside: string | null;
}

/**
 * The log ends where the store does. Every disk is copied whole when it is captured next: nobody knows what was captured and is lost. What
 * stands in the folder is put aside, never removed. Killed half-way, it is to be begun again.
 * Errors: `not_found` (nothing was shipped), `state.conflict` (nothing is missing here), `store.failing` (another process uses the folder).
 */
export async function bringBackLog(options: BringBackLogOptions): Promise<BroughtBackLog> {
  const { folder, group, clock } = options;
  if (!groupName.test(group)) {
    throw new OperationalError("input.invalid", `not the name of an environment: ${group.slice(0, 80)}`);
  }
  const home = groupFolderIn(folder, group);
  const isThere = await exists(home);
  if (isThere) await refuseIfWhole(options, home);
  const coming = join(folder, "coming", group);
  const restored = await restoreInto(options, coming);
  const putAside = isThere
    ? join(folder, "put-aside", `${group}-${new Date(clock.now()).toISOString().replaceAll(/[-:.]/gu, "")}`)
    : null;
  if (putAside !== null) {
    await makeFolder(join(folder, "put-aside"));
    await rename(home, putAside);
    await syncFolder(join(folder, "put-aside"));
  }
  await makeFolder(join(folder, "groups"));
  await rename(coming, home);
  await syncFolder(join(folder, "groups"));
  return { ...restored, putAside };
}

/** What the vault's process would take up as it is, is not replaced by less. */
async function refuseIfWhole({ group, vault, clock }: BringBackLogOptions, home: string): Promise<void> {
  try {
    const { log, shipper } = await openLog({ group, folder: home, vault, clock });
    await shipper[Symbol.asyncDispose]();
    await log.close();
  } catch (error) {
    if (isOperational(error, "vault.damaged") || isOperational(error, "state.conflict")) return;
    throw error;
  }
  throw new OperationalError(
    "state.conflict",
    `the write log in ${home} lacks nothing that the store has: it is left as it is`,
  );
}

async function restoreInto(
  { group, vault, clock, signal, onProgress }: BringBackLogOptions,
  coming: string,
): Promise<Pick<BroughtBackLog, "segments" | "lastMs">> {
  const { storage, keys } = vault.context;
  const own = { group, logKey: keys.log, signal };
  // Of a process that was killed.
  await rm(coming, { recursive: true, force: true });
  await makeFolder(join(coming, "log"));
  const folder = openSegmentFolder(join(coming, "log"));
  try {
    const progress = onProgress === undefined ? {} : { onProgress };
    const { segments, lastMs } = await restoreLogFolder({ ...own, storage, ...progress }, folder);
    const log = await openWriteLog({ ...own, folder, clock, points: vaultPoints(vault), afterLoss: true });
    await log.close();
    return { segments, lastMs };
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return false;
    throw new OperationalError(
      "store.failing",
      `cannot look at ${path}: check its permissions and the disk`,
      {
        detail: String(error),
        cause: error,
      },
    );
  }
}
