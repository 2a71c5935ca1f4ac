/** A frame while it is filled: data is encrypted as it comes, so that the caller's buffer is free and nothing is copied twice. */
import { type CipherGCM, type KeyObject, createCipheriv } from "node:crypto";
import { crc32 } from "node:zlib";
import {
  chunkBytes,
  directoryLength,
  encodeFrameHeader,
  encodeRecord,
  finishFrameHeader,
  frameBytes,
  frameHeaderBytes,
  frameNonce,
  frameType,
  type FrameType,
  type LogRecord,
  recordBytes,
  recordKind,
} from "./segment-format.ts";

const filling = Buffer.alloc(512);

export interface FrameLink {
  readonly previousTag: Buffer;
  readonly durableEnd: number;
}

export interface SealedFrame {
  readonly buffers: readonly Buffer[];
  readonly lengthBytes: number;
  readonly tag: Buffer;
}

interface FrameContent extends FrameLink {
  readonly type: FrameType;
  readonly frameNumber: number;
  readonly recordCount: number;
  readonly firstSequence: number;
  readonly timeMs: number;
  readonly directory: Buffer;
  readonly dataBytes: number;
  /** Encrypted chunks, each followed by its tag. */
  readonly sealedData: readonly Buffer[];
}

function sealFrame(key: KeyObject, content: FrameContent): SealedFrame {
  const { directory, sealedData, dataBytes } = content;
  const head = Buffer.allocUnsafe(frameHeaderBytes + directory.length);
  encodeFrameHeader(head, { ...content, directoryBytes: directory.length });
  const cipher = createCipheriv("aes-256-gcm", key, frameNonce(content.frameNumber, 0, content.type));
  cipher.setAAD(head.subarray(0, 64));
  cipher.update(directory).copy(head, frameHeaderBytes);
  cipher.final();
  const tag = cipher.getAuthTag();
  const lengthBytes = frameBytes({ directoryBytes: directory.length, dataBytes });
  const used = sealedData.reduce((sum, piece) => sum + piece.length, head.length);
  const buffers = [head, ...sealedData];
  if (lengthBytes > used) buffers.push(filling.subarray(0, lengthBytes - used));
  let crc = crc32(head.subarray(frameHeaderBytes));
  for (const piece of buffers.slice(1)) crc = crc32(piece, crc);
  finishFrameHeader(head, tag, crc);
  return { buffers, lengthBytes, tag };
}

/** A frame without records: opening, mark or seal. */
export function sealPlainFrame(
  key: KeyObject,
  frame: FrameLink & {
    readonly type: FrameType;
    readonly frameNumber: number;
    readonly firstSequence: number;
    readonly timeMs: number;
    readonly directory?: Buffer;
  },
): SealedFrame {
  const directory = frame.directory ?? Buffer.alloc(0);
  return sealFrame(key, { ...frame, directory, recordCount: 0, dataBytes: 0, sealedData: [] });
}

export class FrameBuilder {
  readonly records: LogRecord[] = [];
  readonly frameNumber: number;
  readonly #key: KeyObject;
  readonly #pieces: Buffer[] = [];
  readonly #tags: Buffer[] = [];
  #chunk: CipherGCM | undefined;
  #chunkFilled = 0;
  #dataBytes = 0;

  constructor(key: KeyObject, frameNumber: number) {
    this.#key = key;
    this.frameNumber = frameNumber;
  }

  get dataBytes(): number {
    return this.#dataBytes;
  }

  add(record: Omit<LogRecord, "at">, data: Uint8Array | undefined): void {
    const carries = record.kind === recordKind.data || record.kind === recordKind.event;
    this.records.push({ ...record, at: carries ? this.#dataBytes : 0 });
    if (data !== undefined) this.#encrypt(data);
  }

  seal(link: FrameLink): SealedFrame {
    this.#endChunk();
    const first = this.records[0];
    const timeMs = first?.timeMs ?? 0;
    const directory = Buffer.allocUnsafe(directoryLength(this.records.length, this.#dataBytes));
    for (const [index, record] of this.records.entries())
      encodeRecord(directory, index, {
        volume: record.volume,
        kind: record.kind,
        deltaMs: record.timeMs - timeMs,
        offset: record.offset,
        length: record.length,
      });
    let at = this.records.length * recordBytes;
    for (const tag of this.#tags) at += tag.copy(directory, at);
    return sealFrame(this.#key, {
      ...link,
      type: frameType.records,
      frameNumber: this.frameNumber,
      recordCount: this.records.length,
      firstSequence: first?.sequence ?? 0,
      timeMs,
      directory,
      dataBytes: this.#dataBytes,
      sealedData: this.#pieces,
    });
  }

  #encrypt(data: Uint8Array): void {
    let at = 0;
    while (at < data.length) {
      this.#chunk ??= createCipheriv(
        "aes-256-gcm",
        this.#key,
        frameNonce(this.frameNumber, this.#tags.length + 1, frameType.records),
      );
      const part = data.subarray(at, at + chunkBytes - this.#chunkFilled);
      this.#pieces.push(this.#chunk.update(part));
      at += part.length;
      this.#chunkFilled += part.length;
      this.#dataBytes += part.length;
      if (this.#chunkFilled === chunkBytes) this.#endChunk();
    }
  }

  #endChunk(): void {
    if (this.#chunk === undefined) return;
    this.#chunk.final();
    const tag = this.#chunk.getAuthTag();
    this.#pieces.push(tag);
    this.#tags.push(tag);
    this.#chunk = undefined;
    this.#chunkFilled = 0;
  }
}
