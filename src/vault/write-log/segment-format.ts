/**
 * The bytes of the write log (docs/spec/write-log.md). Pure: no file is touched here. Decoders take any bytes, allocate nothing
 * that the input did not pay for, and answer `undefined` where the bytes are not what they should be.
 */
import { type KeyObject, createHash, createHmac, createSecretKey, hkdfSync } from "node:crypto";
import { crc32 } from "node:zlib";
import { invariant } from "#kernel/invariant.ts";

/** Frames start at multiples of this, so that an append never rewrites a sector with acknowledged bytes. */
export const sectorBytes = 512;
export const segmentHeaderBytes = 512;
export const frameHeaderBytes = 88;
/** Measured: AES-256-GCM in Node is fastest at 64 KiB, and a small read decrypts no more than this. */
export const chunkBytes = 65_536;
export const tagBytes = 16;
export const recordBytes = 24;
/** What one record may carry: the largest payload that NBD clients send. */
export const maxRecordData = 32 * 1024 * 1024;
export const maxFrameData = 34 * 1024 * 1024;
export const maxFrameRecords = 4096;
const maxOpeningBytes = 8 * 1024 * 1024;
/** The volume index of records that concern the group. */
export const groupIndex = 0xff_ff;

const frameMagic = 0x46_4c_57_55;
const segmentMagic = Buffer.from("USWLOG\0\u0001", "latin1");

export const frameType = { opening: 1, records: 2, mark: 3, seal: 4 } as const;
export type FrameType = (typeof frameType)[keyof typeof frameType];

export const recordKind = { data: 1, zero: 2, trim: 3, event: 4 } as const;
export type RecordKind = (typeof recordKind)[keyof typeof recordKind];

export interface LogRecord {
  readonly sequence: number;
  readonly timeMs: number;
  readonly volume: number;
  readonly kind: RecordKind;
  readonly offset: number;
  readonly length: number;
  /** Where its data starts in the frame's data area; 0 where it has none. */
  readonly at: number;
}

export interface SegmentHeader {
  readonly number: number;
  readonly firstSequence: number;
  readonly timeMs: number;
  readonly previousEnd: number;
  readonly previousTag: Buffer;
  readonly salt: Buffer;
  readonly fingerprint: Buffer;
}

export interface FrameHeader {
  readonly type: FrameType;
  readonly frameNumber: number;
  readonly recordCount: number;
  readonly firstSequence: number;
  readonly timeMs: number;
  readonly directoryBytes: number;
  readonly dataBytes: number;
  readonly durableEnd: number;
  readonly previousTag: Buffer;
  readonly tag: Buffer;
  readonly bodyCrc: number;
}

const two32 = 2 ** 32;

function putU64(buffer: Buffer, value: number, at: number): void {
  invariant(Number.isSafeInteger(value) && value >= 0, `${value} does not fit the log's format`);
  buffer.writeUInt32LE(value % two32, at);
  buffer.writeUInt32LE(Math.floor(value / two32), at + 4);
}

/** NaN where it is beyond 2^53 - 1: every comparison with it fails. */
function getU64(buffer: Buffer, at: number): number {
  const value = buffer.readUInt32LE(at + 4) * two32 + buffer.readUInt32LE(at);
  return Number.isSafeInteger(value) ? value : Number.NaN;
}

const toSector = (bytes: number): number => Math.ceil(bytes / sectorBytes) * sectorBytes;

/** Length of the data area on disk: chunks and their tags. */
const sealedDataBytes = (dataBytes: number): number => dataBytes + chunkCount(dataBytes) * tagBytes;

export const chunkCount = (dataBytes: number): number => Math.ceil(dataBytes / chunkBytes);

/** The directory: the records, then a copy of every chunk's tag. */
export const directoryLength = (recordCount: number, dataBytes: number): number =>
  recordCount * recordBytes + chunkCount(dataBytes) * tagBytes;

/** Length of a frame on disk, filling included. */
export const frameBytes = (header: Pick<FrameHeader, "directoryBytes" | "dataBytes">): number =>
  toSector(frameHeaderBytes + header.directoryBytes + sealedDataBytes(header.dataBytes));

export function groupFingerprint(logKey: Buffer, group: string): Buffer {
  return createHmac("sha256", logKey)
    .update(`understudy write log group\0${group}`)
    .digest()
    .subarray(0, tagBytes);
}

export function segmentKey(logKey: Buffer, salt: Buffer, group: string): KeyObject {
  const key = hkdfSync("sha256", logKey, salt, `understudy write log segment\0${group}`, 32);
  return createSecretKey(Buffer.from(key));
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(segmentHeaderBytes);
  segmentMagic.copy(bytes);
  putU64(bytes, header.number, 8);
  putU64(bytes, header.firstSequence, 16);
  putU64(bytes, header.timeMs, 24);
  putU64(bytes, header.previousEnd, 32);
  header.previousTag.copy(bytes, 40);
  header.salt.copy(bytes, 56);
  header.fingerprint.copy(bytes, 88);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 508)), 508);
  return bytes;
}

export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | undefined {
  if (bytes.length < segmentHeaderBytes || !bytes.subarray(0, 8).equals(segmentMagic)) return undefined;
  if (bytes.readUInt32LE(508) !== crc32(bytes.subarray(0, 508))) return undefined;
  const header = {
    number: getU64(bytes, 8),
    firstSequence: getU64(bytes, 16),
    timeMs: getU64(bytes, 24),
    previousEnd: getU64(bytes, 32),
    previousTag: Buffer.from(bytes.subarray(40, 56)),
    salt: Buffer.from(bytes.subarray(56, 88)),
    fingerprint: Buffer.from(bytes.subarray(88, 104)),
  };
  const sound = [header.number, header.firstSequence, header.timeMs, header.previousEnd].every(
    Number.isSafeInteger,
  );
  return sound ? header : undefined;
}

