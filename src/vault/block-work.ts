import type { KeyObject } from "node:crypto";
import { closeSync, openSync, readSync, writeSync } from "node:fs";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { BLOCK_BYTES, type BlobKind, type BlobRef, ID_BYTES, blobKinds, type PatchRef } from "./block-ref.ts";
import { blobId, letGo, packKey } from "./blob-codec.ts";
import { DedupTable } from "./dedup-table.ts";
import { PACK_TARGET, PackBuilder, decodeBlobWith, packBufferBytes } from "./pack-format.ts";
import { packIdIn } from "./pack-numbers.ts";
import { BUNDLE_TARGET, type Span, applyRecord, encodeSpans, recordLength } from "./patch-record.ts";
import type { BlobKeys } from "./vault-keys.ts";

/** What the threads do, without anything of threads: hash, find duplicates, compress, encrypt, fill packs; and the way back. */

export interface SessionStart {
  readonly session: Uint8Array;
  readonly table: SharedArrayBuffer;
  readonly firstPack: number;
  /** A file that the thread reads itself; otherwise tasks bring their bytes. */
  readonly localPath: string | undefined;
}

export interface BlocksTask {
  readonly offset: number;
  readonly length: number;
  readonly bytes: Uint8Array | undefined;
}

/** Changed spans of one block. */
export interface PatchTaskBlock {
  readonly offset: number;
  readonly spans: readonly Span[];
}

export interface PatchesTask {
  readonly blocks: readonly PatchTaskBlock[];
  /** The spans' bytes one after another, where the thread does not read them itself. */
  readonly bytes: Uint8Array | undefined;
}

export const found = { zero: 0, stored: 1, known: 2 } as const;

/** 44 bytes a block: what it is (`found`), codec, 2 empty, pack number, offset, stored length, plain length (4 each), id, 4 empty. */
export const RESULT_BYTES = 44;

export interface PatchPlace {
  /** Which of the result's bundles. */
  readonly bundle: number;
  readonly offset: number;
  readonly length: number;
}

export interface PatchesResult {
  /** As in a blocks result. */
  readonly bundles: Uint8Array;
  readonly places: readonly PatchPlace[];
}

export interface FinishedPack {
  readonly number: number;
  readonly buffer: Uint8Array<ArrayBuffer>;
  readonly length: number;
  readonly directory: Uint8Array;
}

/** One block to be restored: a block's stored bytes, and those of a bundle of patches where it is patched. */
export interface RestoreBlock {
  readonly offset: number;
  readonly ref: BlobRef;
  readonly stored: Uint8Array;
  readonly patch?: { readonly ref: PatchRef; readonly stored: Uint8Array };
}

export interface RestoreTask {
  readonly blocks: readonly RestoreBlock[];
  /** Blocks that were decoded elsewhere, to be written like the others. */
  readonly plain: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
  /** Written there by the thread; otherwise the plain bytes come back. */
  readonly localPath: string | undefined;
}

interface OpenPack {
  readonly pack: PackBuilder;
  readonly number: number;
  readonly buffer: Buffer<ArrayBuffer>;
}

/**
 * The first pack that a thread fills in a session; each next one is twice as large. So a small point is on its way to the store while the
 * rest of it is compressed, and moves no large buffers between threads: V8 counts them as each heap's own, and collects for them.
 */
const FIRST_PACK_BYTES = 4 * 1024 * 1024;

const zeroes = Buffer.alloc(BLOCK_BYTES);

export class BlockWork {
  readonly #keys: BlobKeys;
  readonly #emit: (pack: FinishedPack) => void;
  /** Buffers that wait to be used again, one of each size. */
  readonly #spare = new Map<number, Uint8Array<ArrayBuffer>>();
  readonly #packKeys = new Map<string, KeyObject>();
  #session: SessionStart | undefined;
  #table: DedupTable | undefined;
  #builder: OpenPack | undefined;
  #packBytes = FIRST_PACK_BYTES;
  #source: number | undefined;
  #target: { readonly path: string; readonly file: number } | undefined;
  #input: Buffer | undefined;

  constructor(keys: BlobKeys, emit: (pack: FinishedPack) => void) {
    this.#keys = keys;
    this.#emit = emit;
  }

