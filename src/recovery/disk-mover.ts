/** The content of disks, as a run takes it along with the environment. */
import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";

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
   * Waits until everything that was written until now is captured: for a site whose guests were stopped. Errors: `cloud.timeout`
   * when the capture does not get there in time.
   */
  settle(signal: AbortSignal): Promise<void>;

  /** From now on, nothing is captured that comes under an older fencing epoch, so that a source that lives on changes nothing. */
  fence(epoch: number, signal: AbortSignal): Promise<void>;

  /**
   * The disk's content is that of the moment when this returns, although it may still have to come over. Repeated, it does
   * nothing more. Errors: `not_found` for a disk that was not captured at that moment.
   */
  seed(site: string, disk: MovedDisk, moment: DiskMoment, signal: AbortSignal): Promise<void>;

  /** Writes what differs from the moment into a disk that no server uses now. */
  restore(site: string, disk: MovedDisk, moment: DiskMoment, signal: AbortSignal): Promise<RestoreReport>;

  /**
   * As `restore`, but at once: the disk is live as at the moment when this returns, and its content comes over while servers
   * run. What it held is gone from there.
   */
  replace(site: string, disk: MovedDisk, as: DiskReplacement, signal: AbortSignal): Promise<void>;
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
