/** What the vault's commands ask of the composition root, and what they are answered. */

/** Which vault: the configuration's, or a store with the file of its passphrase. */
export interface VaultFlags {
  readonly config: string;
  readonly json: boolean;
  readonly store?: string;
  readonly passphraseFile?: string;
}

export interface VaultPointView {
  readonly id: string;
  readonly volume: string;
  readonly timeMs: number;
  readonly sizeBytes: number;
  readonly consistency: "crash" | "application";
  /** False: made while the disk was being copied; a base for later points, nothing to recover. */
  readonly whole: boolean;
}

export interface VaultVolumeView {
  readonly volume: string;
  readonly points: number;
  readonly sizeBytes: number;
  readonly oldestMs: number;
  readonly newestMs: number;
}

export interface VaultStatusView {
  readonly id: string;
  readonly store: string;
  readonly volumes: readonly VaultVolumeView[];
  readonly environments: readonly VaultEnvironmentView[];
  /** How older points thin out, as `vault serve` does it; null where the store was named on the command line. */
  readonly retention: RetentionView | null;
}

export interface RetentionView {
  readonly keepAllMs: number;
  readonly rules: readonly { readonly every: number | "month" | "year"; readonly forMs: number }[];
}

/** An environment that the vault knows, without any control plane. */
export interface VaultEnvironmentView {
  readonly environment: string;
  readonly points: number;
  readonly newestMs: number | null;
  readonly oldestMs: number | null;
  /** Whether moments between its points can be taken out of a shipped write log. */
  readonly log: boolean;
  /** Recovery points, or verdicts on them, that cannot be read. */
  readonly damaged: number;
}

/** A recovery point as the vault keeps it: see `RecoveryPoint`. */
export interface VaultRecoveryPointView {
  readonly id: string;
  readonly at: number;
  readonly sequence: number;
  readonly journalPosition: number;
  readonly consistency: "crash" | "application";
  readonly site: string;
  readonly resources: number;
  readonly volumes: Readonly<Record<string, string>>;
  readonly verifiedAt: number | null;
  /** Name of each volume in the vault -> the point that holds it, for `vault cat` and `vault mount`. */
  readonly disks: Readonly<Record<string, string>>;
  /** What the environment was made of then. */
  readonly configuration: readonly unknown[];
}

export interface VaultRecoveryPointsView {
  readonly environment: string;
  /** Newest first. */
  readonly points: readonly VaultRecoveryPointView[];
  readonly damaged: readonly DamageView[];
}

export interface DamageView {
  /** The object's name in the store. */
  readonly object: string;
  readonly problem: string;
}

/** A part of a disk, at a point, that cannot be read. In bytes. */
export interface LostRangeView {
  readonly point: string;
  readonly offset: number;
  readonly length: number;
  readonly object: string;
}

export interface VaultVerifyView {
  readonly depth: "quick" | "full";
  /** Whether nothing was found. */
  readonly whole: boolean;
  readonly findings: readonly DamageView[];
  readonly lost: readonly LostRangeView[];
  readonly points: number;
  readonly packs: number;
  readonly bytes: number;
  /** Shipped write logs that were read, by group, with the number of their segments. */
  readonly logs: readonly { readonly group: string; readonly segments: number }[];
}

export interface VaultGarbageView {
  readonly condemnedPacks: number;
  readonly compactedPacks: number;
  readonly deletedPacks: number;
  readonly deletedBytes: number;
  readonly waiting: readonly string[];
}

export interface VaultRepairView {
  readonly repairedBlobs: number;
  readonly lostBlobs: number;
  readonly reindexedPacks: number;
  readonly removed: readonly string[];
  /** What was found before. */
  readonly findings: readonly DamageView[];
  /** What still cannot be read. */
  readonly lost: readonly LostRangeView[];
}

/** What `cat` and `mount` are asked for: a point by its id, or a volume at a moment. */
export type WantedContent =
  | { readonly point: string }
  | {
      readonly volume: string;
      /** In milliseconds since the epoch; null: the last that the store holds. */
      readonly atMs: number | null;
      /** The environment whose write log is meant, where several hold the volume. */
      readonly environment?: string | undefined;
    };

export interface WrittenDiskView {
  readonly volume: string;
  /** The last write that it holds. */
  readonly timeMs: number;
  readonly sequence: number | null;
  readonly from: "log" | "point";
  readonly sizeBytes: number;
  /** Null: it is what was asked for. Else why it is the state of an earlier moment. */
  readonly earlier: string | null;
}

/** A write log that was brought back. */
export interface RestoredLogView {
  readonly environment: string;
  readonly segments: number;
  /** Of the last write that the store has. */
  readonly lastMs: number;
  /** Where what stood in the folder is now; null: nothing did. */
  readonly putAside: string | null;
}

/** Errors of each: `config.*`, `vault.key`, `vault.damaged`, those of the store. */
export interface VaultTools {
  init(flags: VaultFlags): Promise<{ readonly id: string; readonly store: string }>;
  serve(flags: VaultFlags, signal: AbortSignal): Promise<void>;
  status(flags: VaultFlags, signal: AbortSignal): Promise<VaultStatusView>;
  points(
    flags: VaultFlags,
    volume: string | undefined,
    signal: AbortSignal,
  ): Promise<readonly VaultPointView[]>;
  environments(flags: VaultFlags, signal: AbortSignal): Promise<readonly VaultEnvironmentView[]>;
  /** Of the environment; of the only one where none is named. */
  recoveryPoints(
    flags: VaultFlags,
    environment: string | undefined,
    signal: AbortSignal,
  ): Promise<VaultRecoveryPointsView>;
  /** Without `output`: to standard output. */
  cat(
    flags: VaultFlags,
    wanted: WantedContent,
    output: string | undefined,
    signal: AbortSignal,
  ): Promise<WrittenDiskView>;
  mount(
    flags: VaultFlags,
    wanted: WantedContent,
    options: { readonly socket: string; readonly writable?: string },
    signal: AbortSignal,
  ): Promise<void>;
  verify(flags: VaultFlags, depth: "quick" | "full", signal: AbortSignal): Promise<VaultVerifyView>;
  collectGarbage(flags: VaultFlags, signal: AbortSignal): Promise<VaultGarbageView>;
  restoreLog(flags: VaultFlags, environment: string, signal: AbortSignal): Promise<RestoredLogView>;
  /** `source`: a disk that may still hold what was lost, as a file, a block device or an NBD URI. */
  repair(
    flags: VaultFlags,
    source: { readonly volume: string; readonly from: string } | undefined,
    signal: AbortSignal,
  ): Promise<VaultRepairView>;
}
