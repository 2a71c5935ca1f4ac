import type { KeyObject } from "node:crypto";
import { isOperational } from "#kernel/errors.ts";
import { type BlobKind, type BlobRef, type MapEntry, blobKinds, packName } from "./block-ref.ts";
import { applyRecord } from "./patch-record.ts";
import { decodeBlobWith } from "./pack-format.ts";
import { packKey } from "./blob-codec.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

/** Says where a blob is now, if its pack is gone or does not hold it whole. See docs/spec/vault.md, section 9. */
export type FindMoved = (ref: BlobRef, signal?: AbortSignal) => Promise<BlobRef | undefined>;

/** Up to this much that nobody asked for is read rather than asking twice. */
const GAP_BYTES = 128 * 1024;
/** One request asks for no more, so that memory stays bounded. */
const REQUEST_BYTES = 4 * 1024 * 1024;
const KEYS_KEPT = 256;

export interface Fetched {
  readonly ref: BlobRef;
  /** Ciphertext and tag; a view on a buffer that others share. */
  readonly stored: Buffer;
}

/** Reads blobs by reference: neighbours in one request, each one checked by its tag. */
export class BlobReader {
  readonly #storage: BlobStorage;
  readonly #keys: VaultKeys;
  readonly #findMoved: FindMoved;
  readonly #packKeys = new Map<string, KeyObject>();

  constructor(storage: BlobStorage, keys: VaultKeys, findMoved: FindMoved) {
    this.#storage = storage;
    this.#keys = keys;
    this.#findMoved = findMoved;
  }

  /** The plain bytes, the caller's own. Throws `vault.damaged`, naming the pack. */
  async read(kind: BlobKind, ref: BlobRef, signal?: AbortSignal): Promise<Buffer> {
    const [only] = await this.readAll(kind, [ref], signal);
    return only as Buffer;
  }

  /** In the order of `refs`. Stops at the first blob that cannot be had. */
  async readAll(kind: BlobKind, refs: readonly BlobRef[], signal?: AbortSignal): Promise<Buffer[]> {
    const plain: Buffer[] = [];
    for (const run of planRequests(refs)) {
      const whole = await this.#fetch(run, signal);
      for (const at of run.members) {
        const ref = refs[at] as BlobRef;
        plain[at] =
          whole === undefined
            ? await this.#readMoved(kind, ref, signal, undefined)
            : await this.#decodeOrMoved(kind, ref, whole, run.offset, signal);
      }
    }
    return plain;
  }

  /** Stored bytes for threads that decode themselves; what has moved comes with its new reference. */
  async fetchAll(refs: readonly BlobRef[], signal?: AbortSignal): Promise<Fetched[]> {
    const fetched: Fetched[] = [];
    for (const run of planRequests(refs)) {
      const whole = await this.#fetch(run, signal);
      for (const at of run.members) {
        const ref = refs[at] as BlobRef;
        if (whole === undefined) {
          const moved = await this.#moved(ref, signal, undefined);
          const stored = await this.#storage.get(packName(moved.pack), rangeOf(moved), signal);
          fetched[at] = { ref: moved, stored };
        } else fetched[at] = { ref, stored: cut(whole, ref, run.offset) };
      }
    }
    return fetched;
  }

  /** Blocks as their entries say, patches laid over: one by one, for the rare cases. */
  async readWithPatches(
    entries: readonly Extract<MapEntry, { kind: "blob" | "patched" }>[],
    signal?: AbortSignal,
  ): Promise<Buffer[]> {
    const blocks: Buffer[] = [];
    for (const entry of entries) {
      const block = await this.read(blobKinds.block, entry.ref, signal);
      if (entry.kind === "patched") {
        const { bundle, offset, length } = entry.patch;
        const records = await this.read(blobKinds.patches, bundle, signal);
        applyRecord(packName(bundle.pack), block, records.subarray(offset, offset + length));
      }
      blocks.push(block);
    }
    return blocks;
  }

  async #fetch(run: PlannedRequest, signal: AbortSignal | undefined): Promise<Buffer | undefined> {
    try {
      return await this.#storage.get(packName(run.pack), { offset: run.offset, length: run.length }, signal);
    } catch (error) {
      // A pack that was emptied, or cut short by damage.
      if (isOperational(error, "not_found") || isOperational(error, "disk.range")) return undefined;
      throw error;
    }
  }

  async #decodeOrMoved(
    kind: BlobKind,
    ref: BlobRef,
    whole: Buffer,
    from: number,
    signal: AbortSignal | undefined,
  ): Promise<Buffer> {
    try {
      return this.decode(kind, ref, cut(whole, ref, from));
    } catch (error) {
      if (!isOperational(error, "vault.damaged")) throw error;
      return this.#readMoved(kind, ref, signal, error);
    }
  }

  /** Also for blobs whose bytes the caller already has. */
  decode(kind: BlobKind, ref: BlobRef, stored: Buffer, checkId = false): Buffer {
    let key = this.#packKeys.get(ref.pack);
    if (key === undefined) {
      key = packKey(this.#keys, Buffer.from(ref.pack, "hex"));
      if (this.#packKeys.size >= KEYS_KEPT) this.#packKeys.clear();
      this.#packKeys.set(ref.pack, key);
    }
    return decodeBlobWith(key, this.#keys, ref.pack, kind, ref, stored, checkId);
  }

  async #readMoved(
    kind: BlobKind,
    ref: BlobRef,
    signal: AbortSignal | undefined,
    cause: unknown,
  ): Promise<Buffer> {
    const moved = await this.#moved(ref, signal, cause);
    return this.decode(kind, moved, await this.#storage.get(packName(moved.pack), rangeOf(moved), signal));
  }

  async #moved(ref: BlobRef, signal: AbortSignal | undefined, cause: unknown): Promise<BlobRef> {
    const moved = await this.#findMoved(ref, signal);
    if (moved !== undefined) return moved;
    if (cause !== undefined) throw cause as Error;
    throw damaged(packName(ref.pack), "is missing or cut short");
  }
}

const rangeOf = (ref: BlobRef): { offset: number; length: number } => ({
  offset: ref.offset,
  length: ref.storedLength,
});

const cut = (whole: Buffer, ref: BlobRef, from: number): Buffer =>
  whole.subarray(ref.offset - from, ref.offset - from + ref.storedLength);

interface PlannedRequest {
  readonly pack: string;
  readonly offset: number;
  readonly length: number;
  /** Places in the list that was asked for. */
  readonly members: readonly number[];
}

/** Groups references into few requests: by pack, in order of place, over small gaps, bounded in length. */
function planRequests(refs: readonly BlobRef[]): PlannedRequest[] {
  const order = refs
    .map((_, at) => at)
    .sort((a, b) => {
      const [x, y] = [refs[a] as BlobRef, refs[b] as BlobRef];
      return x.pack < y.pack ? -1 : x.pack > y.pack ? 1 : x.offset - y.offset;
    });
  const runs: { pack: string; offset: number; length: number; members: number[] }[] = [];
  for (const at of order) {
    const ref = refs[at] as BlobRef;
    const last = runs.at(-1);
    const end = ref.offset + ref.storedLength;
    if (
      last !== undefined &&
      last.pack === ref.pack &&
      ref.offset <= last.offset + last.length + GAP_BYTES &&
      end - last.offset <= REQUEST_BYTES
    ) {
      last.length = Math.max(last.length, end - last.offset);
      last.members.push(at);
    } else runs.push({ pack: ref.pack, offset: ref.offset, length: ref.storedLength, members: [at] });
  }
  return runs;
}