  start(session: SessionStart): void {
    this.end();
    this.#session = session;
    this.#packBytes = FIRST_PACK_BYTES;
    this.#table = new DedupTable(session.table);
    if (session.localPath !== undefined) this.#source = openSync(session.localPath, "r");
  }

  useTable(table: SharedArrayBuffer): void {
    this.#table = new DedupTable(table);
  }

  /** A pack's buffer whose bytes are durable now, to be used again. */
  recycle(buffer: Uint8Array<ArrayBuffer>): void {
    this.#spare.set(buffer.length, buffer);
  }

  blocks(task: BlocksTask): Uint8Array<ArrayBuffer> {
    const input =
      task.bytes === undefined ? this.#readSource(task.offset, task.length) : asBuffer(task.bytes);
    const count = Math.ceil(task.length / BLOCK_BYTES);
    const result = Buffer.alloc(count * RESULT_BYTES);
    for (let n = 0; n < count; n += 1) {
      const block = input.subarray(n * BLOCK_BYTES, Math.min((n + 1) * BLOCK_BYTES, task.length));
      if (isZero(block)) result[n * RESULT_BYTES] = found.zero;
      else this.store(blobKinds.block, block, result, n * RESULT_BYTES);
    }
    return result;
  }

  patches(task: PatchesTask): PatchesResult {
    const places: PatchPlace[] = [];
    const bundles: Buffer[] = [];
    let taken = 0;
    let bundle = Buffer.alloc(0);
    let used = 0;
    const close = (): void => {
      if (used === 0) return;
      const result = Buffer.alloc(RESULT_BYTES);
      this.store(blobKinds.patches, bundle.subarray(0, used), result, 0);
      bundles.push(result);
      used = 0;
    };
    for (const { offset, spans } of task.blocks) {
      const length = recordLength(spans);
      if (used > 0 && used + length > BUNDLE_TARGET) close();
      if (bundle.length < used + length) bundle = Buffer.allocUnsafe(Math.max(length, BUNDLE_TARGET));
      const from = used;
      used = encodeSpans(bundle, used, spans);
      for (const span of spans) {
        const target = bundle.subarray(used, used + span.length);
        if (task.bytes === undefined) this.#fill(target, offset + span.offset);
        else target.set(task.bytes.subarray(taken, taken + span.length));
        taken += span.length;
        used += span.length;
      }
      places.push({ bundle: bundles.length, offset: from, length });
    }
    close();
    return { bundles: Buffer.concat(bundles), places };
  }

