/**
 * What the control plane asks of the vault's process: to take in the writes of volumes, to name moments, to serve them. The vault
 * runs on its own, so that neither a busy control plane holds up a guest's writes nor a restart of it interrupts them.
 *
 * A group is what shares one sequence of writes: an environment. A volume is named by its lineage: the id that it had when it was
 * first captured, whichever site it has moved to since.
 */
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { KeptPoint, KeptVerdict, StoredPoint } from "#recovery/kept-points.ts";

export interface KeptVolume {
  readonly volume: string;
  readonly sizeBytes: number;
  /** `synchronising`: the log's content of it is no moment of the disk yet. */
  readonly state: "synchronising" | "continuous";
  /** Why it is, or was last, synchronised: first_copy, interruption, ... */
  readonly reason: string;
  /** Number of the last connection that its writes came by; 0: none since the vault's process began. */
  readonly session: number;
  /** `markWhole` was called for that session. */
  readonly confirmed: boolean;
  /** Of a volume whose content comes as images of it: the one that it is, or while synchronising is to be. */
  readonly image: KeptImage | null;
}

/** A picture of a volume at one instant, taken by its cloud. */
export interface KeptImage {
  readonly id: string;
  /** The instant, in milliseconds since the epoch: moments of it bear this time, however late it came. */
  readonly atMs: number;
  /** The image over which it came; null: it came whole. */
  readonly base: string | null;
  /** So much of it is here. */
  readonly throughBytes: number;
}

export interface GroupStatus {
  readonly group: string;
  /** Writes under an older fencing epoch are refused. */
  readonly epoch: number;
  /** Of the vault's folder for the group: what was sent into another one is not here. */
  readonly history: string;
  readonly volumes: readonly KeptVolume[];
  /** The last whole moment; null while there is none. */
  readonly last: DiskMoment | null;
  /** The first moment that can still be named; null while there is none. */
  readonly oldest: DiskMoment | null;
  /** Captured, but only in the log's folder yet, in milliseconds of age of its oldest write; 0: all is in the store. */
  readonly shipLagMs: number;
  /** Up to this sequence, points hold everything. */
  readonly foldedSequence: number;
}

/** A disk that takes its content from a moment. */
export interface Taker {
  readonly site: string;
  /** The cloud's own id of it, there. */
  readonly volumeId: string;
}

export interface PinnedMoment {
  readonly volume: string;
  readonly sequence: number;
  readonly taker: Taker;
  /** Where the taker reads it. */
  readonly uri: string;
  /** When the taker asked for it last, in milliseconds since the epoch. */
  readonly since: number;
}

export interface VaultDesk extends AsyncDisposable {
  /**
   * Takes in a volume of a group, or goes on with it; a larger size is taken over. Answers where its writes go, and the group's history
   * (`GroupStatus`). Errors: `state.fenced` under an epoch older than the group's.
   */
  protect(
    group: string,
    volume: { readonly volume: string; readonly sizeBytes: number; readonly epoch: number },
    signal: AbortSignal,
  ): Promise<{ readonly uri: string; readonly history: string }>;

  /** Takes in no more writes of it; what was captured stays as long as the policy says. */
  release(group: string, volume: string, signal: AbortSignal): Promise<void>;

  /**
   * When it returns, no write under an older epoch comes in any more, and all that had come is in the log. A lower epoch than the
   * group's changes nothing.
   */
  fence(group: string, epoch: number, signal: AbortSignal): Promise<void>;

  /**
   * The host says that its mirror is continuous, and it said so after the session was seen: from here on, moments of the volume are
   * whole. Nothing happens if another session has begun since.
   */
  markWhole(group: string, volume: string, session: number, signal: AbortSignal): Promise<void>;

  /**
   * The volume, taken in before, is brought to an image from here on, or so much of it has been written: answers where its blocks are
   * written to. What is said here is durable, so that whoever writes it goes on after a restart where it was. Errors: `state.fenced`;
   * `state.conflict` when the content that is here is not the image's base.
   */
  takeImage(
    group: string,
    volume: { readonly volume: string; readonly epoch: number; readonly image: KeptImage },
    signal: AbortSignal,
  ): Promise<{ readonly uri: string }>;

  /** All of it has been written: its instant is a moment. Said again, it is as it was. Errors: `state.fenced`, `state.conflict`. */
  completeImage(
    group: string,
    volume: { readonly volume: string; readonly epoch: number; readonly image: string },
    signal: AbortSignal,
  ): Promise<void>;

  /** From memory: costs nothing. Empty where nothing was ever taken in. */
  volumes(group: string, signal: AbortSignal): Promise<readonly KeptVolume[]>;

  /** Undefined: nothing of the group was ever taken in. */
  status(group: string, signal: AbortSignal): Promise<GroupStatus | undefined>;

  /**
   * The last whole moment not after `atMs` (null: of all): of the log's window, or before it that of a recovery point. Errors:
   * `not_found`.
   */
  moment(group: string, atMs: number | null, signal: AbortSignal): Promise<DiskMoment>;

  /**
   * Where the volume's content at the moment is served, read-only. It is kept while somebody is connected, and half an hour after: for a
   * reader that reads it and is done. Errors: `not_found`; `state.conflict` for a volume that was not whole then.
   */
  serve(
    group: string,
    volume: string,
    moment: DiskMoment,
    signal: AbortSignal,
  ): Promise<{ readonly uri: string; readonly sizeBytes: number }>;

  /**
   * As `serve`, for a disk that takes its content from there for as long as it has not all of it: kept, also over restarts and while
   * nobody is connected, until `unpin`. Said again by the same taker, it is as it was.
   */
  pin(
    group: string,
    volume: string,
    moment: DiskMoment,
    taker: Taker,
    signal: AbortSignal,
  ): Promise<{ readonly uri: string; readonly sizeBytes: number }>;

  /** The taker has all of it, or wants it no more. Also where there is no such pin. */
  unpin(
    group: string,
    pin: Pick<PinnedMoment, "volume" | "sequence" | "taker">,
    signal: AbortSignal,
  ): Promise<void>;

  /** From memory: costs nothing. */
  pins(group: string, signal: AbortSignal): Promise<readonly PinnedMoment[]>;

  /**
   * Keeps a recovery point: its disks as points of the vault at exactly its moment, and what it ties together as a sealed object, so that
   * it outlives the log's window and the caller's own records. A disk that was not whole at the moment is left out of it. Said again, it
   * is as it was. Errors: `not_found` when its moment is gone, `state.conflict` when no disk of it was whole.
   */
  keepPoint(group: string, point: KeptPoint, signal: AbortSignal): Promise<void>;

  /** It was booted and probed. Said again, it is as it was. */
  keepVerdict(
    group: string,
    point: { readonly id: string; readonly at: number },
    verdict: KeptVerdict,
    signal: AbortSignal,
  ): Promise<void>;

  /** What was seen when it was booted and probed, as JSON. Said again, it is as it was. */
  keepEvidence(
    group: string,
    point: { readonly id: string; readonly at: number },
    evidence: { readonly at: number; readonly text: string },
    signal: AbortSignal,
  ): Promise<void>;

  /** The last of it. Errors: `not_found`. */
  keptEvidence(group: string, id: string, signal: AbortSignal): Promise<string>;

  /** Newest first; without their configuration, which may be large. Also of a group of which there is no log here. */
  keptPoints(group: string, signal: AbortSignal): Promise<readonly KeptPointFacts[]>;

  /** Errors: `not_found`. */
  keptConfiguration(group: string, id: string, signal: AbortSignal): Promise<string>;
}

export type KeptPointFacts = Omit<StoredPoint, "configuration">;
