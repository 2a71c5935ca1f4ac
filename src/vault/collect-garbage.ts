import { isOperational } from "#kernel/errors.ts";
import { SESSION_BYTES, packName } from "./block-ref.ts";
import { type Condemnation, readCondemnations, writeCondemnation } from "./condemned.ts";
import { decodeIndex, encodeIndex } from "./index-object.ts";
import { readLeases, removeExpiredLeases } from "./leases.ts";
import { type LiveBlob, compactPacks } from "./compact-packs.ts";
import { listPacks } from "./list-packs.ts";
import { LONGEST_CHAIN, type MovedBlobs, readAllMoved } from "./moved-blobs.ts";
import type { PackEntry } from "./pack-format.ts";
import { type PointManifest, decodeManifest, parsePointId, pointObject } from "./point-manifest.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import type { VaultContext } from "./vault-context.ts";
import { walkPoint } from "./walk-points.ts";

export interface CollectionResult {
  /** Packs that nothing needs, listed for deletion by a later run. */
  readonly condemnedPacks: number;
  /** Packs whose last needed blobs were stored anew, so that the packs can go. */
  readonly compactedPacks: number;
  readonly deletedPacks: number;
  readonly deletedBytes: number;
  /** Why something was left for later; empty when nothing was. */
  readonly waiting: readonly string[];
}

export interface CollectionOptions {
  /** A pack with less than this share of its bytes still needed is emptied: what is needed is stored anew. 0: never. Default 0.4. */
  readonly compactBelow?: number;
  /** More small index objects than this become few large ones. Default 32. */
  readonly mergeIndexAbove?: number;
  readonly signal?: AbortSignal | undefined;
}

const sessionOf = (pack: string): string => pack.slice(0, SESSION_BYTES * 2);

/**
 * One run of collection: carries out earlier condemnations that are safe now, then condemns what nothing needs. See docs/spec/vault.md, section 8.
 * Throws `vault.damaged`, having deleted nothing, when a map or a manifest cannot be read: what lies below it would look like garbage.
 */
export async function collectGarbage(
  context: VaultContext,
  { compactBelow = 0.4, mergeIndexAbove = 32, signal }: CollectionOptions = {},
): Promise<CollectionResult> {
  const waiting: string[] = [];
  const condemned = await readCondemnations(context, signal);
  const writers = (await readLeases(context, signal)).filter((lease) => lease.kind === "write");
  const marked = await mark(context, signal);
  if ("waitFor" in marked)
    return {
      condemnedPacks: 0,
      compactedPacks: 0,
      deletedPacks: 0,
      deletedBytes: 0,
      waiting: [marked.waitFor],
    };
  const packs = await listPacks(context, signal);
  let [deletedPacks, deletedBytes] = [0, 0];
  for (const one of condemned) {
    const older = writers.find((lease) => lease.startedAtMs <= one.atMs + SAFE_ORDER_MS);
    if (older !== undefined) {
      waiting.push(
        `a point that is being written since ${new Date(older.startedAtMs).toISOString()} may use condemned packs`,
      );
      continue;
    }
    const dead = one.packs.filter((pack) => !marked.live.has(pack));
    await dropFromIndex(context, new Set(dead), signal);
    for (const pack of dead) {
      deletedPacks += packs.has(pack) ? 1 : 0;
      deletedBytes += packs.get(pack) ?? 0;
      await context.storage.delete(packName(pack), signal);
      packs.delete(pack);
    }
    await context.storage.delete(one.name, signal);
  }
  await dropMoved(context, packs, marked, signal);
  const compactedPacks = await compact(context, packs, marked, condemned, compactBelow, signal);
  const condemnedPacks = await condemn(context, packs, marked, condemned);
  await mergeIndex(context, mergeIndexAbove, signal);
  await dropReads(context, marked.volumes, signal);
  await removeExpiredLeases(context, signal);
  return { condemnedPacks, compactedPacks, deletedPacks, deletedBytes, waiting };
}

/** Clocks differ: a writer that began up to this long after a condemnation, by its own clock, may have begun before it. */
const SAFE_ORDER_MS = 5 * 60_000;

async function condemn(
  context: VaultContext,
  packs: ReadonlyMap<string, number>,
  marked: Marked,
  already: readonly Condemnation[],
): Promise<number> {
  const listed = new Set(already.flatMap((one) => one.packs));
  // A session whose pack was listed held a lease at that time. It is either among those read just after, or its point is among those marked.
  const dead = [...marked.packsBefore].filter(
    (pack) =>
      packs.has(pack) &&
      !marked.live.has(pack) &&
      !listed.has(pack) &&
      !marked.busyBefore.has(sessionOf(pack)),
  );
  if (dead.length > 0) await writeCondemnation(context, dead);
  return dead.length;
}

