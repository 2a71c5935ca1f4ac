/** A volume's content: what the log's index says, and below it the base point, and below that zeroes. */
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { BlockReader, Extent, ExtentKind } from "#model/block-device.ts";
import type { ExtentIndex, IndexedExtent } from "./extent-index.ts";
import { chunkBytes } from "./segment-format.ts";
import type { SegmentShelf } from "./segment-shelf.ts";

export interface Layers {
  readonly shelf: SegmentShelf;
  readonly index: ExtentIndex;
  readonly base: BlockReader | undefined;
  readonly sizeBytes: number;
}

export function checkRange(sizeBytes: number, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && Number.isSafeInteger(offset + length) && offset + length <= sizeBytes)
    return;
  throw new OperationalError(
    "disk.range",
    `bytes ${offset} to ${offset + length} are not on a disk of ${sizeBytes}`,
  );
}

/** Chunks in one read of a long extent: 1 MiB. */
const chunksAtOnce = 16;

async function copyData(
  shelf: SegmentShelf,
  extent: IndexedExtent,
  into: Buffer,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { source } = extent;
  const segment = shelf.get(source.segment);
  invariant(segment !== undefined, "a segment that the index names is kept");
  const end = source.at + extent.length;
  for (let at = source.at; at < end;) {
    signal?.throwIfAborted();
    const first = Math.floor(at / chunkBytes);
    const last = Math.min(Math.floor((end - 1) / chunkBytes), first + chunksAtOnce - 1);
    const chunks =
      first === last
        ? [await shelf.chunk(source.segment, source, first, signal)]
        : await shelf.chunks(segment, source, first, last);
    for (const [index, chunk] of chunks.entries()) {
      const from = at - (first + index) * chunkBytes;
      at += chunk.copy(into, at - source.at, from, Math.min(chunk.length, from + end - at));
    }
  }
}

async function copyBase(
  layers: Layers,
  from: number,
  into: Buffer,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { base } = layers;
  const length = base === undefined ? 0 : Math.min(into.length, base.sizeBytes - from);
  if (base === undefined || length <= 0) return;
  (await base.read(from, length, signal)).copy(into);
}

export async function readLayers(
  layers: Layers,
  offset: number,
  length: number,
  signal?: AbortSignal,
): Promise<Buffer> {
  checkRange(layers.sizeBytes, offset, length);
  const out = Buffer.alloc(length);
  const extents = layers.index.overlapping(offset, offset + length);
  const needed = extents.filter(({ source }) => source.kind === "data").map(({ source }) => source.segment);
  const release = layers.shelf.lease(Math.min(Number.POSITIVE_INFINITY, ...new Set(needed)));
  try {
    let at = offset;
    for (const extent of extents) {
      if (extent.offset > at)
        await copyBase(layers, at, out.subarray(at - offset, extent.offset - offset), signal);
      const part = out.subarray(extent.offset - offset, extent.offset - offset + extent.length);
      if (extent.source.kind === "data") await copyData(layers.shelf, extent, part, signal);
      at = extent.offset + extent.length;
    }
    if (at < offset + length) await copyBase(layers, at, out.subarray(at - offset), signal);
    return out;
  } finally {
    release();
  }
}

/** Joins neighbours of one kind. */
function joined(extents: readonly Extent[]): Extent[] {
  const out: Extent[] = [];
  for (const extent of extents) {
    const last = out.at(-1);
    if (last !== undefined && last.kind === extent.kind)
      out[out.length - 1] = { ...last, length: last.length + extent.length };
    else out.push(extent);
  }
  return out;
}

async function baseExtents(
  layers: Layers,
  from: number,
  to: number,
  signal: AbortSignal | undefined,
): Promise<Extent[]> {
  const { base } = layers;
  const covered = Math.max(from, Math.min(to, base?.sizeBytes ?? 0));
  const found =
    base === undefined || covered === from ? [] : await base.extents(from, covered - from, signal);
  if (covered < to) found.push({ offset: covered, length: to - covered, kind: "hole" });
  return found;
}

export async function extentsOfLayers(
  layers: Layers,
  offset: number,
  length: number,
  signal?: AbortSignal,
): Promise<Extent[]> {
  checkRange(layers.sizeBytes, offset, length);
  const found: Extent[] = [];
  let at = offset;
  const end = offset + length;
  for (const extent of layers.index.overlapping(offset, end)) {
    if (extent.offset > at) found.push(...(await baseExtents(layers, at, extent.offset, signal)));
    const kind: ExtentKind = extent.source.kind;
    found.push({ offset: extent.offset, length: extent.length, kind });
    at = extent.offset + extent.length;
  }
  if (at < end) found.push(...(await baseExtents(layers, at, end, signal)));
  return joined(found);
}