/** What the opening frame names as its predecessor. */
export function headerLink(header: Buffer): Buffer {
  return createHash("sha256").update(header.subarray(0, segmentHeaderBytes)).digest().subarray(0, tagBytes);
}

/** Bytes 0 to 63: all but the tag and the checksums. The rest is for the caller to fill in. */
export function encodeFrameHeader(into: Buffer, header: Omit<FrameHeader, "tag" | "bodyCrc">): void {
  into.fill(0, 0, frameHeaderBytes);
  into.writeUInt32LE(frameMagic, 0);
  into.writeUInt8(header.type, 4);
  into.writeUInt32LE(header.frameNumber, 8);
  into.writeUInt32LE(header.recordCount, 12);
  putU64(into, header.firstSequence, 16);
  putU64(into, header.timeMs, 24);
  into.writeUInt32LE(header.directoryBytes, 32);
  into.writeUInt32LE(header.dataBytes, 36);
  putU64(into, header.durableEnd, 40);
  header.previousTag.copy(into, 48);
}

export function finishFrameHeader(into: Buffer, tag: Buffer, bodyCrc: number): void {
  tag.copy(into, 64);
  into.writeUInt32LE(bodyCrc, 80);
  into.writeUInt32LE(crc32(into.subarray(0, 84)), 84);
}

export function decodeFrameHeader(bytes: Buffer): FrameHeader | undefined {
  if (bytes.length < frameHeaderBytes || bytes.readUInt32LE(0) !== frameMagic) return undefined;
  if (bytes.readUInt32LE(84) !== crc32(bytes.subarray(0, 84))) return undefined;
  const type = bytes.readUInt8(4);
  const header = {
    type: type as FrameType,
    frameNumber: bytes.readUInt32LE(8),
    recordCount: bytes.readUInt32LE(12),
    firstSequence: getU64(bytes, 16),
    timeMs: getU64(bytes, 24),
    directoryBytes: bytes.readUInt32LE(32),
    dataBytes: bytes.readUInt32LE(36),
    durableEnd: getU64(bytes, 40),
    previousTag: Buffer.from(bytes.subarray(48, 64)),
    tag: Buffer.from(bytes.subarray(64, 80)),
    bodyCrc: bytes.readUInt32LE(80),
  };
  return isPlausible(header) && bytes.readUIntLE(5, 3) === 0 ? header : undefined;
}

function isPlausible(header: FrameHeader): boolean {
  if (![header.firstSequence, header.timeMs, header.durableEnd].every(Number.isSafeInteger)) return false;
  if (header.type === frameType.records)
    return (
      header.recordCount > 0 &&
      header.recordCount <= maxFrameRecords &&
      header.dataBytes <= maxFrameData &&
      header.directoryBytes === directoryLength(header.recordCount, header.dataBytes)
    );
  const empty = header.recordCount === 0 && header.dataBytes === 0;
  if (header.type === frameType.opening) return empty && header.directoryBytes <= maxOpeningBytes;
  return (
    empty && header.directoryBytes === 0 && (header.type === frameType.mark || header.type === frameType.seal)
  );
}

export function encodeRecord(
  into: Buffer,
  index: number,
  record: { volume: number; kind: RecordKind; deltaMs: number; offset: number; length: number },
): void {
  const at = index * recordBytes;
  into.writeUInt16LE(record.volume, at);
  into.writeUInt8(record.kind, at + 2);
  into.writeUInt8(0, at + 3);
  into.writeUInt32LE(record.deltaMs, at + 4);
  putU64(into, record.offset, at + 8);
  putU64(into, record.length, at + 16);
}

/** `undefined` unless the records use the data area exactly up and their ranges can exist. */
export function decodeRecords(directory: Buffer, header: FrameHeader): LogRecord[] | undefined {
  const records: LogRecord[] = [];
  let at = 0;
  let timeMs = header.timeMs;
  for (let index = 0; index < header.recordCount; index += 1) {
    const base = index * recordBytes;
    const kind = directory.readUInt8(base + 2) as RecordKind;
    const offset = getU64(directory, base + 8);
    const length = getU64(directory, base + 16);
    const recordTime = header.timeMs + directory.readUInt32LE(base + 4);
    const carries = kind === recordKind.data || kind === recordKind.event;
    if (kind < recordKind.data || kind > recordKind.event || directory.readUInt8(base + 3) !== 0)
      return undefined;
    if (!Number.isSafeInteger(offset + length) || recordTime < timeMs) return undefined;
    if (carries && at + length > header.dataBytes) return undefined;
    timeMs = recordTime;
    records.push({
      sequence: header.firstSequence + index,
      timeMs,
      volume: directory.readUInt16LE(base),
      kind,
      offset,
      length,
      at: carries ? at : 0,
    });
    if (carries) at += length;
  }
  return at === header.dataBytes ? records : undefined;
}

/** One use for each key: frame number, chunk number (0 the directory) and type. */
export function frameNonce(frameNumber: number, chunk: number, type: FrameType): Buffer {
  const nonce = Buffer.allocUnsafe(12);
  nonce.writeUInt32LE(frameNumber, 0);
  nonce.writeUInt32LE(chunk, 4);
  nonce.writeUInt32LE(type, 8);
  return nonce;
}
