import { isOperational } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { BlockReader, Extent } from "#model/block-device.ts";
import {
  BLOCK_BYTES,
  type BlobRef,
  FAN_OUT,
  type MapEntry,
  blobKinds,
  hole,
  sameEntry,
  zero,
} from "./block-ref.ts";
import type { BlobReader } from "./blob-reader.ts";
import type { BlockPool } from "./block-pool.ts";
import { type PatchTaskBlock, RESULT_BYTES } from "./block-work.ts";
import { blockKinds, overlaps, spansByBlock } from "./changed-blocks.ts";
import { encodeNode, entriesIn, entrySpan, rootLevel, uniform } from "./map-node.ts";
import { LARGEST_PATCH, type Span, decodeSpans, mergeSpans, recordLength } from "./patch-record.ts";
import type { PointMap } from "./point-map.ts";
import type { WriteSession } from "./write-session.ts";

/** Blocks that one task takes: 4 MiB. */
const TASK_BLOCKS = 16;
/** Patches that one task takes, in bytes. */
const TASK_PATCH_BYTES = 1024 * 1024;
/** Leaves that are worked on side by side. */
const LEAVES_AT_ONCE = 4;
/** Extents are asked for over so many leaves at once: 1 GiB. */
const EXTENT_LEAVES = 16;

/** Bundles of the base's patches, decoded: 8 MiB. */
const BUNDLES_KEPT = 32;

export interface MapSource {
  readonly reader: BlockReader;
  /** The threads read this file themselves. */
  readonly localPath: string | undefined;
}

export interface MapProgress {
  /** Bytes of the disk that are settled, whether read or not. */
  doneBytes: number;
  readBytes: number;
}

export interface MapWriting {
  readonly session: WriteSession;
  readonly pool: BlockPool;
  readonly blobs: BlobReader;
  readonly source: MapSource;
  readonly sizeBytes: number;
  readonly base: PointMap | undefined;
  /** Sorted, merged, within the disk; everything else equals the base. Undefined: all is to be read. */
  readonly changed: readonly Span[] | undefined;
  readonly progress: MapProgress;
  readonly onProgress: () => void;
  readonly signal: AbortSignal;
}

/** Stores what is new of a disk and the nodes of its map; returns the root's entry. */
export async function writeMap(writing: MapWriting): Promise<MapEntry> {
  return new MapWriter(writing).node(rootLevel(writing.sizeBytes), 0);
}

class MapWriter {
  readonly #w: MapWriting;
  /** Bounds the bytes that wait for a thread. */
  readonly #tasks = new Slots(8);
  readonly #leaves = new Slots(LEAVES_AT_ONCE);
  readonly #bundles = new Map<string, Promise<Buffer>>();
  #growing: Promise<void> | undefined;
  #extents:
    | { readonly from: number; readonly end: number; readonly extents: Promise<readonly Extent[]> }
    | undefined;

  constructor(writing: MapWriting) {
    this.#w = writing;
  }

  async node(level: number, index: number): Promise<MapEntry> {
    if (level === 0) return this.#leaf(index);
    const { sizeBytes, base } = this.#w;
    const was = await this.#unchanged(level, index);
    if (was !== undefined) return was;
    const count = entriesIn(sizeBytes, level, index);
    const entries: (MapEntry | undefined)[] = Array.from({ length: count });
    if (level === 1) {
      const running: Promise<void>[] = [];
      for (let n = 0; n < count && !this.#w.signal.aborted; n += 1) {
        const child = index * FAN_OUT + n;
        const same = await this.#unchanged(0, child);
        if (same !== undefined) {
          entries[n] = same;
          continue;
        }
        const free = await this.#leaves.take();
        const leaf = this.#leaf(child)
          .then((entry) => void (entries[n] = entry))
          .finally(free);
        leaf.catch(() => {});
        running.push(leaf);
      }
      await allSettled(running);
      this.#w.signal.throwIfAborted();
    } else for (let n = 0; n < count; n += 1) entries[n] = await this.node(level - 1, index * FAN_OUT + n);
    return this.#store(level, index, entries as MapEntry[], base);
  }

