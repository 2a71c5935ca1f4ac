import type { BlockReader } from "#model/block-device.ts";
import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES, type BlobRef, SESSION_BYTES, blobKinds, packName } from "./block-ref.ts";
import { blobId } from "./blob-codec.ts";
import { type IndexedPack, MOST_INDEXED, decodeIndex, encodeIndex } from "./index-object.ts";
import { holdLease } from "./leases.ts";
import { readDistrusted, writeMoved } from "./moved-blobs.ts";
import { PackSink } from "./pack-sink.ts";
import { parsePointId } from "./point-manifest.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import type { VaultContext } from "./vault-context.ts";
import { type LostBlob, type VerifyReport, readDirectory, verifyVault } from "./verify-vault.ts";

export interface RepairOptions {
  /** Disks that may still hold what was lost, by volume: the living volume, or a restored copy. */
  readonly sources?: ReadonlyMap<string, BlockReader>;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface RepairReport {
  /** As it was found. */
  readonly found: VerifyReport;
  /** Blobs that are whole again: found elsewhere in the vault, or stored anew from a source. */
  readonly repairedBlobs: number;
  /** Blobs that no source holds: the ranges that need them stay unreadable. New points do not build on them. */
  readonly lostBlobs: number;
  /** Packs that no readable index named, and that one names now. */
  readonly reindexedPacks: number;
  readonly removed: readonly string[];
}

/**
 * Verifies in full, then mends what can be mended without rewriting anything: an index from the packs' own directories, and blocks from sources that
 * still hold them, each checked against its id. Safe to repeat, and to be killed anywhere.
 */
export async function repairVault(context: VaultContext, options: RepairOptions): Promise<RepairReport> {
  const { signal } = options;
  const found = await verifyVault(context, { depth: "full", ...options });
  const session = context.random.hex(SESSION_BYTES);
  const lease = await holdLease(context, "write", session, signal);
  try {
    const removed = await removeBrokenIndex(context, found, signal);
    const reindexedPacks = await reindex(context, found, session, signal);
    const lost = [...new Map(found.lostBlobs.map((one) => [`${one.ref.pack}:${one.ref.id}`, one])).values()];
    const elsewhere = await findElsewhere(context, lost, signal);
    const anew = await storeAnew(
      context,
      session,
      found.lostBlobs.filter(({ ref }) => !elsewhere.has(ref.id)),
      options,
    );
    lease.check();
    const places = new Map([...elsewhere, ...anew]);
    const known = await readDistrusted(context.storage, context.keys, signal);
    const byPack = Map.groupBy(lost, ({ ref }) => ref.pack);
    for (const [pack, blobs] of byPack) {
      const moved = blobs.flatMap(({ ref }) => places.get(ref.id) ?? []);
      const gone = blobs.flatMap(({ ref }) =>
        places.has(ref.id) || known.has(`${pack}:${ref.id}`) ? [] : [ref.id],
      );
      if (moved.length + gone.length === 0) continue;
      await writeMoved(context.storage, context.keys, pack, context.random.hex(8), moved, gone);
    }
    const repairedBlobs = lost.filter(({ ref }) => places.has(ref.id)).length;
    return { found, repairedBlobs, lostBlobs: lost.length - repairedBlobs, reindexedPacks, removed };
  } finally {
    await lease.release();
  }
}

/** An index object that cannot be read serves nobody. Under a retention lock it stays, and is passed over. */
async function removeBrokenIndex(
  context: VaultContext,
  found: VerifyReport,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const removed: string[] = [];
  for (const { object } of found.findings) {
    if (!object.startsWith("index/")) continue;
    try {
      await context.storage.delete(object, signal);
      removed.push(object);
    } catch (error) {
      if (!isOperational(error, "auth.forbidden")) throw error;
    }
  }
  return removed;
}

/** Names the packs that no readable index names, from their directories. */
async function reindex(
  context: VaultContext,
  found: VerifyReport,
  session: string,
  signal: AbortSignal | undefined,
): Promise<number> {
  const named = new Set<string>();
  await eachIndex(context, signal, (packs) => packs.forEach((pack) => named.add(pack)));
  const damaged = new Set(found.findings.map(({ object }) => object));
  let batch: IndexedPack[] = [];
  let [blobs, count, number] = [0, 0, 0];
  const put = async (): Promise<void> => {
    if (batch.length === 0) return;
    const name = `index/${session}-${number}`;
    number += 1;
    await context.storage.put(name, [seal(context.keys, sealKinds.index, name, encodeIndex(batch))], signal);
    batch = [];
    blobs = 0;
  };
  for await (const { name, sizeBytes } of context.storage.list("packs/", signal)) {
    const pack = name.slice(name.lastIndexOf("/") + 1);
    if (named.has(pack) || damaged.has(name)) continue;
    const directory = await readDirectory(context, pack, sizeBytes, signal);
    if (blobs + directory.length > MOST_INDEXED / 4) await put();
    batch.push({ pack, directory });
    blobs += directory.length;
    count += 1;
  }
  await put();
  return count;
}

async function eachIndex(
  context: VaultContext,
  signal: AbortSignal | undefined,
  visit: (packs: readonly string[], each: ReturnType<typeof decodeIndex>["each"]) => void,
): Promise<void> {
  for await (const { name } of context.storage.list("index/", signal)) {
    try {
      const sealed = await context.storage.get(name, undefined, signal);
      const index = decodeIndex(name, unseal(context.keys, sealKinds.index, name, sealed));
      visit(index.packs, (each) => index.each(each));
    } catch (error) {
      // Named by the verification already.
      if (!isOperational(error, "vault.damaged") && !isOperational(error, "not_found")) throw error;
    }
  }
}

/** The same content may stand in another pack: two threads stored it at once, or a later point stored it again. */
async function findElsewhere(
  context: VaultContext,
  lost: readonly LostBlob[],
  signal: AbortSignal | undefined,
): Promise<Map<string, BlobRef>> {
  const wanted = new Map(lost.map(({ ref, kind }) => [ref.id, { from: ref.pack, kind }]));
  const candidates: BlobRef[] = [];
  await eachIndex(context, signal, (packs, each) =>
    each((id, number, { offset, storedLength, plainLength, codec }) => {
      const text = id.toString("hex");
      const pack = packs[number];
      if (pack === undefined || !wanted.has(text) || wanted.get(text)?.from === pack) return;
      candidates.push({ id: text, pack, offset, storedLength, plainLength, codec });
    }),
  );
  const places = new Map<string, BlobRef>();
  for (const ref of candidates) {
    const kind = wanted.get(ref.id)?.kind;
    if (kind === undefined || places.has(ref.id)) continue;
    try {
      const range = { offset: ref.offset, length: ref.storedLength };
      context.blobs.decode(kind, ref, await context.storage.get(packName(ref.pack), range, signal), true);
      places.set(ref.id, ref);
    } catch (error) {
      const expected = ["vault.damaged", "not_found", "disk.range"] as const;
      if (!expected.some((code) => isOperational(error, code))) throw error;
    }
  }
  return places;
}

/** Stores blocks again whose content a source still has, at the place where some point has it. */
async function storeAnew(
  context: VaultContext,
  session: string,
  lost: readonly LostBlob[],
  { sources = new Map(), signal }: RepairOptions,
): Promise<ReadonlyMap<string, BlobRef>> {
  const sink = new PackSink(context, session, signal);
  const done = new Set<string>();
  for (const { kind, ref, point, offset } of lost) {
    const source = sources.get(parsePointId(point)?.volumeId ?? "");
    if (kind !== blobKinds.block || source === undefined || done.has(ref.id)) continue;
    const length = Math.min(BLOCK_BYTES, ref.plainLength);
    if (offset + length > source.sizeBytes) continue;
    const plain = await source.read(offset, length, signal);
    const id = blobId(context.keys, kind, plain);
    if (id.toString("hex") !== ref.id) continue;
    await sink.add(kind, id, plain);
    done.add(ref.id);
  }
  return sink.finish();
}
