import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES, type BlobKind, type BlobRef, FAN_OUT, type MapEntry, blobKinds } from "./block-ref.ts";
import { decodeNode, entriesIn, entrySpan, rootLevel } from "./map-node.ts";
import type { PointManifest } from "./point-manifest.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultContext } from "./vault-context.ts";

export interface WalkVisitor {
  /** Each reference, once for each node that holds it. Offset and length are of the disk's part that needs it. */
  blob(kind: BlobKind, ref: BlobRef, offset: number, length: number): void;
  /** A node that cannot be read; what lies below it is unknown. */
  broken(ref: BlobRef, offset: number, length: number, error: Error): void;
}

/**
 * Visits what the maps of points hold. A node that was seen in another point, or elsewhere, is not entered again, unless `seen` forgets it: points
 * share most of their nodes, so that all points cost little more than the distinct ones.
 */
export async function walkPoint(
  context: Pick<VaultContext, "blobs">,
  point: Pick<PointManifest, "root" | "sizeBytes">,
  seen: Set<string>,
  visitor: WalkVisitor,
  signal?: AbortSignal,
): Promise<void> {
  const { sizeBytes } = point;
  const node = async (level: number, index: number, ref: BlobRef): Promise<void> => {
    const offset = index * entrySpan(level + 1);
    const length = Math.min(sizeBytes, offset + entrySpan(level + 1)) - offset;
    visitor.blob(blobKinds.node, ref, offset, length);
    // The same node may stand at another place of a disk of another size: the number of entries belongs to its id.
    if (seen.has(ref.id)) return;
    let entries: MapEntry[];
    try {
      entries = decodeNode(`pack ${ref.pack}`, level, await context.blobs.read(blobKinds.node, ref, signal));
      if (entries.length !== entriesIn(sizeBytes, level, index))
        throw damaged(`pack ${ref.pack}`, "holds a map node of another disk's size");
    } catch (error) {
      if (!isOperational(error, "vault.damaged")) throw error;
      visitor.broken(ref, offset, length, error);
      return;
    }
    seen.add(ref.id);
    for (const [n, entry] of entries.entries()) {
      if (entry.kind === "hole" || entry.kind === "zero") continue;
      const child = index * FAN_OUT + n;
      if (level > 0) {
        await node(level - 1, child, entry.ref);
        continue;
      }
      const at = child * BLOCK_BYTES;
      const bytes = Math.min(BLOCK_BYTES, sizeBytes - at);
      visitor.blob(blobKinds.block, entry.ref, at, bytes);
      if (entry.kind === "patched") visitor.blob(blobKinds.patches, entry.patch.bundle, at, bytes);
    }
  };
  if (point.root.kind === "blob") await node(rootLevel(sizeBytes), 0, point.root.ref);
}
