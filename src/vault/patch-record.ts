import { BLOCK_BYTES } from "./block-ref.ts";
import { damaged } from "./vault-damage.ts";

export interface Span {
  readonly offset: number;
  readonly length: number;
}

/** More than this much of a block changed: the block is stored whole again. Takes a cluster or two of a dirty bitmap of 64 KiB. */
export const LARGEST_PATCH = BLOCK_BYTES / 2 + 1024;
/** A bundle takes records until it has this many bytes. */
export const BUNDLE_TARGET = BLOCK_BYTES;

export function recordLength(spans: readonly Span[]): number {
  return 4 + spans.reduce((sum, span) => sum + 8 + span.length, 0);
}

/** Sorted, without overlaps, touching neighbours joined. */
export function mergeSpans(spans: readonly Span[]): Span[] {
  const merged: { offset: number; length: number }[] = [];
  for (const { offset, length } of spans.toSorted((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1);
    if (length === 0) continue;
    if (last !== undefined && offset <= last.offset + last.length)
      last.length = Math.max(last.length, offset + length - last.offset);
    else merged.push({ offset, length });
  }
  return merged;
}

/** The spans of a record, which must lie in order within the block. `where` is for the error. */
export function decodeSpans(
  where: string,
  record: Buffer,
  blockLength: number,
): { spans: Span[]; dataAt: number } {
  const wrong = (): never => {
    throw damaged(where, "holds a patch that makes no sense");
  };
  if (record.length < 4) wrong();
  const count = record.readUInt32LE(0);
  const dataAt = 4 + 8 * count;
  if (dataAt > record.length) wrong();
  const spans: Span[] = [];
  let [least, bytes] = [0, 0];
  for (let at = 4; at < dataAt; at += 8) {
    const span = { offset: record.readUInt32LE(at), length: record.readUInt32LE(at + 4) };
    if (span.offset < least || span.offset + span.length > blockLength) wrong();
    least = span.offset + span.length;
    bytes += span.length;
    spans.push(span);
  }
  if (dataAt + bytes !== record.length) wrong();
  return { spans, dataAt };
}

/** Writes the record's head at `at` and returns where its bytes begin. */
export function encodeSpans(target: Buffer, at: number, spans: readonly Span[]): number {
  let next = target.writeUInt32LE(spans.length, at);
  for (const span of spans) {
    next = target.writeUInt32LE(span.offset, next);
    next = target.writeUInt32LE(span.length, next);
  }
  return next;
}

/** Lays the record over the block, in place. */
export function applyRecord(where: string, block: Buffer, record: Buffer): void {
  const { spans, dataAt } = decodeSpans(where, record, block.length);
  let from = dataAt;
  for (const { offset, length } of spans) {
    record.copy(block, offset, from, from + length);
    from += length;
  }
}
