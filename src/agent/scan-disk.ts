/** Reads a disk, or what was written of it, and gives what is not as its leaves say to the builder. */
import { leafBytes } from "#wire/agent/leaf-runs.ts";
import { passBlockBytes } from "#wire/agent/pass-part.ts";
import type { DirtyBlocks } from "./dirty-blocks.ts";
import { isZeroLeaf, leafFor, type LeafFile } from "./leaf-file.ts";
import type { PartBuilder } from "./part-builder.ts";
import { readChunkBytes, type SourceDisk } from "./source-disk.ts";

export interface ScanOptions {
  readonly disk: SourceDisk;
  /** Index among the pass's volumes. */
  readonly volume: number;
  readonly leaves: LeafFile;
  readonly builder: PartBuilder;
  /** Null: all of it. */
  readonly only: DirtyBlocks | null;
  readonly onProgress: (bytes: number) => void;
}

/** What is collected at its end is still the builder's to flush. */
export async function scanDisk(options: ScanOptions, signal: AbortSignal): Promise<void> {
  const { disk, volume, leaves, builder, only, onProgress } = options;
  for (let from = 0; from < disk.sizeBytes; from += readChunkBytes) {
    signal.throwIfAborted();
    const length = Math.min(readChunkBytes, disk.sizeBytes - from);
    const span = only === null ? { from, end: from + length } : only.spanIn(from, length);
    if (span === undefined) continue;
    const chunk = await disk.read(span.from, span.end - span.from);
    const known = await leaves.read(span.from / passBlockBytes, Math.ceil(chunk.length / passBlockBytes));
    for (let at = 0, index = 0; at < chunk.length; at += passBlockBytes, index += 1) {
      const content = chunk.subarray(at, at + passBlockBytes);
      const leaf = leafFor(content);
      if (leaf.equals(known.subarray(index * leafBytes, (index + 1) * leafBytes))) continue;
      await builder.add(volume, span.from + at, content.length, isZeroLeaf(leaf) ? null : content, signal);
    }
    onProgress(chunk.length);
  }
}
