import { z } from "zod";
import type { BlobRef } from "./block-ref.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

const hex = z.string().regex(/^[0-9a-f]{40}$/);
const place = z.tuple([hex, hex, z.int(), z.int(), z.int(), z.int()]);
const schema = z.strictObject({ pack: hex, blobs: z.array(place) });

/** A blob may move again from where it moved to; a longer chain than this is a circle. */
const LONGEST_CHAIN = 16;

/** Says that these blobs, once in `pack`, are elsewhere now. The new places are durable already. */
export async function writeMoved(
  storage: BlobStorage,
  keys: VaultKeys,
  pack: string,
  random: string,
  blobs: readonly BlobRef[],
): Promise<void> {
  const name = `moved/${pack}/${random}`;
  const rows = blobs.map((ref) => [
    ref.id,
    ref.pack,
    ref.codec,
    ref.offset,
    ref.storedLength,
    ref.plainLength,
  ]);
  const plain = Buffer.from(JSON.stringify({ pack, blobs: rows }));
  await storage.put(name, [seal(keys, sealKinds.moved, name, plain)]);
}

/** Where the blobs of a pack are now, by id. */
export async function readMoved(
  storage: BlobStorage,
  keys: VaultKeys,
  pack: string,
  signal?: AbortSignal,
): Promise<Map<string, BlobRef>> {
  const all = new Map<string, BlobRef>();
  for await (const { name } of storage.list(`moved/${pack}/`, signal)) {
    const plain = unseal(keys, sealKinds.moved, name, await storage.get(name, undefined, signal));
    const parsed = schema.safeParse(JSON.parse(plain.toString("utf8")));
    if (!parsed.success || parsed.data.pack !== pack)
      throw damaged(name, "is no list of moved blobs", parsed.error);
    for (const [id, to, codec, offset, storedLength, plainLength] of parsed.data.blobs)
      all.set(id, { id, pack: to, codec, offset, storedLength, plainLength });
  }
  return all;
}

/** Follows a blob to the first pack that is still there. Undefined if it has not moved. */
export function movedFinder(
  storage: BlobStorage,
  keys: VaultKeys,
): (ref: BlobRef, signal?: AbortSignal) => Promise<BlobRef | undefined> {
  return async (ref, signal) => {
    let last: BlobRef | undefined;
    for (let step = 0; step < LONGEST_CHAIN; step += 1) {
      const next = (await readMoved(storage, keys, (last ?? ref).pack, signal)).get(ref.id);
      if (next === undefined) return last;
      last = next;
    }
    return last;
  };
}

/** Pack -> blob id -> where it is now. */
export type MovedBlobs = ReadonlyMap<string, ReadonlyMap<string, BlobRef>>;

/** All of them: few, unless much was repaired. */
export async function readAllMoved(
  storage: BlobStorage,
  keys: VaultKeys,
  signal?: AbortSignal,
): Promise<Map<string, Map<string, BlobRef>>> {
  const packs = new Set<string>();
  for await (const { name } of storage.list("moved/", signal)) packs.add(name.split("/")[1] ?? "");
  const all = new Map<string, Map<string, BlobRef>>();
  for (const pack of packs) all.set(pack, await readMoved(storage, keys, pack, signal));
  return all;
}
