/** Where segments lie. A port, so that tests can lose power; `open-segment-folder.ts` is the one on a disk. */

export interface SegmentFile {
  /**
   * All of the buffers, in order, from `position` on. A failure leaves any part of them written.
   * Errors: `store.full` (no space; nothing behind the parts written), `store.failing`.
   */
  write(buffers: readonly Buffer[], position: number): Promise<void>;
  /** What was written before the call is on stable storage. After a failure nothing is known any more: `store.failing`. */
  sync(): Promise<void>;
  /** Fills `buffer` from `position` on and says how much there was: less only at the end of the file. */
  read(buffer: Buffer, position: number): Promise<number>;
  sizeBytes(): Promise<number>;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

export interface SegmentFolder {
  /** For messages: the path. */
  readonly name: string;
  /** Names of all segments, in any order. */
  list(): Promise<string[]>;
  /** Fails if it exists. Its entry is durable only after `syncEntries`. Errors: `store.full`, `store.failing`. */
  create(name: string): Promise<SegmentFile>;
  /** To read. */
  open(name: string): Promise<SegmentFile>;
  /** No error if there is none. Durable after `syncEntries`. */
  remove(name: string): Promise<void>;
  syncEntries(): Promise<void>;
  /** Lets the folder's lock go. */
  close(): Promise<void>;
}

export const segmentName = (number: number): string => `${String(number).padStart(10, "0")}.seg`;

export function segmentNumber(name: string): number | undefined {
  const match = /^(\d{10})\.seg$/.exec(name);
  return match === null ? undefined : Number(match[1]);
}
