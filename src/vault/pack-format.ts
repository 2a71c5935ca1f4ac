import type { KeyObject } from "node:crypto";
import type { BlobKind } from "./block-ref.ts";
import { ID_BYTES, blobKinds, codecs, packName } from "./block-ref.ts";
import {
  DIRECTORY,
  TAG_BYTES,
  blobBinding,
  blobId,
  compress,
  decrypt,
  encryptInto,
  expand,
  letGo,
  packKey,
} from "./blob-codec.ts";
import { damaged } from "./vault-damage.ts";
import type { BlobKeys } from "./vault-keys.ts";

/** A pack is closed when it has reached this many bytes, or earlier. */
export const PACK_TARGET = 16 * 1024 * 1024;
/** What a builder may still add after that: a blob that compression did not shrink, its tag, and the directory. */
const PACK_SLACK = 1024 * 1024;

/** The size of the buffer of a pack that is to be closed at `target` bytes. */
export const packBufferBytes = (target: number): number => target + PACK_SLACK;

const HEAD_BYTES = 8;
const TRAILER_BYTES = 8;
const ENTRY_BYTES = 36;
/** A directory of more would not leave room for a tag each. */
const MOST_BLOBS = 16_384;

const head = Buffer.from([...Buffer.from("USVP"), 1, 0, 0, 0]);
const trailerMark = Buffer.from("PVSU");
const directoryBinding = Buffer.from("directory");

export interface PackEntry {
  readonly id: string;
  readonly kind: number;
  readonly codec: number;
  readonly offset: number;
  readonly storedLength: number;
  readonly plainLength: number;
}

/** Builds one pack in memory, front to back. */
export class PackBuilder {
  readonly pack: Buffer;
  readonly #key: KeyObject;
  readonly #buffer: Buffer;
  readonly #entries: Buffer[] = [];
  #length = HEAD_BYTES;

  /** `pack` is the id, used by nobody else, ever. `buffer` has `packBufferBytes` of what it is to take. */
  constructor(keys: BlobKeys, pack: Buffer, buffer: Buffer) {
    this.pack = pack;
    this.#key = packKey(keys, pack);
    this.#buffer = buffer;
    buffer.set(head);
  }

  get isFull(): boolean {
    return this.#length >= this.#buffer.length - PACK_SLACK || this.#entries.length >= MOST_BLOBS - 1;
  }

  get isEmpty(): boolean {
    return this.#entries.length === 0;
  }

