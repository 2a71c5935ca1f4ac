/**
 * A part of an agent's pass, as it lies in the agent's spool, travels, and is staged by the vault: always the same bytes.
 *
 *     0  8   "USPART01"
 *     8  4   length of the header, big-endian
 *     12     header: JSON
 *        4   length of the body
 *            body: records, compressed with zstd
 *        32  SHA-256 of everything before
 *
 * A record is 16 bytes (kind, index of its volume, two zero bytes, length, offset), and the data of kind 1. A part is bounded, so that
 * both sides hold one in memory.
 */
import { createHash } from "node:crypto";
import { zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { z } from "zod";
import { OperationalError } from "#kernel/errors.ts";

/** Disks are compared and sent in blocks of the vault's own size. */
export const passBlockBytes = 256 * 1024;
/** Content of a part, uncompressed. */
export const maxPartContentBytes = 8 * 1024 * 1024;
export const maxPartRecords = 1024;
/** A whole part as it travels: content that does not compress grows by next to nothing. */
export const maxPartBytes = maxPartContentBytes + 256 * 1024;

const magic = Buffer.from("USPART01");
const maxHeaderBytes = 64 * 1024;
const recordHead = 16;
const digestBytes = 32;
const kinds = { data: 1, zero: 2 } as const;

/** `fuzzy`: the disks went on being written to while they were read, so that the content is no moment of theirs. */
export const passConsistency = z.enum(["fuzzy", "crash", "application"]);
export type PassConsistency = z.output<typeof passConsistency>;

export const passVolume = z.strictObject({
  volume: z.string().regex(/^[^/\p{C}]{1,64}$/u),
  sizeBytes: z.int().positive(),
});

const passEnd = z.strictObject({
  /** The moment of the disks that the pass is, by the agent's clock; of a fuzzy one, when it ended. */
  instantMs: z.int().nonnegative(),
  consistency: passConsistency,
  /** Of a fuzzy pass, why it is. */
  reason: z.string().max(2000).nullable(),
});

const partHeader = z.strictObject({
  stream: z.string().regex(/^[0-9a-f]{32}$/u),
  /** From 1, without gaps. */
  number: z.int().positive(),
  pass: z.int().positive(),
  volumes: z.array(passVolume).min(1).max(64),
  /** In the last part of a pass. */
  end: passEnd.nullable(),
});

export type PassVolume = z.output<typeof passVolume>;
export type PassEnd = z.output<typeof passEnd>;
export type PartHeader = z.output<typeof partHeader>;

export interface PassRecord {
  /** Index into the header's volumes. */
  readonly volume: number;
  readonly offset: number;
  readonly length: number;
  /** Null: zeroes. */
  readonly data: Buffer | null;
}

export interface PassPart {
  readonly header: PartHeader;
  readonly records: readonly PassRecord[];
}

export function encodePart({ header, records }: PassPart): Buffer {
  const head = Buffer.from(JSON.stringify(header));
  const pieces: Buffer[] = [];
  for (const { volume, offset, length, data } of records) {
    const record = Buffer.alloc(recordHead);
    record[0] = data === null ? kinds.zero : kinds.data;
    record[1] = volume;
    record.writeUInt32BE(length, 4);
    record.writeBigUInt64BE(BigInt(offset), 8);
    pieces.push(record);
    if (data !== null) pieces.push(data);
  }
  const body = zstdCompressSync(Buffer.concat(pieces));
  const before = Buffer.concat([magic, uint32(head.length), head, uint32(body.length), body]);
  return Buffer.concat([before, digestOf(before)]);
}

/** Errors: `input.invalid` for whatever `encodePart` did not make. */
export function decodePart(bytes: Buffer): PassPart {
  const { header, body } = open(bytes);
  const plain = decompressed(body);
  const records: PassRecord[] = [];
  let at = 0;
  while (at < plain.length) {
    const record = readRecord(plain, at, header.volumes);
    records.push(record);
    at += recordHead + (record.data?.length ?? 0);
    if (records.length > maxPartRecords) throw broken("has too many records");
  }
  return { header, records };
}

/** The header alone, of a part that was checked before. Errors: `input.invalid`. */
export function decodePartHeader(bytes: Buffer): PartHeader {
  return open(bytes).header;
}

function open(bytes: Buffer): { readonly header: PartHeader; readonly body: Buffer } {
  if (bytes.length > maxPartBytes) throw broken("is too large");
  if (bytes.length < magic.length + 8 + digestBytes || !bytes.subarray(0, magic.length).equals(magic))
    throw broken("does not begin as it should");
  const end = bytes.length - digestBytes;
  if (!digestOf(bytes.subarray(0, end)).equals(bytes.subarray(end))) throw broken("has another checksum");
  const headerBytes = bytes.readUInt32BE(8);
  const bodyAt = 12 + headerBytes;
  if (headerBytes > maxHeaderBytes || bodyAt + 4 > end) throw broken("has no header of a sensible length");
  if (bytes.readUInt32BE(bodyAt) !== end - bodyAt - 4) throw broken("does not end where it says");
  return { header: readHeader(bytes.subarray(12, bodyAt)), body: bytes.subarray(bodyAt + 4, end) };
}

function readHeader(bytes: Buffer): PartHeader {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString("utf8"));
  } catch (cause) {
    throw broken("has a header that is not JSON", cause);
  }
  const parsed = partHeader.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw broken(`has a header whose ${issue?.path.join(".") ?? ""} is wrong`);
}

function decompressed(body: Buffer): Buffer {
  try {
    // Bounded: a few bytes may say that they are gigabytes.
    const limit = maxPartContentBytes + maxPartRecords * recordHead;
    return zstdDecompressSync(body, { maxOutputLength: limit });
  } catch (cause) {
    throw broken("cannot be decompressed", cause);
  }
}

function readRecord(plain: Buffer, at: number, volumes: readonly PassVolume[]): PassRecord {
  if (at + recordHead > plain.length) throw broken("ends within a record");
  const [kind, volume = 0, zero1, zero2] = plain.subarray(at, at + 4);
  const length = plain.readUInt32BE(at + 4);
  const offset = Number(plain.readBigUInt64BE(at + 8));
  const sizeBytes = volumes[volume]?.sizeBytes;
  const known = (kind === kinds.data || kind === kinds.zero) && zero1 === 0 && zero2 === 0;
  if (!known || sizeBytes === undefined) throw broken("has a record of no known kind or volume");
  if (length === 0 || length > passBlockBytes || offset + length > sizeBytes)
    throw broken("has a record that lies outside of its volume");
  if (kind === kinds.zero) return { volume, offset, length, data: null };
  const from = at + recordHead;
  if (from + length > plain.length) throw broken("ends within a record's data");
  return { volume, offset, length, data: plain.subarray(from, from + length) };
}

function digestOf(bytes: Buffer): Buffer {
  return createHash("sha256").update(bytes).digest();
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function broken(why: string, cause?: unknown): OperationalError {
  return new OperationalError("input.invalid", `this part of a pass ${why}`, { cause });
}
