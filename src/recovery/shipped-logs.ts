/** The write logs that a store holds: which there are, and whether they are what was written. Needs the store and the key, nothing else. */
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { openLogArchive } from "#vault/write-log/open-log-archive.ts";
import { noPoints } from "#vault/write-log/point-store.ts";
import type { Segment } from "#vault/write-log/segment-shelf.ts";

const prefix = "log/";

/** Groups of which something was shipped, by name. */
export async function shippedGroups(storage: BlobStorage, signal?: AbortSignal): Promise<readonly string[]> {
  const groups = new Set<string>();
  for await (const { name } of storage.list(prefix, signal)) {
    const group = name.slice(prefix.length).split("/")[0];
    if (group !== undefined && group !== "") groups.add(group);
  }
  return [...groups];
}

export interface ShippedLogReport {
  readonly group: string;
  readonly segments: number;
  readonly bytes: number;
  readonly findings: readonly { readonly object: string; readonly problem: string }[];
}

export interface VerifyShippedLogOptions {
  readonly storage: BlobStorage;
  readonly group: string;
  readonly logKey: Buffer;
  /** `quick`: every segment's structure. `full`: every byte. */
  readonly depth: "quick" | "full";
  readonly signal: AbortSignal;
}

/** Damage becomes a finding; what the window let go meanwhile is none. Errors: those of the store. */
export async function verifyShippedLog(options: VerifyShippedLogOptions): Promise<ShippedLogReport> {
  const { storage, group, logKey, depth, signal } = options;
  const findings: { object: string; problem: string }[] = [];
  let segments: readonly Segment[] = [];
  let bytes = 0;
  try {
    await using archive = await openLogArchive({ storage, group, logKey, points: noPoints, signal });
    segments = archive.shelf.segments.slice();
    for (const segment of segments) {
      signal.throwIfAborted();
      try {
        const end = await archive.shelf.scan(
          segment,
          depth === "full" ? "authenticate" : "directory",
          () => undefined,
          signal,
        );
        bytes += end.position;
        if (end.torn !== undefined) findings.push({ object: segment.name, problem: end.torn.why });
      } catch (error) {
        if (isOperational(error, "not_found")) continue;
        if (!isOperational(error, "vault.damaged")) throw error;
        const from = new Date(segment.header.timeMs).toISOString();
        const problem = `${publicMessage(error)}; no moment from ${from} to the next point can be opened from the store`;
        findings.push({ object: segment.name, problem });
      }
    }
  } catch (error) {
    // All of it was let go between the two looks.
    if (!isOperational(error, "vault.damaged") && !isOperational(error, "not_found")) throw error;
    if (isOperational(error, "vault.damaged")) {
      findings.push({ object: `${prefix}${group}/`, problem: publicMessage(error) });
    }
  }
  return { group, segments: segments.length, bytes, findings };
}
