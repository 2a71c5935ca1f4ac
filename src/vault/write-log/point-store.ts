/**
 * What the write log asks of the vault: points of volumes, committed once and whole. Kept narrow, so that the log can be tested without a
 * vault and the vault without a log.
 */
import type { BlockReader, Extent } from "#model/block-device.ts";
import type { Consistency } from "./log-event.ts";

export interface CommittedPoint {
  readonly id: string;
  readonly group: string;
  readonly volumeId: string;
  /** It holds the volume as of this record of the group's log, */
  readonly sequence: number;
  /** which was written at this time. */
  readonly timeMs: number;
  readonly sizeBytes: number;
  /** False: made while the volume was being synchronised. A base for later points, never one to recover from. */
  readonly whole: boolean;
  readonly consistency: Consistency;
}

export interface NewPoint extends Omit<CommittedPoint, "id"> {
  readonly base: CommittedPoint | undefined;
  /** The whole content at that moment. */
  readonly source: BlockReader;
  /** Where it may differ from the base, in order, disjoint. Without a base all else is zeroes. */
  readonly changed: readonly Extent[];
}

export interface PointStore {
  /** Committed points of the volume, by ascending sequence. */
  list(group: string, volumeId: string, signal?: AbortSignal): Promise<CommittedPoint[]>;
  open(point: CommittedPoint, signal?: AbortSignal): Promise<BlockReader>;
  /** Committed when it returns. May be repeated: a second point of the same moment does no harm. */
  write(point: NewPoint, signal?: AbortSignal): Promise<CommittedPoint>;
}

/** A log that is not folded. */
export const noPoints: PointStore = {
  list: async () => [],
  open: async () => {
    throw new Error("there are no points");
  },
  write: async () => {
    throw new Error("there is no vault to fold into");
  },
};
