/** Writes into a disk only what differs from a source: what a return brings home is a delta, and a disk keeps its other blocks. */
import type { BlockDevice, BlockReader, Extent } from "#model/block-device.ts";
import type { RestoreReport } from "#recovery/disk-mover.ts";

/** Compared in pieces of this size; what differs is written in runs of `blockBytes`. */
const pieceBytes = 1024 * 1024;
const blockBytes = 4096;
/** Pieces under way at once: bounds memory, hides the latency of both sides. */
const atOnce = 8;

export interface RestoreProgress {
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface InPlaceOptions {
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/**
 * Afterwards the target begins with exactly the source's bytes, durably; a target that is larger keeps its tail. Memory: a fixed
 * number of pieces, whatever the disk's size. Holes of the source cost no reading of it.
 */
export async function restoreInPlace(
  source: BlockReader,
  target: BlockDevice,
  { signal, onProgress }: InPlaceOptions,
): Promise<RestoreReport> {
  const totalBytes = source.sizeBytes;
  let doneBytes = 0;
  let writtenBytes = 0;
  const pieces = piecesOf(source, target, signal);
  const work = async (): Promise<void> => {
    for (;;) {
      signal.throwIfAborted();
      const next = await pieces.next();
      if (next.done === true) return;
      const piece = next.value;
      const written = await restorePiece(source, target, piece, signal);
      writtenBytes += written;
      doneBytes += piece.length;
      onProgress?.({ doneBytes, totalBytes });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  await target.flush(signal);
  return { comparedBytes: totalBytes, writtenBytes };
}

/** Window of one question for extents: bounded answers, also for a huge sparse disk. */
const windowBytes = 1024 * 1024 * 1024;

interface Piece extends Extent {
  /** The target's extent is known to read as zeroes. */
  readonly targetZero: boolean;
}

/** What both sides say is zero is not looked at; the rest comes in pieces. */
async function* piecesOf(
  source: BlockReader,
  target: BlockReader,
  signal: AbortSignal,
): AsyncGenerator<Piece, void, void> {
  for (let from = 0; from < source.sizeBytes; from += windowBytes) {
    const length = Math.min(windowBytes, source.sizeBytes - from);
    const wanted = await source.extents(from, length, signal);
    const there = await target.extents(from, length, signal);
    for (const piece of overlay(wanted, there)) {
      if (piece.kind !== "data" && piece.targetZero) continue;
      for (let at = piece.offset; at < piece.offset + piece.length; at += pieceBytes) {
        yield { ...piece, offset: at, length: Math.min(pieceBytes, piece.offset + piece.length - at) };
      }
    }
  }
}

/** The ranges on which neither side changes its kind. Both cover the same range in order. */
export function* overlay(source: readonly Extent[], target: readonly Extent[]): Generator<Piece> {
  let i = 0;
  let j = 0;
  let at = source[0]?.offset ?? 0;
  for (;;) {
    const [left, right] = [source[i], target[j]];
    if (left === undefined || right === undefined) return;
    const end = Math.min(left.offset + left.length, right.offset + right.length);
    yield { offset: at, length: end - at, kind: left.kind, targetZero: right.kind !== "data" };
    at = end;
    if (left.offset + left.length === end) i += 1;
    if (right.offset + right.length === end) j += 1;
  }
}

/** Answers how many bytes were written. */
async function restorePiece(
  source: BlockReader,
  target: BlockDevice,
  { offset, length, kind, targetZero }: Piece,
  signal: AbortSignal,
): Promise<number> {
  const [wanted, present] = await Promise.all([
    kind === "data" ? source.read(offset, length, signal) : Buffer.alloc(length),
    targetZero ? Buffer.alloc(length) : target.read(offset, length, signal),
  ]);
  if (wanted.equals(present)) return 0;
  let written = 0;
  for (const { from, to } of differingRuns(wanted, present)) {
    await target.write(offset + from, wanted.subarray(from, to), { signal });
    written += to - from;
  }
  return written;
}

/** Runs of whole blocks that differ; the last block may be short. */
export function* differingRuns(
  wanted: Buffer,
  present: Buffer,
): Generator<{ readonly from: number; readonly to: number }> {
  let from = -1;
  for (let at = 0; at < wanted.length; at += blockBytes) {
    const to = Math.min(at + blockBytes, wanted.length);
    const same = wanted.compare(present, at, to, at, to) === 0;
    if (!same && from < 0) from = at;
    if (same && from >= 0) {
      yield { from, to: at };
      from = -1;
    }
  }
  if (from >= 0) yield { from, to: wanted.length };
}
