/** Reading sealed chunks back. Each is authenticated by itself: key, frame, place and content. */
import { type KeyObject, createDecipheriv } from "node:crypto";
import type { SegmentFile } from "./segment-folder.ts";
import { chunkBytes, frameNonce, frameType, type FrameType, tagBytes } from "./segment-format.ts";

/** `undefined` where the tag does not fit. */
export function unseal(
  key: KeyObject,
  nonce: Buffer,
  bytes: Buffer,
  tag: Buffer,
  additional?: Buffer,
): Buffer | undefined {
  const decipher = createDecipheriv("aes-256-gcm", key, nonce);
  decipher.setAuthTag(tag);
  if (additional !== undefined) decipher.setAAD(additional);
  const plain = decipher.update(bytes);
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}

export const unsealDirectory = (
  key: KeyObject,
  frame: { frameNumber: number; type: FrameType; tag: Buffer },
  header: Buffer,
  directory: Buffer,
): Buffer | undefined =>
  unseal(key, frameNonce(frame.frameNumber, 0, frame.type), directory, frame.tag, header.subarray(0, 64));

export interface FrameData {
  readonly frameNumber: number;
  readonly dataPosition: number;
  readonly dataBytes: number;
}

export const chunkPosition = (frame: FrameData, chunk: number): number =>
  frame.dataPosition + chunk * (chunkBytes + tagBytes);

export const chunkLength = (frame: FrameData, chunk: number): number =>
  Math.min(chunkBytes, frame.dataBytes - chunk * chunkBytes);

const unsealChunk = (key: KeyObject, frame: FrameData, chunk: number, sealed: Buffer): Buffer | undefined =>
  unseal(
    key,
    frameNonce(frame.frameNumber, chunk + 1, frameType.records),
    sealed.subarray(0, sealed.length - tagBytes),
    sealed.subarray(sealed.length - tagBytes),
  );

/** Chunks `first` to `last` in one read. `undefined` for one that does not authenticate, or is not all there. */
export async function readChunks(
  file: SegmentFile,
  key: KeyObject,
  frame: FrameData,
  first: number,
  last: number,
): Promise<(Buffer | undefined)[]> {
  const from = chunkPosition(frame, first);
  const to = chunkPosition(frame, last) + chunkLength(frame, last) + tagBytes;
  const sealed = Buffer.allocUnsafe(to - from);
  const got = await file.read(sealed, from);
  const chunks: (Buffer | undefined)[] = [];
  for (let chunk = first; chunk <= last; chunk += 1) {
    const at = chunkPosition(frame, chunk) - from;
    const end = at + chunkLength(frame, chunk) + tagBytes;
    chunks.push(end <= got ? unsealChunk(key, frame, chunk, sealed.subarray(at, end)) : undefined);
  }
  return chunks;
}

/** The whole data area of a frame, for small frames: events. */
export async function readFrameRange(
  file: SegmentFile,
  key: KeyObject,
  frame: FrameData,
  at: number,
  length: number,
): Promise<Buffer | undefined> {
  if (length === 0) return Buffer.alloc(0);
  const first = Math.floor(at / chunkBytes);
  const chunks = await readChunks(file, key, frame, first, Math.floor((at + length - 1) / chunkBytes));
  if (chunks.some((chunk) => chunk === undefined)) return undefined;
  const start = at - first * chunkBytes;
  return Buffer.concat(chunks as Buffer[]).subarray(start, start + length);
}