  /** Finds or stores one blob and writes what became of it into `result`. */
  store(kind: BlobKind, plain: Uint8Array, result: Buffer, at: number): void {
    const table = this.#table;
    const session = this.#session;
    invariant(table !== undefined && session !== undefined, "blobs are stored within a session");
    const id = blobId(this.#keys, kind, plain);
    result.set(id, at + 20);
    result.writeUInt32LE(plain.length, at + 16);
    const known = table.find(id);
    let place = known;
    if (place === undefined) {
      if (this.#builder?.pack.isFull === true) this.finishPack();
      this.#builder ??= this.#begin(table, session);
      place = { pack: this.#builder.number, ...this.#builder.pack.append(id, kind, plain) };
      table.enter(id, place);
    }
    result[at] = known === undefined ? found.stored : found.known;
    result[at + 1] = place.codec;
    result.writeUInt32LE(place.pack, at + 4);
    result.writeUInt32LE(place.offset, at + 8);
    result.writeUInt32LE(place.storedLength, at + 12);
  }

  finishPack(): void {
    const builder = this.#builder;
    this.#builder = undefined;
    if (builder === undefined || builder.pack.isEmpty) return;
    const { length, directory } = builder.pack.finish();
    this.#emit({ number: builder.number, buffer: builder.buffer, length, directory: Buffer.from(directory) });
  }

  restore(task: RestoreTask): Uint8Array<ArrayBuffer>[] {
    const plain: Uint8Array<ArrayBuffer>[] = [];
    for (const one of task.blocks) {
      const block = this.#decode(blobKinds.block, one.ref, one.stored);
      if (one.patch !== undefined) {
        const { bundle, offset, length } = one.patch.ref;
        const records = this.#decode(blobKinds.patches, bundle, one.patch.stored);
        applyRecord(`pack ${bundle.pack}`, block, records.subarray(offset, offset + length));
        letGo(records);
      }
      if (task.localPath === undefined) plain.push(ownBytes(block));
      else {
        this.#writeTarget(task.localPath, block, one.offset);
        letGo(block);
      }
    }
    for (const one of task.plain) {
      if (task.localPath === undefined) plain.push(Uint8Array.from(one.bytes));
      else this.#writeTarget(task.localPath, asBuffer(one.bytes), one.offset);
    }
    return plain;
  }

  /** Lets go of files and of a pack that was not finished. */
  end(): void {
    if (this.#source !== undefined) closeSync(this.#source);
    if (this.#target !== undefined) closeSync(this.#target.file);
    if (this.#builder !== undefined) this.recycle(this.#builder.buffer);
    this.#source = undefined;
    this.#target = undefined;
    this.#builder = undefined;
    this.#session = undefined;
    this.#table = undefined;
  }

  #begin(table: DedupTable, session: SessionStart): OpenPack {
    const number = table.takePackNumber();
    const size = packBufferBytes(this.#packBytes);
    this.#packBytes = Math.min(PACK_TARGET, 2 * this.#packBytes);
    const bytes = this.#spare.get(size) ?? new Uint8Array(size);
    this.#spare.delete(size);
    const buffer = Buffer.from(bytes.buffer, 0, size);
    const pack = packIdIn(asBuffer(session.session), number - session.firstPack);
    return { pack: new PackBuilder(this.#keys, pack, buffer), number, buffer };
  }

  #decode(kind: BlobKind, ref: BlobRef, stored: Uint8Array): Buffer {
    let key = this.#packKeys.get(ref.pack);
    if (key === undefined) {
      key = packKey(this.#keys, Buffer.from(ref.pack, "hex"));
      if (this.#packKeys.size > 256) this.#packKeys.clear();
      this.#packKeys.set(ref.pack, key);
    }
    return decodeBlobWith(key, this.#keys, ref.pack, kind, ref, asBuffer(stored));
  }

  #readSource(offset: number, length: number): Buffer {
    if (this.#input === undefined || this.#input.length < length)
      this.#input = Buffer.allocUnsafeSlow(length);
    const target = this.#input.subarray(0, length);
    this.#fill(target, offset);
    return target;
  }

  #fill(target: Buffer, offset: number): void {
    invariant(this.#source !== undefined, "a task without bytes belongs to a session with a file");
    for (let done = 0; done < target.length;) {
      const read = readSync(this.#source, target, done, target.length - done, offset + done);
      if (read === 0)
        throw new OperationalError(
          "disk.range",
          `the source ended at ${offset + done}, earlier than it said`,
        );
      done += read;
    }
  }

  #writeTarget(path: string, block: Buffer, offset: number): void {
    if (this.#target?.path !== path) {
      if (this.#target !== undefined) closeSync(this.#target.file);
      this.#target = { path, file: openSync(path, "r+") };
    }
    for (let done = 0; done < block.length;)
      done += writeSync(this.#target.file, block, done, block.length - done, offset + done);
  }
}

function isZero(block: Buffer): boolean {
  // Most blocks that are not zero differ in the first bytes.
  return (
    block[0] === 0 && block.equals(block.length === zeroes.length ? zeroes : zeroes.subarray(0, block.length))
  );
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A view that owns its memory, so that it can be moved to another thread. */
function ownBytes(bytes: Buffer): Uint8Array<ArrayBuffer> {
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return whole && bytes.buffer instanceof ArrayBuffer ? new Uint8Array(bytes.buffer) : Uint8Array.from(bytes);
}

/** Reads the n-th result back; the id is a view. */
export function resultAt(
  results: Uint8Array,
  n: number,
): {
  what: number;
  codec: number;
  pack: number;
  offset: number;
  storedLength: number;
  plainLength: number;
  id: Buffer;
} {
  const bytes = asBuffer(results);
  const at = n * RESULT_BYTES;
  return {
    what: bytes.readUInt8(at),
    codec: bytes.readUInt8(at + 1),
    pack: bytes.readUInt32LE(at + 4),
    offset: bytes.readUInt32LE(at + 8),
    storedLength: bytes.readUInt32LE(at + 12),
    plainLength: bytes.readUInt32LE(at + 16),
    id: bytes.subarray(at + 20, at + 20 + ID_BYTES),
  };
}
