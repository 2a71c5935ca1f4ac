import type { Extent } from "#model/block-device.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { Span } from "./patch-record.ts";

/** Whether any of the sorted, merged spans touches [from, end). */
export function overlaps(spans: readonly Span[], from: number, end: number): boolean {
  const span = spans[firstEndingAfter(spans, from)];
  return span !== undefined && span.offset < end;
}

function firstEndingAfter(spans: readonly Span[], from: number): number {
  let [low, high] = [0, spans.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const span = spans[middle] as Span;
    if (span.offset + span.length <= from) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The changed spans within [from, end), by block of the leaf and relative to that block. */
export function* spansByBlock(
  spans: readonly Span[],
  from: number,
  end: number,
): Generator<[number, Span[]]> {
  let block = -1;
  let inBlock: Span[] = [];
  for (let at = firstEndingAfter(spans, from); at < spans.length; at += 1) {
    const span = spans[at] as Span;
    let start = Math.max(span.offset, from);
    const stop = Math.min(span.offset + span.length, end);
    if (start >= end) break;
    while (start < stop) {
      const n = Math.floor((start - from) / BLOCK_BYTES);
      const blockAt = from + n * BLOCK_BYTES;
      const length = Math.min(stop, blockAt + BLOCK_BYTES) - start;
      if (n !== block && inBlock.length > 0) {
        yield [block, inBlock];
        inBlock = [];
      }
      block = n;
      inBlock.push({ offset: start - blockAt, length });
      start += length;
    }
  }
  if (inBlock.length > 0) yield [block, inBlock];
}

/** A block is a hole, or zero, only if extents say so for all of it. */
export function blockKinds(extents: readonly Extent[], from: number, count: number): Extent["kind"][] {
  const kinds: (Extent["kind"] | undefined)[] = Array.from({ length: count });
  for (const extent of extents) {
    const first = Math.max(0, Math.floor((extent.offset - from) / BLOCK_BYTES));
    const last = Math.min(count, Math.ceil((extent.offset + extent.length - from) / BLOCK_BYTES));
    for (let n = first; n < last; n += 1) {
      const was = kinds[n];
      if (was === undefined) kinds[n] = extent.kind;
      else if (was !== extent.kind) kinds[n] = was === "data" || extent.kind === "data" ? "data" : "zero";
    }
  }
  return kinds.map((kind) => kind ?? "data");
}