interface Marked {
  /** Packs that some point needs. */
  readonly live: ReadonlySet<string>;
  /** Packs that some map or forwarding names, whether they are still needed or not. */
  readonly named: ReadonlySet<string>;
  readonly neededBytes: ReadonlyMap<string, number>;
  /** Packs that were there, and sessions that held a lease, before the points were listed. */
  readonly packsBefore: ReadonlySet<string>;
  readonly busyBefore: ReadonlySet<string>;
  readonly moved: MovedBlobs;
  /** Encoded names of the volumes that have points. */
  readonly volumes: ReadonlySet<string>;
}

/** Finds what the points need. The order matters: packs, leases, points, leases. */
async function mark(
  context: VaultContext,
  signal: AbortSignal | undefined,
): Promise<Marked | { readonly waitFor: string }> {
  const packsBefore = new Set((await listPacks(context, signal)).keys());
  const busyBefore = new Set((await readLeases(context, signal)).map((lease) => lease.subject));
  const live = new Set<string>();
  const named = new Set<string>();
  const neededBytes = new Map<string, number>();
  const seen = new Set<string>();
  const moved = await readAllMoved(context.storage, context.keys, signal);
  const points = await eachPoint(context, signal, (point) =>
    walkPoint(
      context,
      point,
      seen,
      {
        blob(_kind, ref) {
          named.add(ref.pack);
          let at = ref;
          for (let step = 0; step < LONGEST_CHAIN; step += 1) {
            const next = moved.get(at.pack)?.get(ref.id);
            if (next === undefined) break;
            at = next;
            named.add(at.pack);
          }
          live.add(at.pack);
          // Counted once for each node that names it: too much rather than too little.
          neededBytes.set(at.pack, (neededBytes.get(at.pack) ?? 0) + at.storedLength);
        },
        broken(_ref, _offset, _length, error) {
          throw error;
        },
      },
      signal,
    ),
  );
  for (const lease of await readLeases(context, signal))
    if (lease.kind === "read" && !points.has(lease.subject))
      return { waitFor: `the point ${lease.subject} was deleted while it is being read` };
  const volumes = new Set([...points].map((point) => point.slice(0, point.indexOf("/"))));
  return { live, named, neededBytes, packsBefore, busyBefore, moved, volumes };
}

/** Hands over each point that is there; returns their ids. */
async function eachPoint(
  context: VaultContext,
  signal: AbortSignal | undefined,
  visit: (point: PointManifest) => Promise<void>,
): Promise<Set<string>> {
  const points = new Set<string>();
  for await (const { name } of context.storage.list("points/", signal)) {
    const point = parsePointId(name.slice("points/".length));
    if (point === undefined) continue;
    let bytes: Buffer;
    try {
      bytes = await context.storage.get(pointObject(point.id), undefined, signal);
    } catch (error) {
      // Deleted meanwhile.
      if (isOperational(error, "not_found")) continue;
      throw error;
    }
    points.add(point.id);
    await visit(decodeManifest(context.keys, point.id, bytes));
  }
  return points;
}

/** Replaces each index object that names one of these packs by one that does not. */
async function dropFromIndex(
  context: VaultContext,
  dead: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { storage, keys } = context;
  const names: string[] = [];
  for await (const { name } of storage.list("index/", signal)) names.push(name);
  for (const name of names) {
    const index = decodeIndex(
      name,
      unseal(keys, sealKinds.index, name, await storage.get(name, undefined, signal)),
    );
    if (!index.packs.some((pack) => dead.has(pack))) continue;
    const left = index.packs.map((pack) => ({ pack, directory: [] as PackEntry[] }));
    index.each((id, number, entry) => left[number]?.directory.push({ id: id.toString("hex"), ...entry }));
    const kept = left.filter(({ pack }) => !dead.has(pack));
    if (kept.length > 0) {
      const fresh = `index/${context.random.hex(SESSION_BYTES)}-0`;
      await storage.put(fresh, [seal(keys, sealKinds.index, fresh, encodeIndex(kept))], signal);
    }
    await storage.delete(name, signal);
  }
}

/** A volume may be read before it has its first point. */
const READS_WITHOUT_POINTS_MS = 7 * 24 * 3_600_000;

