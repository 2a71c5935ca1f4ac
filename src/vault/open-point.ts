import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { BlockReader, Extent } from "#model/block-device.ts";
import { BLOCK_BYTES, type BlobRef, FAN_OUT, type MapEntry, blobKinds } from "./block-ref.ts";
import type { BlobReader } from "./blob-reader.ts";
import type { Lease } from "./leases.ts";
import { entriesIn, entrySpan } from "./map-node.ts";
import { applyRecord } from "./patch-record.ts";
import type { PointManifest } from "./point-manifest.ts";
import { PointMap } from "./point-map.ts";

/** A disk as it was at a point, to be read. */
export interface PointReader extends BlockReader {
  readonly manifest: PointManifest;
}

/** Blobs of blocks and of patches that are kept decoded: 16 MiB. */
const BLOBS_KEPT = 64;
/** Blocks that a reader in sequence gets in one round to the store, at most: as many as it has read so far. */
const READ_AHEAD_BLOCKS = 8;
/** Readers in sequence that are told apart: a copy, and files that are read meanwhile. */
const SEQUENCES = 8;

export class OpenPoint implements PointReader {
  readonly manifest: PointManifest;
  readonly sizeBytes: number;
  readonly map: PointMap;
  readonly #blobs: BlobReader;
  readonly #lease: Lease | undefined;
  readonly #kept = new Map<string, Promise<Buffer>>();
  /** Those that read last stand last. */
  readonly #sequences: { next: number; bytes: number }[] = [];
  #closed = false;

  constructor(blobs: BlobReader, manifest: PointManifest, lease: Lease | undefined) {
    this.#blobs = blobs;
    this.#lease = lease;
    this.manifest = manifest;
    this.sizeBytes = manifest.sizeBytes;
    this.map = new PointMap(blobs, manifest.sizeBytes, manifest.root);
  }

  async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    this.#check(offset, length);
    const result = Buffer.alloc(length);
    const end = offset + length;
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.ceil(end / BLOCK_BYTES);
    const window = Math.min(READ_AHEAD_BLOCKS, Math.floor(this.#inSequence(offset, end) / BLOCK_BYTES));
    for (let from = first; from < last; from += READ_AHEAD_BLOCKS) {
      const until = Math.min(last, from + READ_AHEAD_BLOCKS);
      const ahead = Math.min(from + window, Math.ceil(this.sizeBytes / BLOCK_BYTES));
      const entries = await this.#entries(from, Math.max(until, ahead), signal);
      this.#fetch(entries);
      for (let block = from; block < until; block += 1) {
        const bytes = await this.#block(entries[block - from] as MapEntry, block);
        if (bytes === undefined) continue;
        const blockAt = block * BLOCK_BYTES;
        const [start, stop] = [Math.max(offset, blockAt), Math.min(end, blockAt + BLOCK_BYTES)];
        bytes.copy(result, start - offset, start - blockAt, stop - blockAt);
      }
      signal?.throwIfAborted();
    }
    return result;
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    this.#check(offset, length);
    const extents: { offset: number; length: number; kind: Extent["kind"] }[] = [];
    const end = offset + length;
    const add = (from: number, until: number, kind: Extent["kind"]): void => {
      const last = extents.at(-1);
      const [start, stop] = [Math.max(from, offset), Math.min(until, end)];
      if (last?.kind === kind) last.length = stop - last.offset;
      else extents.push({ offset: start, length: stop - start, kind });
    };
    const walk = async (level: number, index: number): Promise<void> => {
      const span = entrySpan(level);
      const from = index * span;
      if (from >= end || from + span <= offset) return;
      // An entry of `level` stands in a node of that level; a whole subtree of holes is one step.
      const entry =
        level > this.map.rootLevel
          ? this.map.root
          : (await this.map.nodeAt(level, Math.floor(index / FAN_OUT), signal))[index % FAN_OUT];
      const until = Math.min(from + span, this.sizeBytes);
      if (entry === undefined || entry.kind === "hole" || entry.kind === "zero")
        add(from, until, entry?.kind ?? "hole");
      else if (level === 0) add(from, until, "data");
      else {
        const children = entriesIn(this.sizeBytes, level - 1, index);
        const childSpan = entrySpan(level - 1);
        const firstChild = Math.max(0, Math.floor((offset - from) / childSpan));
        for (let n = firstChild; n < children && from + n * childSpan < end; n += 1)
          await walk(level - 1, index * FAN_OUT + n);
      }
    };
    await walk(this.map.rootLevel + 1, 0);
    return extents;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#kept.clear();
    await this.#lease?.release();
  }

  /**
   * Bytes that whoever reads on at this place has read in sequence. Others would pay for what is read ahead and never asked for, as would
   * one that reads two neighbours and no more.
   */
  #inSequence(offset: number, end: number): number {
    const at = this.#sequences.findIndex(({ next }) => next === offset);
    const [found] = at < 0 ? [] : this.#sequences.splice(at, 1);
    const bytes = found?.bytes ?? 0;
    this.#sequences.push({ next: end, bytes: bytes + end - offset });
    if (this.#sequences.length > SEQUENCES) this.#sequences.shift();
    return bytes;
  }

  #check(offset: number, length: number): void {
    if (!(Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.sizeBytes))
      throw new OperationalError(
        "disk.range",
        `${length} bytes at ${offset} are outside a disk of ${this.sizeBytes}`,
      );
    if (this.#closed) throw new OperationalError("aborted", "the point was closed");
    this.#lease?.check();
  }

  async #entries(from: number, until: number, signal: AbortSignal | undefined): Promise<MapEntry[]> {
    const entries: MapEntry[] = [];
    for (let block = from; block < until; block += 1) entries.push(await this.map.blockAt(block, signal));
    return entries;
  }