  /** The base's entry, if nothing below it can have changed. */
  #unchanged(level: number, index: number): Promise<MapEntry | undefined> | undefined {
    const { base, changed, sizeBytes, progress } = this.#w;
    if (changed === undefined) return undefined;
    const [from, end] = [
      index * entrySpan(level + 1),
      Math.min(sizeBytes, (index + 1) * entrySpan(level + 1)),
    ];
    if (overlaps(changed, from, end)) return undefined;
    // A node of a disk of another size may have another number of entries.
    const fits =
      base !== undefined &&
      level <= base.rootLevel &&
      entriesIn(base.sizeBytes, level, index) === entriesIn(sizeBytes, level, index);
    if (!fits) return undefined;
    return orDamaged(base.entryAt(level, index, this.#w.signal)).then((entry) => {
      if (entry !== undefined) progress.doneBytes += end - from;
      return entry;
    });
  }

  async #leaf(index: number): Promise<MapEntry> {
    const { base, changed, sizeBytes, signal, progress } = this.#w;
    signal.throwIfAborted();
    const same = await this.#unchanged(0, index);
    if (same !== undefined) return same;
    const count = entriesIn(sizeBytes, 0, index);
    const span = entrySpan(1);
    const [from, end] = [index * span, Math.min(sizeBytes, (index + 1) * span)];
    const entries: MapEntry[] = Array.from({ length: count }, () => hole);
    if (changed === undefined) await this.#scan(from, end, entries);
    else {
      // Readers want a node's own number of entries; what the base has not is a hole.
      const was = base === undefined ? [] : await orDamaged(base.nodeAt(0, index, signal));
      // What the base cannot say any more is read from the source.
      if (was === undefined) await this.#scan(from, end, entries);
      else {
        for (let n = 0; n < count; n += 1) entries[n] = was[n] ?? hole;
        await this.#update(from, end, entries);
      }
    }
    progress.doneBytes += end - from;
    this.#w.onProgress();
    return this.#store(0, index, entries, base);
  }

  async #store(
    level: number,
    index: number,
    entries: readonly MapEntry[],
    base: PointMap | undefined,
  ): Promise<MapEntry> {
    const one = uniform(entries);
    if (one !== undefined) return one;
    if (base !== undefined && level <= base.rootLevel) {
      const entry = await orDamaged(base.entryAt(level, index, this.#w.signal));
      if (entry?.kind === "blob") {
        const was = (await orDamaged(base.nodeAt(level, index, this.#w.signal))) ?? [];
        const same =
          was.length === entries.length && was.every((old, n) => sameEntry(old, entries[n] as MapEntry));
        if (same) return entry;
      }
    }
    return this.#w.session.storeNode(encodeNode(level, entries));
  }

  /** Reads whatever is not a hole between `from` and `end`, which is one leaf. */
  async #scan(from: number, end: number, entries: MapEntry[]): Promise<void> {
    const extents = await this.#extentsAt(from, end);
    const kinds = blockKinds(extents, from, entries.length);
    const running: Promise<void>[] = [];
    for (let n = 0; n < entries.length;) {
      const kind = kinds[n];
      if (kind !== "data") {
        entries[n] = kind === "zero" ? zero : hole;
        n += 1;
        continue;
      }
      let until = n + 1;
      while (until < entries.length && until - n < TASK_BLOCKS && kinds[until] === "data") until += 1;
      running.push((await this.#blocks(from, n, until, entries)).done);
      n = until;
    }
    await allSettled(running);
  }

  /** Extents are asked for ahead over many leaves, once: a sparse disk has few, and each question may be a network's round. */
  async #extentsAt(from: number, end: number): Promise<readonly Extent[]> {
    const { source, sizeBytes, signal } = this.#w;
    const held = this.#extents;
    if (held !== undefined && held.from <= from && end <= held.end) return held.extents;
    const reach = entrySpan(1) * EXTENT_LEAVES;
    const first = Math.floor(from / reach) * reach;
    const last = Math.min(sizeBytes, first + reach);
    const extents = source.reader.extents(first, last - first, signal);
    this.#extents = { from: first, end: last, extents };
    return extents;
  }

  /** Brings the entries of one leaf up to date where `changed` says so. */
  async #update(from: number, end: number, entries: MapEntry[]): Promise<void> {
    const running: Promise<void>[] = [];
    let patches: (PatchTaskBlock & { readonly n: number })[] = [];
    let patchBytes = 0;
    const flush = async (): Promise<void> => {
      if (patches.length > 0) running.push((await this.#patches(patches, entries)).done);
      patches = [];
      patchBytes = 0;
    };
    let whole: { from: number; end: number } | undefined;
    const flushWhole = async (): Promise<void> => {
      if (whole !== undefined) running.push((await this.#blocks(from, whole.from, whole.end, entries)).done);
      whole = undefined;
    };
    for (const [n, spans] of spansByBlock(this.#w.changed ?? [], from, end)) {
      const merged = await this.#patchable(entries[n] as MapEntry, from / BLOCK_BYTES + n, spans);
      if (merged === undefined) {
        if (whole !== undefined && (whole.end !== n || n - whole.from >= TASK_BLOCKS)) await flushWhole();
        whole = { from: whole?.from ?? n, end: n + 1 };
        continue;
      }
      patches.push({ n, offset: from + n * BLOCK_BYTES, spans: merged });
      patchBytes += recordLength(merged);
      if (patchBytes >= TASK_PATCH_BYTES) await flush();
    }
    await flushWhole();
    await flush();
    await allSettled(running);
  }

  /** The spans that a patch over the stored block must hold, or undefined if the block is better stored whole. */
  async #patchable(
    entry: MapEntry,
    block: number,
    spans: readonly Span[],
  ): Promise<readonly Span[] | undefined> {
    if (entry.kind !== "blob" && entry.kind !== "patched") return undefined;
    const length = Math.min(BLOCK_BYTES, this.#w.sizeBytes - block * BLOCK_BYTES);
    if (entry.ref.plainLength !== length || recordLength(spans) > LARGEST_PATCH) return undefined;
    if (entry.kind === "blob") return spans;
    const { bundle, offset, length: recordBytes } = entry.patch;
    const records = await orDamaged(this.#bundle(bundle));
    if (records === undefined) return undefined;
    const old = decodeSpans(`pack ${bundle.pack}`, records.subarray(offset, offset + recordBytes), length);
    const merged = mergeSpans([...old.spans, ...spans]);
    return recordLength(merged) > LARGEST_PATCH ? undefined : merged;
  }

  /** Neighbouring blocks share a bundle. */
  #bundle(ref: BlobRef): Promise<Buffer> {
    const known = this.#bundles.get(ref.id);
    if (known !== undefined) return known;
    const read = this.#w.blobs.read(blobKinds.patches, ref, this.#w.signal);
    this.#bundles.set(ref.id, read);
    if (this.#bundles.size > BUNDLES_KEPT) this.#bundles.delete(this.#bundles.keys().next().value as string);
    return read;
  }

  /** Begins a task for the blocks [first, until) of a leaf; their entries are set when it is done. */
  async #blocks(leafFrom: number, first: number, until: number, entries: MapEntry[]): Promise<Started> {
    const { session, pool, source, sizeBytes, signal, progress } = this.#w;
    const offset = leafFrom + first * BLOCK_BYTES;
    const length = Math.min(sizeBytes, leafFrom + until * BLOCK_BYTES) - offset;
    return this.#task(async () => {
      const bytes =
        source.localPath === undefined ? await readOwn(source.reader, offset, length, signal) : undefined;
      const results = await pool.blocks({ offset, length, bytes });
      progress.readBytes += length;
      for (let n = first; n < until; n += 1) entries[n] = session.entry(results, n - first);
    });
  }

  async #patches(
    patches: readonly (PatchTaskBlock & { readonly n: number })[],
    entries: MapEntry[],
  ): Promise<Started> {
    const { session, pool, source, signal, progress } = this.#w;
    return this.#task(async () => {
      const blocks = patches.map(({ offset, spans }) => ({ offset, spans }));
      const bytes =
        source.localPath === undefined ? await readSpans(source.reader, blocks, signal) : undefined;
      const result = await pool.patches({ blocks, bytes });
      const bundles = Array.from({ length: result.bundles.length / RESULT_BYTES }, (_, at) =>
        session.entry(result.bundles, at),
      );
      patches.forEach(({ n, spans }, at) => {
        const place = result.places[at];
        const entry = entries[n];
        invariant(
          place !== undefined && (entry?.kind === "blob" || entry?.kind === "patched"),
          "a patch has a place",
        );
        const bundle = bundles[place.bundle];
        invariant(bundle?.kind === "blob", "a bundle is a blob");
        entries[n] = {
          kind: "patched",
          ref: entry.ref,
          patch: { bundle: bundle.ref, offset: place.offset, length: place.length },
        };
        for (const span of spans) progress.readBytes += span.length;
      });
    });
  }

  /** Waits for room, then begins. */
  async #task(work: () => Promise<void>): Promise<Started> {
    this.#w.signal.throwIfAborted();
    await this.#w.session.room();
    if (this.#w.session.needsGrowth)
      await (this.#growing ??= this.#tasks
        .alone(() => this.#w.session.grow())
        .finally(() => (this.#growing = undefined)));
    const free = await this.#tasks.take();
    const done = work().finally(free);
    // Seen by `allSettled` later; until then it alarms nobody.
    done.catch(() => {});
    return { done };
  }
}

/** A task that has begun. Not a promise by itself: waiting for the beginning is not waiting for the end. */
interface Started {
  readonly done: Promise<void>;
}

/** A number of places; whoever finds none waits in line. */
class Slots {
  readonly #most: number;
  readonly #line: (() => void)[] = [];
  #taken = 0;

  constructor(most: number) {
    this.#most = most;
  }

  async take(): Promise<() => void> {
    while (this.#taken >= this.#most) await new Promise<void>((resolve) => this.#line.push(resolve));
    this.#taken += 1;
    return () => {
      this.#taken -= 1;
      this.#line.shift()?.();
    };
  }

  /** Runs when all places are free, and nobody else meanwhile. */
  async alone(work: () => Promise<void>): Promise<void> {
    const places: (() => void)[] = [];
    for (let n = 0; n < this.#most; n += 1) places.push(await this.take());
    try {
      await work();
    } finally {
      for (const free of places) free();
    }
  }
}

/** Undefined where the base is damaged: the source then says what it no longer can. */
async function orDamaged<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isOperational(error, "vault.damaged")) return undefined;
    throw error;
  }
}

/** Waits for all, so that nothing still runs when it throws the first failure. */
async function allSettled(running: readonly Promise<void>[]): Promise<void> {
  const failed = (await Promise.allSettled(running)).find((one) => one.status === "rejected");
  if (failed !== undefined) throw failed.reason as Error;
}

/** Bytes that are ours to give away to a thread. */
async function readOwn(
  reader: BlockReader,
  offset: number,
  length: number,
  signal: AbortSignal,
): Promise<Uint8Array> {
  const bytes = await reader.read(offset, length, signal);
  invariant(bytes.length === length, "a reader gives exactly what it was asked for");
  const whole = bytes.byteOffset === 0 && bytes.buffer.byteLength === bytes.byteLength;
  return whole && bytes.buffer instanceof ArrayBuffer ? bytes : Uint8Array.from(bytes);
}

async function readSpans(
  reader: BlockReader,
  blocks: readonly PatchTaskBlock[],
  signal: AbortSignal,
): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  for (const { offset, spans } of blocks)
    for (const span of spans) parts.push(await reader.read(offset + span.offset, span.length, signal));
  return Uint8Array.from(Buffer.concat(parts));
}
