/** The content of disks, as a run takes it along with the environment. */
import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { KeptContent } from "#recovery/kept-contents.ts";

/** One instant of all captured disks of an environment. */
export interface DiskMoment {
  /** Of the write log: everything up to and with this number. */
  readonly sequence: number;
  /** When the last write of it was captured, in milliseconds since the epoch. */
  readonly at: number;
}

export interface MovedDisk {
  /** Its id where the environment is served from. */
  readonly sourceId: ResourceId;
  /** Its counterpart's id, at the site that it comes to. */
  readonly targetId: ResourceId;
}

/** What a mover knows of the environment whose disks it moves: always as it is now. */
export interface DiskContext {
  readonly environment: EnvironmentId;
  readonly state: () => EnvironmentState;
  readonly servingSite: () => string;
  /** The fencing epoch; undefined while a run moves the environment. */
  readonly epoch: () => number | undefined;
  /** Every command up to here is in the state. */
  readonly position: () => number;
}

export interface DiskMover {
  /**
   * The last moment at which the captured disks are whole, or the last one not after `atMs`. Errors: `not_found` when none
   * was captured by then, or it is kept no more.
   */
  moment(atMs: number | null, signal: AbortSignal): Promise<DiskMoment>;

  /**
   * Waits until what was written until now to the kept disks (or to those of `volumes`) is captured, for so long as that makes sense:
   * for a site whose guests were stopped. Errors: those of the vault.
   */
  settle(volumes: ReadonlySet<ResourceId> | null, signal: AbortSignal): Promise<Settled>;

  /** From now on, nothing is captured that comes under an older fencing epoch, so that a source that lives on changes nothing. */
  fence(epoch: number, signal: AbortSignal): Promise<void>;

  /**
   * The disk's content is that of the moment when this returns, although it may still have to come over. Repeated, it does
   * nothing more. Errors: `not_found` for a disk that was not captured at that moment.
   */
  seed(site: string, disk: MovedDisk, moment: DiskMoment, signal: AbortSignal): Promise<void>;

  /**
   * What a run has given the disk there, if nothing has been captured of it since: the moment that it was made, `half` if it is part
   * old and part new, null if neither. Costs no call of the site.
   */
  given(site: string, volumeId: ResourceId): Promise<KeptContent>;

  /**
   * A disk that is part old and part new is taken as it is, since a person says so: its host starts machines with it again. Any other
   * stays as it is too.
   */
  accept(site: string, volumeId: ResourceId, signal: AbortSignal): Promise<void>;

  /**
   * Whether `restore` or `replace` could begin: the vault serves the moment, its content can be read and has room, and the site has a
   * host that answers. Errors: what is in the way.
   */
  check(site: string, disk: MovedDisk, moment: DiskMoment, signal: AbortSignal): Promise<void>;

  /**
   * Writes what differs from the moment into a disk that no server uses now. Broken off half-way, no machine starts with it until it
   * was done again, to its end.
   */
  restore(site: string, disk: MovedDisk, moment: DiskMoment, signal: AbortSignal): Promise<RestoreReport>;

  /**
   * As `restore`, but at once: the disk is live as at the moment when this returns, and its content comes over while servers
   * run. What it held is gone from there.
   */
  replace(site: string, disk: MovedDisk, as: DiskReplacement, signal: AbortSignal): Promise<void>;
}

/** What was waited for, and what came of it. */
export interface Settled {
  /** Of these the vault does not have all that was written, and why; empty: it has everything. */
  readonly behind: readonly { readonly volumeId: ResourceId; readonly problem: string }[];
  /** Why the host of the site that serves says nothing of them; null: it does. */
  readonly silence: string | null;
}

/** A disk's replacement where it is. */
export interface DiskReplacement {
  readonly moment: DiskMoment;
  /** Names this one replacement: said again, nothing more is done. */
  readonly token: string;
}

export interface RestoreReport {
  readonly comparedBytes: number;
  readonly writtenBytes: number;
}
