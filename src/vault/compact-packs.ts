import { type BlobKind, type BlobRef, SESSION_BYTES } from "./block-ref.ts";
import { holdLease } from "./leases.ts";
import { writeMoved } from "./moved-blobs.ts";
import { PackSink } from "./pack-sink.ts";
import type { VaultContext } from "./vault-context.ts";

/** One pack's worth of plain bytes at a time. */
const BATCH = 32;

export interface LiveBlob {
  readonly kind: BlobKind;
  readonly ref: BlobRef;
}

/**
 * Stores what is still needed of these packs anew, and says where it is: `moved/<pack>`. The packs are then needed by nothing, and go the way of
 * garbage. Killed anywhere, it leaves spare copies, which are garbage too. Returns how many packs were emptied.
 */
export async function compactPacks(
  context: VaultContext,
  packs: ReadonlyMap<string, readonly LiveBlob[]>,
  signal?: AbortSignal,
): Promise<number> {
  if (packs.size === 0) return 0;
  const session = context.random.hex(SESSION_BYTES);
  const lease = await holdLease(context, "write", session, signal);
  try {
    const sink = new PackSink(context, session, signal);
    for (const blobs of packs.values()) {
      const sorted = blobs.toSorted((a, b) => a.kind - b.kind || a.ref.offset - b.ref.offset);
      for (let from = 0; from < sorted.length; from += BATCH) {
        const batch = sorted.slice(from, from + BATCH);
        for (const [kind, some] of Map.groupBy(batch, (blob) => blob.kind)) {
          const refs = some.map(({ ref }) => ref);
          const plain = await context.blobs.readAll(kind, refs, signal);
          for (const [at, bytes] of plain.entries())
            await sink.add(kind, Buffer.from((refs[at] as BlobRef).id, "hex"), bytes);
        }
      }
    }
    const places = await sink.finish();
    lease.check();
    for (const [pack, blobs] of packs) {
      const moved = blobs.flatMap(({ ref }) => places.get(ref.id) ?? []);
      await writeMoved(context.storage, context.keys, pack, context.random.hex(8), moved, []);
    }
    return packs.size;
  } finally {
    await lease.release();
  }
}
