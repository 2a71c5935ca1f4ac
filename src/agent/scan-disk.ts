/** Reads a disk from end to end, and gives what is not as its leaves say to the builder. */
import { leafBytes } from "#wire/agent/leaf-runs.ts";
import { passBlockBytes } from "#wire/agent/pass-part.ts";
import { isZeroLeaf, leafFor, type LeafFile } from "./leaf-file.ts";
import type { PartBuilder } from "./part-builder.ts";
import { readChunkBytes, type SourceDisk } from "./source-disk.ts";

export interface ScanOptions {
  readonly disk: SourceDisk;
  /** Index among the pass's volumes. */
  readonly volume: number;
  readonly leaves: LeafFile;
  readonly builder: PartBuilder;
  readonly onProgress: (bytes: number) => void;
}

/** What is collected at its end is still the builder's to flush. */
export async function scanDisk(options: ScanOptions, signal: AbortSignal): Promise<void> {
  const { disk, volume, leaves, builder, onProgress } = options;
  for (let from = 0; from < disk.sizeBytes; from += readChunkBytes) {
    signal.throwIfAborted();
    const chunk = await disk.read(from, Math.min(readChunkBytes, disk.sizeBytes - from));
    const known = await leaves.read(from / passBlockBytes, Math.ceil(chunk.length / passBlockBytes));
    for (let at = 0, index = 0; at < chunk.length; at += passBlockBytes, index += 1) {
      const content = chunk.subarray(at, at + passBlockBytes);
      const leaf = leafFor(content);
      if (leaf.equals(known.subarray(index * leafBytes, (index + 1) * leafBytes))) continue;
      await builder.add(volume, from + at, content.length, isZeroLeaf(leaf) ? null : content, signal);
    }
    onProgress(chunk.length);
  }
}