  /** Begins to read what these entries need and is not here: blocks in few requests, bundles of patches too. */
  #fetch(entries: readonly MapEntry[]): void {
    const blocks: BlobRef[] = [];
    const bundles: BlobRef[] = [];
    for (const entry of entries) {
      if (entry.kind === "blob" || entry.kind === "patched") blocks.push(entry.ref);
      if (entry.kind === "patched") bundles.push(entry.patch.bundle);
    }
    this.#fetchKind(blobKinds.block, blocks);
    this.#fetchKind(blobKinds.patches, bundles);
  }

  #fetchKind(kind: typeof blobKinds.block | typeof blobKinds.patches, refs: readonly BlobRef[]): void {
    const missing = [...new Map(refs.map((ref) => [ref.id, ref])).values()].filter((ref) => {
      const kept = this.#kept.get(ref.id);
      if (kept === undefined) return true;
      this.#kept.delete(ref.id);
      this.#kept.set(ref.id, kept);
      return false;
    });
    if (missing.length === 0) return;
    const all = this.#blobs.readAll(kind, missing);
    // One that fails must not fail its neighbours: each is then asked for by itself.
    missing.forEach((ref, at) => {
      const one = all.then(
        (blobs) => blobs[at] as Buffer,
        () => this.#blobs.read(kind, ref),
      );
      one.catch(() => this.#kept.delete(ref.id));
      this.#kept.set(ref.id, one);
    });
    while (this.#kept.size > BLOBS_KEPT) this.#kept.delete(this.#kept.keys().next().value as string);
  }

  /** The block's bytes, not to be written to; undefined for zeroes. */
  async #block(entry: MapEntry, block: number): Promise<Buffer | undefined> {
    if (entry.kind === "hole" || entry.kind === "zero") return undefined;
    const plain = await (this.#kept.get(entry.ref.id) ?? this.#blobs.read(blobKinds.block, entry.ref));
    invariant(plain.length === this.map.blockLength(block), "a stored block has its block's length");
    if (entry.kind === "blob") return plain;
    const { bundle, offset, length } = entry.patch;
    const records = await (this.#kept.get(bundle.id) ?? this.#blobs.read(blobKinds.patches, bundle));
    const patched = Buffer.from(plain);
    applyRecord(`pack ${bundle.pack}`, patched, records.subarray(offset, offset + length));
    return patched;
  }
}
