import { BLOCK_BYTES, FAN_OUT, type MapEntry, blobKinds, hole } from "./block-ref.ts";
import type { BlobReader } from "./blob-reader.ts";
import { decodeNode, entriesIn, rootLevel } from "./map-node.ts";
import { damaged } from "./vault-damage.ts";

/** 4096 nodes cover 256 GiB; each holds up to 256 entries, some 60 KiB as objects when all are stored blocks. */
const NODES_KEPT = 256;

/** Reads a point's map: nodes come from the store when they are needed, and the latest are kept. */
export class PointMap {
  readonly sizeBytes: number;
  readonly root: MapEntry;
  readonly rootLevel: number;
  readonly #blobs: BlobReader;
  readonly #nodes = new Map<string, Promise<readonly MapEntry[]>>();

  constructor(blobs: BlobReader, sizeBytes: number, root: MapEntry) {
    this.#blobs = blobs;
    this.sizeBytes = sizeBytes;
    this.root = root;
    this.rootLevel = rootLevel(sizeBytes);
  }

  /** The entry that stands for the node `index` of `level`; for a level above the root's, its first node is what the root is. */
  async entryAt(level: number, index: number, signal?: AbortSignal): Promise<MapEntry> {
    if (entriesIn(this.sizeBytes, level, index) === 0) return hole;
    if (level === this.rootLevel) return this.root;
    const parent = await this.nodeAt(level + 1, Math.floor(index / FAN_OUT), signal);
    return parent[index % FAN_OUT] ?? hole;
  }

  /** The node's entries, as many as the disk's size makes it have. */
  async nodeAt(level: number, index: number, signal?: AbortSignal): Promise<readonly MapEntry[]> {
    const count = entriesIn(this.sizeBytes, level, index);
    const entry = await this.entryAt(level, index, signal);
    if (entry.kind === "hole" || entry.kind === "zero") return Array.from({ length: count }, () => entry);
    const key = `${level}/${index}`;
    const known = this.#nodes.get(key);
    if (known !== undefined) {
      this.#nodes.delete(key);
      this.#nodes.set(key, known);
      return known;
    }
    // Without the signal: others may wait for the same node.
    const loaded = this.#load(entry, level, count);
    this.#nodes.set(key, loaded);
    loaded.catch(() => this.#nodes.delete(key));
    if (this.#nodes.size > NODES_KEPT) this.#nodes.delete(this.#nodes.keys().next().value as string);
    return loaded;
  }

  /** What the block `index` is made of. */
  async blockAt(index: number, signal?: AbortSignal): Promise<MapEntry> {
    const leaf = await this.nodeAt(0, Math.floor(index / FAN_OUT), signal);
    return leaf[index % FAN_OUT] ?? hole;
  }

  blockLength(index: number): number {
    return Math.min(BLOCK_BYTES, this.sizeBytes - index * BLOCK_BYTES);
  }

  async #load(
    entry: Exclude<MapEntry, { kind: "hole" | "zero" }>,
    level: number,
    count: number,
  ): Promise<readonly MapEntry[]> {
    const bytes = await this.#blobs.read(blobKinds.node, entry.ref);
    const where = `pack ${entry.ref.pack}`;
    const entries = decodeNode(where, level, bytes);
    if (entries.length !== count) throw damaged(where, "holds a map node of another disk's size");
    return entries;
  }
}
