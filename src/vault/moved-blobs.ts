import { z } from "zod";
import type { BlobRef } from "./block-ref.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

const hex = z.string().regex(/^[0-9a-f]{40}$/);
const place = z.tuple([hex, hex, z.int(), z.int(), z.int(), z.int()]);
const schema = z.strictObject({ pack: hex, blobs: z.array(place), lost: z.array(hex) });

/** A blob may move again from where it moved to; a longer chain than this is a circle. */
export const LONGEST_CHAIN = 16;

/** Says that these blobs, once in `pack`, are elsewhere now (the new places are durable already), and that those in `lost` are nowhere. */
export async function writeMoved(
  storage: BlobStorage,
  keys: VaultKeys,
  pack: string,
  random: string,
  blobs: readonly BlobRef[],
  lost: readonly string[],
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
  const plain = Buffer.from(JSON.stringify({ pack, blobs: rows, lost }));
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
  for (const { blobs } of await readLists(storage, keys, pack, signal))
    for (const ref of blobs) all.set(ref.id, ref);
  return all;
}

/** `pack:id` of every blob that is not to be trusted where it was, whether it moved or is lost. */
export async function readDistrusted(
  storage: BlobStorage,
  keys: VaultKeys,
  signal?: AbortSignal,
): Promise<Set<string>> {
  const all = new Set<string>();
  for (const pack of await packsWithLists(storage, signal))
    for (const { blobs, lost } of await readLists(storage, keys, pack, signal)) {
      for (const { id } of blobs) all.add(`${pack}:${id}`);
      for (const id of lost) all.add(`${pack}:${id}`);
    }
  return all;
}

async function packsWithLists(storage: BlobStorage, signal: AbortSignal | undefined): Promise<Set<string>> {
  const packs = new Set<string>();
  for await (const { name } of storage.list("moved/", signal)) packs.add(name.split("/")[1] ?? "");
  return packs;
}

async function readLists(
  storage: BlobStorage,
  keys: VaultKeys,
  pack: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly blobs: readonly BlobRef[]; readonly lost: readonly string[] }[]> {
  const lists: { blobs: BlobRef[]; lost: string[] }[] = [];
  for await (const { name } of storage.list(`moved/${pack}/`, signal)) {
    const plain = unseal(keys, sealKinds.moved, name, await storage.get(name, undefined, signal));
    const parsed = schema.safeParse(JSON.parse(plain.toString("utf8")));
    if (!parsed.success || parsed.data.pack !== pack)
      throw damaged(name, "is no list of moved blobs", parsed.error);
    const blobs = parsed.data.blobs.map(([id, to, codec, offset, storedLength, plainLength]): BlobRef => ({
      id,
      pack: to,
      codec,
      offset,
      storedLength,
      plainLength,
    }));
    lists.push({ blobs, lost: parsed.data.lost });
  }
  return lists;
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
  const all = new Map<string, Map<string, BlobRef>>();
  for (const pack of await packsWithLists(storage, signal))
    all.set(pack, await readMoved(storage, keys, pack, signal));
  return all;
}
