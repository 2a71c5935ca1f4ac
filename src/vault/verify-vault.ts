import { isOperational } from "#kernel/errors.ts";
import { type BlobKind, type BlobRef, PACK_ID_BYTES, blobKinds, packName } from "./block-ref.ts";
import { decodeChecked } from "./checked-document.ts";
import { decodeIndex } from "./index-object.ts";
import { readAllMoved, readMoved } from "./moved-blobs.ts";
import {
  PACK_TRAILER_BYTES,
  type PackEntry,
  checkPackHead,
  decodeTrailer,
  decryptDirectory,
  isBlobKind,
} from "./pack-format.ts";
import { type PointId, decodeManifest, parsePointId, pointObject } from "./point-manifest.ts";
import { type SealKind, sealKinds, unseal } from "./sealed-object.ts";
import type { VaultContext } from "./vault-context.ts";
import { damaged } from "./vault-damage.ts";
import { walkPoint } from "./walk-points.ts";

export interface VerifyOptions {
  /** `quick`: every object is there, has its size and its structure, and all maps can be read. `full`: every byte of every blob too. */
  readonly depth: "quick" | "full";
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface Finding {
  /** The object's name in the store. */
  readonly object: string;
  readonly problem: string;
}

/** A part of a disk, at a point, that cannot be read. */
export interface LostRange {
  readonly point: PointId;
  readonly offset: number;
  readonly length: number;
  /** The object that is to blame. */
  readonly object: string;
}

/** A blob that is needed and cannot be read, once for each block or subtree that needs it. */
export interface LostBlob {
  readonly point: PointId;
  readonly kind: BlobKind;
  readonly ref: BlobRef;
  readonly offset: number;
}

export interface VerifyReport {
  /** Empty for a whole vault. */
  readonly findings: readonly Finding[];
  /** What the findings cost. A finding without a loss is in an index, a lease, a spare key, or in blobs that no point needs. */
  readonly lost: readonly LostRange[];
  /** The same, blob by blob, for repair. */
  readonly lostBlobs: readonly LostBlob[];
  readonly points: number;
  readonly packs: number;
  readonly bytes: number;
}

/** Reads the whole vault and says what is wrong with it. Throws only where it cannot go on: an unreachable store, an abort. */
export async function verifyVault(context: VaultContext, options: VerifyOptions): Promise<VerifyReport> {
  return new Verification(context, options).run();
}

/** A pack's directory, read by itself. Throws `vault.damaged`. */
export async function readDirectory(
  { storage, keys }: Pick<VaultContext, "storage" | "keys">,
  pack: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<PackEntry[]> {
  const name = packName(pack);
  const trailerAt = sizeBytes - PACK_TRAILER_BYTES;
  const trailer = await storage.get(name, { offset: trailerAt, length: PACK_TRAILER_BYTES }, signal);
  const length = decodeTrailer(pack, sizeBytes, trailer);
  const stored = await storage.get(name, { offset: trailerAt - length, length }, signal);
  return decryptDirectory(keys, pack, sizeBytes, stored);
}

class Verification {
  readonly #context: VaultContext;
  readonly #options: VerifyOptions;
  readonly #findings: Finding[] = [];
  readonly #lost: LostRange[] = [];
  readonly #lostBlobs: LostBlob[] = [];
  /** Sizes of the packs that are there. */
  readonly #packs = new Map<string, number>();
  /** Packs without a usable whole, and blobs that do not decode, as `pack:offset`. */
  readonly #bad = new Set<string>();
  #points = 0;
  #bytes = 0;

  constructor(context: VaultContext, options: VerifyOptions) {
    this.#context = context;
    this.#options = options;
  }

  async run(): Promise<VerifyReport> {
    const { storage } = this.#context;
    await this.#documents();
    let total = 0;
    for await (const { name, sizeBytes } of storage.list("packs/", this.#options.signal)) {
      const pack = name.slice(name.lastIndexOf("/") + 1);
      if (name !== packName(pack) || !/^[0-9a-f]+$/.test(pack) || pack.length !== PACK_ID_BYTES * 2) {
        this.#finding(name, "is no pack's name");
        continue;
      }
      this.#packs.set(pack, sizeBytes);
      total += sizeBytes;
    }
    let done = 0;
    for (const [pack, sizeBytes] of this.#packs) {
      await this.#attempt(
        packName(pack),
        () => this.#pack(pack, sizeBytes),
        () => this.#bad.add(pack),
      );
      done += sizeBytes;
      this.#bytes += sizeBytes;
      this.#options.onProgress?.(done, total);
    }
    await this.#sealed("index/", sealKinds.index, (name, plain) => this.#index(name, plain));
    await this.#sealed("leases/", sealKinds.lease, () => {});
    await this.#sealed("condemned/", sealKinds.condemned, () => {});
    await this.#movedLists();
    await this.#walkPoints();
    return {
      findings: this.#findings,
      lost: joinRanges(this.#lost),
      lostBlobs: this.#lostBlobs,
      points: this.#points,
      packs: this.#packs.size,
      bytes: this.#bytes,
    };
  }

  #finding(object: string, problem: string): void {
    this.#findings.push({ object, problem });
  }

  /** Damage becomes a finding; anything else is not ours to judge. */
  async #attempt(object: string, work: () => Promise<void>, onDamage: () => void = () => {}): Promise<void> {
    this.#options.signal?.throwIfAborted();
    try {
      await work();
    } catch (error) {
      const known = isOperational(error, "vault.damaged") || isOperational(error, "disk.range");
      if (!known && !isOperational(error, "not_found")) throw error;
      onDamage();
      this.#finding(object, error.message);
    }
  }

  async #documents(): Promise<void> {
    const { storage, keys } = this.#context;
    await this.#attempt("config", async () => {
      const config = decodeChecked("config", await storage.get("config")) as { sealed?: string };
      unseal(keys, sealKinds.config, "config", Buffer.from(config.sealed ?? "", "base64"));
    });
    let count = 0;
    for await (const { name } of storage.list("keys/")) {
      count += 1;
      await this.#attempt(name, async () => void decodeChecked(name, await storage.get(name)));
    }
    if (count === 0) this.#finding("keys/", "holds no key");
  }

  async #pack(pack: string, sizeBytes: number): Promise<void> {
    const { storage } = this.#context;
    const name = packName(pack);
    const { signal } = this.#options;
    if (sizeBytes < 64) throw damaged(name, "is cut short");
    if (this.#options.depth === "quick") {
      await readDirectory(this.#context, pack, sizeBytes, signal);
      return;
    }
    const bytes = await storage.get(name, undefined, signal);
    let entries: readonly PackEntry[];
    try {
      checkPackHead(pack, bytes);
      const length = decodeTrailer(pack, sizeBytes, bytes.subarray(sizeBytes - PACK_TRAILER_BYTES));
      const stored = bytes.subarray(sizeBytes - PACK_TRAILER_BYTES - length, sizeBytes - PACK_TRAILER_BYTES);
      entries = decryptDirectory(this.#context.keys, pack, sizeBytes, stored);
    } catch (error) {
      if (!isOperational(error, "vault.damaged")) throw error;
      // Its blobs may be whole all the same: the walk reads each one that a point needs.
      this.#bad.add(`${pack}:directory`);
      this.#finding(name, error.message);
      return;
    }
    for (const entry of entries) {
      await this.#attempt(
        name,
        async () => {
          if (!isBlobKind(entry.kind))
            throw damaged(name, `holds a blob of no known kind at ${entry.offset}`);
          const stored = bytes.subarray(entry.offset, entry.offset + entry.storedLength);
          this.#context.blobs.decode(entry.kind, { pack, ...entry }, stored, true);
        },
        () => this.#bad.add(`${pack}:${entry.offset}`),
      );
    }
  }

  #index(name: string, plain: Buffer): void {
    const index = decodeIndex(name, plain);
    for (const pack of index.packs)
      if (!this.#packs.has(pack)) this.#finding(packName(pack), `is missing: ${name} names it`);
  }

  async #sealed(prefix: string, kind: SealKind, check: (name: string, plain: Buffer) => void): Promise<void> {
    const { storage, keys } = this.#context;
    for await (const { name } of storage.list(prefix, this.#options.signal)) {
      await this.#attempt(name, async () => {
        let bytes: Buffer;
        try {
          bytes = await storage.get(name);
        } catch (error) {
          // Leases and condemnations come and go.
          if (isOperational(error, "not_found")) return;
          throw error;
        }
        check(name, unseal(keys, kind, name, bytes));
      });
    }
  }

  async #movedLists(): Promise<void> {
    const { storage, keys } = this.#context;
    try {
      await readAllMoved(storage, keys, this.#options.signal);
    } catch (error) {
      if (!isOperational(error, "vault.damaged")) throw error;
      // One by one, so that each damaged list is named.
      for await (const { name } of storage.list("moved/", this.#options.signal)) {
        const pack = name.split("/")[1] ?? "";
        await this.#attempt(name, async () => void (await readMoved(storage, keys, pack)));
      }
    }
  }

  async #walkPoints(): Promise<void> {
    const { storage, keys } = this.#context;
    const seen = new Set<string>();
    for await (const { name } of storage.list("points/", this.#options.signal)) {
      const point = parsePointId(name.slice("points/".length));
      if (point === undefined) {
        this.#finding(name, "is no point's name");
        continue;
      }
      this.#points += 1;
      await this.#attempt(name, async () => {
        const manifest = decodeManifest(keys, point.id, await storage.get(pointObject(point.id)));
        // With damage about, each point is walked in full, since each loses something of its own.
        const shared = this.#bad.size === 0 ? seen : new Set<string>();
        const doubtful: { ref: BlobRef; offset: number; length: number; kind: BlobKind }[] = [];
        await walkPoint(
          this.#context,
          manifest,
          shared,
          {
            blob: (kind, ref, offset, length) => {
              if (!this.#isSound(ref)) doubtful.push({ ref, offset, length, kind });
            },
            broken: (ref, offset, length, error) => {
              this.#lose(point.id, blobKinds.node, ref, offset, length, error.message);
            },
          },
          this.#options.signal,
        );
        for (const { ref, offset, length, kind } of doubtful) {
          // The nodes were read by the walk.
          if (kind === blobKinds.node) continue;
          try {
            await this.#context.blobs.read(kind, ref, this.#options.signal);
          } catch (error) {
            if (!isOperational(error, "vault.damaged")) throw error;
            this.#lose(point.id, kind, ref, offset, length, error.message);
          }
        }
      });
    }
  }

  /** Known to be whole, as far as the depth of this verification goes. */
  #isSound(ref: BlobRef): boolean {
    const size = this.#packs.get(ref.pack);
    if (size === undefined || ref.offset + ref.storedLength > size) return false;
    return !(
      this.#bad.has(ref.pack) ||
      this.#bad.has(`${ref.pack}:directory`) ||
      this.#bad.has(`${ref.pack}:${ref.offset}`)
    );
  }

  #lose(point: PointId, kind: BlobKind, ref: BlobRef, offset: number, length: number, problem: string): void {
    const object = packName(ref.pack);
    if (!this.#findings.some((finding) => finding.object === object)) this.#finding(object, problem);
    this.#lost.push({ point, offset, length, object });
    this.#lostBlobs.push({ point, kind, ref, offset });
  }
}

/** Neighbours of one point with the same cause become one. */
function joinRanges(ranges: readonly LostRange[]): LostRange[] {
  const joined: LostRange[] = [];
  const sorted = ranges.toSorted((a, b) =>
    a.point < b.point ? -1 : a.point > b.point ? 1 : a.offset - b.offset,
  );
  for (const range of sorted) {
    const last = joined.at(-1);
    if (
      last?.point === range.point &&
      last.object === range.object &&
      last.offset + last.length >= range.offset
    )
      joined[joined.length - 1] = {
        ...last,
        length: Math.max(last.length, range.offset + range.length - last.offset),
      };
    else joined.push(range);
  }
  return joined;
}