  append(
    id: Buffer,
    kind: BlobKind,
    plain: Uint8Array,
  ): { offset: number; storedLength: number; codec: number } {
    const coded = compress(plain);
    const offset = this.#length;
    const binding = blobBinding(id, kind, coded.codec, plain.length);
    const storedLength = encryptInto(this.#key, binding, coded.bytes, this.#buffer, offset);
    if (coded.codec === codecs.zstd) letGo(coded.bytes);
    this.#length += storedLength;
    const entry = Buffer.alloc(ENTRY_BYTES);
    entry.set(id);
    entry[ID_BYTES] = kind;
    entry[ID_BYTES + 1] = coded.codec;
    entry.writeUInt32LE(offset, ID_BYTES + 4);
    entry.writeUInt32LE(storedLength, ID_BYTES + 8);
    entry.writeUInt32LE(plain.length, ID_BYTES + 12);
    this.#entries.push(entry);
    return { offset, storedLength, codec: coded.codec };
  }

  /** The pack's length in the buffer, and its directory in plain. The builder is used up. */
  finish(): { readonly length: number; readonly directory: Buffer } {
    const directory = Buffer.concat(this.#entries);
    const coded = compress(directory);
    const start = this.#length;
    // The directory's own head: its codec and plain length, which the binding covers.
    this.#buffer.writeUInt8(coded.codec, start);
    this.#buffer.writeUInt32LE(directory.length, start + 1);
    const binding = Buffer.concat([directoryBinding, this.#buffer.subarray(start, start + 5)]);
    const stored = encryptDirectory(this.#key, binding, coded.bytes);
    stored.copy(this.#buffer, start + 5);
    const end = start + 5 + stored.length;
    this.#buffer.writeUInt32LE(5 + stored.length, end);
    trailerMark.copy(this.#buffer, end + 4);
    return { length: end + TRAILER_BYTES, directory };
  }
}

function encryptDirectory(key: KeyObject, binding: Buffer, bytes: Buffer): Buffer {
  const target = Buffer.alloc(bytes.length + TAG_BYTES);
  encryptInto(key, binding, bytes, target, 0, DIRECTORY);
  return target;
}

/** Reads a directory as a builder hands it out. Throws `vault.damaged`. */
export function decodeDirectory(where: string, directory: Buffer): PackEntry[] {
  if (directory.length % ENTRY_BYTES !== 0) throw damaged(where, "has a directory of no whole entries");
  const entries: PackEntry[] = [];
  for (let at = 0; at < directory.length; at += ENTRY_BYTES) {
    entries.push({
      id: directory.toString("hex", at, at + ID_BYTES),
      kind: directory.readUInt8(at + ID_BYTES),
      codec: directory.readUInt8(at + ID_BYTES + 1),
      offset: directory.readUInt32LE(at + ID_BYTES + 4),
      storedLength: directory.readUInt32LE(at + ID_BYTES + 8),
      plainLength: directory.readUInt32LE(at + ID_BYTES + 12),
    });
  }
  return entries;
}

export const PACK_TRAILER_BYTES = TRAILER_BYTES;

/** From a pack's last 8 bytes: how many bytes before them are the directory. */
export function decodeTrailer(pack: string, sizeBytes: number, trailer: Buffer): number {
  const where = packName(pack);
  if (trailer.length !== TRAILER_BYTES || !trailer.subarray(4).equals(trailerMark))
    throw damaged(where, "does not end as a pack does");
  const length = trailer.readUInt32LE(0);
  if (length < 5 + TAG_BYTES || length > sizeBytes - HEAD_BYTES - TRAILER_BYTES)
    throw damaged(where, "has a directory of impossible length");
  return length;
}

/** `stored` is what `decodeTrailer` said stands before the trailer. The entries fill the pack without gaps, or it is damage. */
export function decryptDirectory(
  keys: BlobKeys,
  pack: string,
  sizeBytes: number,
  stored: Buffer,
): PackEntry[] {
  const where = packName(pack);
  const codec = stored.readUInt8(0);
  const plainLength = stored.readUInt32LE(1);
  if (plainLength > MOST_BLOBS * ENTRY_BYTES) throw damaged(where, "has a directory of impossible length");
  const binding = Buffer.concat([directoryBinding, stored.subarray(0, 5)]);
  const key = packKey(keys, Buffer.from(pack, "hex"));
  const coded = decrypt(where, key, binding, stored.subarray(5), DIRECTORY);
  const entries = decodeDirectory(where, expandOrDamage(where, codec, coded, plainLength));
  let at = HEAD_BYTES;
  for (const entry of entries) {
    if (entry.offset !== at || entry.storedLength < TAG_BYTES)
      throw damaged(where, "has a directory with gaps");
    at += entry.storedLength;
  }
  if (at + stored.length + TRAILER_BYTES !== sizeBytes)
    throw damaged(where, "has not the length of its directory");
  return entries;
}

/** The first bytes of a pack: the one part that no tag covers. */
export function checkPackHead(pack: string, bytes: Buffer): void {
  if (!bytes.subarray(0, HEAD_BYTES).equals(head))
    throw damaged(packName(pack), "does not begin as a pack does");
}

/** Plain bytes of a blob from its stored bytes; `key` is the pack's. `checkId` recomputes the id too: not needed for safety, but for `verify`. */
export function decodeBlobWith(
  key: KeyObject,
  keys: BlobKeys,
  pack: string,
  kind: BlobKind,
  entry: Omit<PackEntry, "kind">,
  stored: Buffer,
  checkId = false,
): Buffer {
  const where = packName(pack);
  const id = Buffer.from(entry.id, "hex");
  const binding = blobBinding(id, kind, entry.codec, entry.plainLength);
  const coded = decrypt(where, key, binding, stored, entry.offset);
  const plain = expandOrDamage(where, entry.codec, coded, entry.plainLength);
  if (checkId && !blobId(keys, kind, plain).equals(id))
    throw damaged(where, `holds another blob at ${entry.offset}`);
  return plain;
}

function expandOrDamage(where: string, codec: number, coded: Buffer, plainLength: number): Buffer {
  try {
    return expand(codec, coded, plainLength);
  } catch (error) {
    throw damaged(where, "holds a blob that does not unpack", error);
  }
}

export const isBlobKind = (kind: number): kind is BlobKind =>
  kind === blobKinds.block || kind === blobKinds.patches || kind === blobKinds.node;
export const isCodec = (codec: number): boolean => codec === codecs.plain || codec === codecs.zstd;
