import { type ExtentIndex } from "./extent-index.ts";
import { type LogRecord, recordKind } from "./segment-format.ts";

export interface FramePlace {
  readonly segment: number;
  readonly frameNumber: number;
  readonly dataPosition: number;
  readonly dataBytes: number;
}

/** What a write, zero or trim does to its volume's index. */
export function applyRecord(index: ExtentIndex, record: LogRecord, place: FramePlace): void {
  const kind = record.kind === recordKind.data ? "data" : record.kind === recordKind.zero ? "zero" : "hole";
  const { sequence, at } = record;
  index.put(record.offset, record.offset + record.length, { kind, sequence, at, ...place });
}

/** Where a disk was cut, or grew, it reads as zeroes: whatever it had there before, itself or in its base, is gone. */
export function applyResize(index: ExtentIndex, fromBytes: number, toBytes: number, sequence: number): void {
  const nowhere = { segment: 0, frameNumber: 0, dataPosition: 0, dataBytes: 0, at: 0 };
  const [start, end] = [Math.min(fromBytes, toBytes), Math.max(fromBytes, toBytes)];
  index.put(start, end, { kind: "hole", sequence, ...nowhere });
}
