/** The write log of an environment, brought back from the store: after the folder of the vault's process was lost, or an older copy of it came back. */
import { stat, rename, rm } from "node:fs/promises";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { makeFolder, syncFolder } from "#kernel/durable-file.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Vault } from "#vault/open-vault.ts";
import { lastBeforeResumed } from "#vault/write-log/after-loss.ts";
import { restoreLogFolder, type RestoreLogOptions } from "#vault/write-log/open-log-archive.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { LogShipper } from "#vault/write-log/ship-log.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";
import type { SegmentFolder } from "#vault/write-log/segment-folder.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { groupName } from "./export-name.ts";
import { openLog } from "./group-desk.ts";
import { type GroupRecord, GroupRecordFile, readGroupRecord } from "./group-record.ts";
import { groupFolderIn } from "./open-desk.ts";
import { deskSocketIn } from "./serve-desk.ts";

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
  /** When the last write was captured that the store's log has, in milliseconds since the epoch; 0: it has none. */
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
  await refuseIfServed(folder);
  const isThere = await exists(home);
  if (isThere) await refuseIfWhole(options, home);
  const coming = join(folder, "coming", group);
  const restored = await restoreInto(options, coming);
  // Under which epoch writes are taken, and which moments are served: an older word on that is better than none.
  await GroupRecordFile.begin(coming, isThere ? await recordIn(home) : null);
  const putAside = isThere
    ? join(folder, "put-aside", `${group}-${new Date(clock.now()).toISOString().replaceAll(/[-:.]/gu, "")}`)
    : null;
  if (putAside !== null) {
    await makeFolder(join(folder, "put-aside"));
    await move(home, putAside);
  }
  await makeFolder(join(folder, "groups"));
  await move(coming, home);
  return { ...restored, putAside };
}

/** What the vault's process would take up as it is, is not replaced by less. */
async function refuseIfWhole({ group, vault, clock }: BringBackLogOptions, home: string): Promise<void> {
  try {
    const { log, shipper } = await openLog({ group, folder: home, vault, clock });
    const isEmpty = log.shelf.segments.length === 0;
    await shipper[Symbol.asyncDispose]();
    await log.close();
    if (isEmpty) return;
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
    const shipped = { ...own, storage, ...progress };
    const { segments, lastMs } = await restoreOrBegin(shipped, folder);
    const after =
      segments > 0 ? { afterLoss: true } : { startAfter: await afterPoints(vault, group, signal) };
    const log = await openWriteLog({ ...own, folder, clock, points: vaultPoints(vault), ...after });
    if (segments === 0) await log.appendEvent({ type: "resumed" });
    // The store has to know where it goes on: another loss would otherwise give the same numbers again.
    await using shipper = await LogShipper.open(log, storage, signal);
    await shipper.shipAll(signal);
    await shipper[Symbol.asyncDispose]();
    await log.close();
    return { segments, lastMs };
  } catch (error) {
    await folder.close();
    // What a kill leaves is removed by the next try, what an error leaves at once.
    await rm(join(coming, ".."), { recursive: true, force: true });
    throw error;
  }
}

/** Nothing was ever shipped: then there is nothing to bring back, and a log may be begun where its numbers mean nothing else. */
async function restoreOrBegin(
  options: RestoreLogOptions,
  folder: SegmentFolder,
): Promise<Pick<BroughtBackLog, "segments" | "lastMs">> {
  try {
    return await restoreLogFolder(options, folder);
  } catch (error) {
    if (!isOperational(error, "not_found")) throw error;
    return { segments: 0, lastMs: 0 };
  }
}

/** Errors: `not_found` where the vault has no point of the environment either. */
async function afterPoints(
  vault: Vault,
  group: string,
  signal: AbortSignal,
): Promise<{ readonly sequence: number; readonly timeMs: number }> {
  let last: { readonly sequence: number; readonly timeMs: number } | undefined;
  for (const { id } of await vault.listPoints(undefined, signal)) {
    const { sequence = 0, timeMs, attributes } = await vault.pointFacts(id, signal);
    if (attributes["log.group"] !== group) continue;
    last = {
      sequence: Math.max(sequence, last?.sequence ?? 0),
      timeMs: Math.max(timeMs, last?.timeMs ?? 0),
    };
  }
  if (last !== undefined) return { ...last, sequence: lastBeforeResumed(last.sequence) };
  throw new OperationalError(
    "not_found",
    `the vault holds nothing of "${group}": there is no log to bring back`,
  );
}

/** Its damage is no reason to keep the log from coming back. */
async function recordIn(home: string): Promise<GroupRecord | null> {
  try {
    return await readGroupRecord(home);
  } catch (error) {
    if (isOperational(error, "vault.damaged")) return null;
    throw error;
  }
}

/** A process that serves would go on in a folder that is not there any more. */
async function refuseIfServed(folder: string): Promise<void> {
  const client = connect(deskSocketIn(folder));
  const isServed = await new Promise<boolean>((resolve) => {
    client.once("connect", () => resolve(true)).once("error", () => resolve(false));
  });
  client.destroy();
  if (!isServed) return;
  throw new OperationalError("state.conflict", `a vault serves out of ${folder}: stop it first`);
}

/** Durable when it returns. */
async function move(from: string, to: string): Promise<void> {
  try {
    await rename(from, to);
    await syncFolder(dirname(to));
  } catch (error) {
    throw new OperationalError(
      "store.failing",
      `${from} could not be moved to ${to}: see that no vault serves there, and begin again`,
      { detail: String(error), cause: error },
    );
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
