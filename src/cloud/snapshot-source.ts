/**
 * Snapshots of volumes, of which a cloud gives the blocks out and says which differ from an earlier one's: what captures a disk where
 * no host agent of ours runs. A driver has one where its cloud does (AWS: EBS direct APIs).
 *
 * Guarantees every source gives
 * - A snapshot shows its volume at one instant, as after a loss of power. Those taken by one call of volumes of one server show the same one.
 * - A block that is answered is the one that the snapshot holds: its checksum was compared. One that is not is `cloud.protocol`.
 * - Reading changes nothing. `remove` of what is gone is no error.
 */

export interface DiskSnapshot {
  readonly id: string;
  readonly volumeId: string;
  /** The instant that it shows, in milliseconds since the epoch. */
  readonly startedAt: number;
  readonly sizeBytes: number;
  /** Blocks can be read of `complete` ones only. */
  readonly state: "pending" | "complete" | "failed";
  /** Of the cloud's own copying, 0 to 1. */
  readonly progress: number;
  /** The cloud's own words for a failure. */
  readonly fault?: string;
  readonly tags: Readonly<Record<string, string>>;
}

export interface TakeSnapshots {
  readonly volumeIds: readonly string[];
  /** Each snapshot bears them: a call without an answer is found by them. */
  readonly tags: Readonly<Record<string, string>>;
}

/** A part of a snapshot that may differ from the base. `zero`: it reads as zeroes, and need not be fetched. */
export interface SnapshotBlock {
  readonly offset: number;
  readonly length: number;
  readonly content: { readonly kind: "zero" } | { readonly kind: "data"; readonly token: string };
}

export interface SnapshotSource {
  /**
   * Returns when the instant has passed, long before the snapshots are complete. Not idempotent: look for the tags before it is repeated.
   * Errors: those of a driver; `outcome: "unknown"` when some may have been taken.
   */
  take(request: TakeSnapshots, signal: AbortSignal): Promise<readonly DiskSnapshot[]>;

  /** Those that bear the tags. */
  list(tags: Readonly<Record<string, string>>, signal: AbortSignal): Promise<readonly DiskSnapshot[]>;

  /**
   * What differs from the base (null: all that is not zero), in order of offset, from an offset on. Pages; each is asked for when the one
   * before was used. Tokens live for an hour at least. Errors: `cloud.not_found` when either is gone.
   */
  changes(
    snapshot: { readonly id: string; readonly base: string | null; readonly fromBytes: number },
    signal: AbortSignal,
  ): AsyncIterable<readonly SnapshotBlock[]>;

  /** Errors: `cloud.conflict` when the token has expired: ask for the changes again. `cloud.protocol` for a wrong checksum. */
  read(
    snapshotId: string,
    block: { readonly offset: number; readonly length: number; readonly token: string },
    signal: AbortSignal,
  ): Promise<Buffer>;

  remove(snapshotId: string, signal: AbortSignal): Promise<void>;
}