/** What is fetched first of a volume goes with its last point; whoever wrote it comes back no more to replace it. */
async function dropReads(
  { storage, clock }: VaultContext,
  volumes: ReadonlySet<string>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const names: string[] = [];
  for await (const { name } of storage.list("reads/", signal)) {
    const [, volume = "", atMs] = /^reads\/[^/]+\/([^/]+)\/[a-z]+-(\d{15})$/u.exec(name) ?? [];
    const old = atMs !== undefined && clock.now() - Number(atMs) > READS_WITHOUT_POINTS_MS;
    if (old && !volumes.has(volume)) names.push(name);
  }
  for (const name of names) await storage.delete(name, signal);
}

/** Each point leaves an index object; a writer that opens the vault reads them all. Killed in the midst, it leaves some blobs indexed twice. */
async function mergeIndex(
  context: VaultContext,
  above: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { storage, keys } = context;
  const small: string[] = [];
  for await (const { name, sizeBytes } of storage.list("index/", signal))
    if (sizeBytes < SMALL_INDEX) small.push(name);
  if (small.length <= above) return;
  let packs = new Map<string, PackEntry[]>();
  let merged: string[] = [];
  let blobs = 0;
  const put = async (): Promise<void> => {
    const fresh = `index/${context.random.hex(SESSION_BYTES)}-0`;
    const index = encodeIndex([...packs].map(([pack, directory]) => ({ pack, directory })));
    if (merged.length > 1) {
      await storage.put(fresh, [seal(keys, sealKinds.index, fresh, index)], signal);
      for (const name of merged) await storage.delete(name, signal);
    }
    [packs, merged, blobs] = [new Map(), [], 0];
  };
  for (const name of small) {
    const index = decodeIndex(
      name,
      unseal(keys, sealKinds.index, name, await storage.get(name, undefined, signal)),
    );
    if (blobs + index.count > MERGED_BLOBS) await put();
    // An index object holds whole directories: a pack that was met before is simply taken anew.
    for (const pack of index.packs) packs.set(pack, []);
    index.each((id, number, entry) =>
      packs.get(index.packs[number] ?? "")?.push({ id: id.toString("hex"), ...entry }),
    );
    merged.push(name);
    blobs += index.count;
  }
  await put();
}

const SMALL_INDEX = 1024 * 1024;
const MERGED_BLOBS = 2 ** 16;

/** Forwarding is needed as long as some map still names the old place, or the pack is there and must not be trusted. */
async function dropMoved(
  context: VaultContext,
  packs: ReadonlyMap<string, number>,
  marked: Marked,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const pack of marked.moved.keys()) {
    if (marked.named.has(pack) || packs.has(pack)) continue;
    const names: string[] = [];
    for await (const { name } of context.storage.list(`moved/${pack}/`, signal)) names.push(name);
    for (const name of names) await context.storage.delete(name, signal);
  }
}

/** Empties packs of which little is needed. Packs of running sessions and condemned ones are let be; so are those with any blob that moved. */
async function compact(
  context: VaultContext,
  packs: ReadonlyMap<string, number>,
  marked: Marked,
  already: readonly Condemnation[],
  compactBelow: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const listed = new Set(already.flatMap((one) => one.packs));
  const chosen = new Map<string, LiveBlob[]>();
  for (const [pack, bytes] of marked.neededBytes) {
    const size = packs.get(pack) ?? 0;
    if (size < LEAST_COMPACTED || bytes >= size * compactBelow) continue;
    if (listed.has(pack) || marked.moved.has(pack) || marked.busyBefore.has(sessionOf(pack))) continue;
    chosen.set(pack, []);
    if (chosen.size >= MOST_COMPACTED) break;
  }
  if (chosen.size === 0) return 0;
  const ids = new Set<string>();
  await eachPoint(context, signal, (point) =>
    walkPoint(
      context,
      point,
      new Set(),
      {
        blob(kind, ref) {
          const blobs = chosen.get(ref.pack);
          if (blobs === undefined || ids.has(ref.id)) return;
          ids.add(ref.id);
          blobs.push({ kind, ref });
        },
        broken(_ref, _offset, _length, error) {
          throw error;
        },
      },
      signal,
    ),
  );
  return compactPacks(context, chosen, signal);
}

/** Smaller packs are not worth it, and one run must end. */
const LEAST_COMPACTED = 64 * 1024;
const MOST_COMPACTED = 1_000;
