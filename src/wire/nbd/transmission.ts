/** Codec of requests, simple replies and structured reply chunks. */
import { u64At, writeU64 } from "./handshake.ts";
import {
  chunkHeaderBytes,
  chunkType,
  nbdMagic,
  replyFlag,
  requestBytes,
  simpleReplyBytes,
} from "./protocol.ts";

/**
 * The client's 64 bits that name a request, as two words: they are opaque, and two numbers cost less than a BigInt.
 */
export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

export interface NbdRequest extends Cookie {
  readonly flags: number;
  readonly command: number;
  /** Above 2^53 it is rounded, and then lies beyond every device. */
  readonly offset: number;
  readonly length: number;
}

/** Writes 28 bytes at `at`. */
export function writeRequest(bytes: Buffer, request: NbdRequest, at = 0): void {
  bytes.writeUInt32BE(nbdMagic.request, at);
  bytes.writeUInt16BE(request.flags, at + 4);
  bytes.writeUInt16BE(request.command, at + 6);
  bytes.writeUInt32BE(request.cookieHigh, at + 8);
  bytes.writeUInt32BE(request.cookieLow, at + 12);
  writeU64(bytes, request.offset, at + 16);
  bytes.writeUInt32BE(request.length, at + 24);
}

export function encodeRequest(request: NbdRequest): Buffer {
  const bytes = Buffer.allocUnsafe(requestBytes);
  writeRequest(bytes, request);
  return bytes;
}

/** Undefined where the magic is wrong: the stream is lost. */
export function readRequest(bytes: Buffer, at = 0): NbdRequest | undefined {
  if (bytes.readUInt32BE(at) !== nbdMagic.request) return undefined;
  return {
    flags: bytes.readUInt16BE(at + 4),
    command: bytes.readUInt16BE(at + 6),
    cookieHigh: bytes.readUInt32BE(at + 8),
    cookieLow: bytes.readUInt32BE(at + 12),
    offset: u64At(bytes, at + 16),
    length: bytes.readUInt32BE(at + 24),
  };
}

/** Writes 16 bytes at `at`; the payload of a read follows them. */
export function writeSimpleReply(bytes: Buffer, cookie: Cookie, error: number, at = 0): void {
  bytes.writeUInt32BE(nbdMagic.simpleReply, at);
  bytes.writeUInt32BE(error, at + 4);
  bytes.writeUInt32BE(cookie.cookieHigh, at + 8);
  bytes.writeUInt32BE(cookie.cookieLow, at + 12);
}

export function encodeSimpleReply(cookie: Cookie, error: number): Buffer {
  const bytes = Buffer.allocUnsafe(simpleReplyBytes);
  writeSimpleReply(bytes, cookie, error);
  return bytes;
}

/** Writes 20 bytes at `at`; `length` bytes of payload follow them. */
export function writeChunkHeader(
  bytes: Buffer,
  cookie: Cookie,
  chunk: { readonly type: number; readonly flags: number; readonly length: number },
  at = 0,
): void {
  bytes.writeUInt32BE(nbdMagic.structuredReply, at);
  bytes.writeUInt16BE(chunk.flags, at + 4);
  bytes.writeUInt16BE(chunk.type, at + 6);
  bytes.writeUInt32BE(cookie.cookieHigh, at + 8);
  bytes.writeUInt32BE(cookie.cookieLow, at + 12);
  bytes.writeUInt32BE(chunk.length, at + 16);
}

/** Bytes before the data of an `OFFSET_DATA` chunk: its header and the offset. */
export const dataChunkHeadBytes = chunkHeaderBytes + 8;

export function writeDataChunkHead(
  bytes: Buffer,
  cookie: Cookie,
  chunk: { readonly offset: number; readonly length: number; readonly done: boolean },
  at = 0,
): void {
  const flags = chunk.done ? replyFlag.done : 0;
  writeChunkHeader(bytes, cookie, { type: chunkType.offsetData, flags, length: 8 + chunk.length }, at);
  writeU64(bytes, chunk.offset, at + chunkHeaderBytes);
}

export function encodeHoleChunk(
  cookie: Cookie,
  hole: { readonly offset: number; readonly length: number; readonly done: boolean },
): Buffer {
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes + 12);
  const flags = hole.done ? replyFlag.done : 0;
  writeChunkHeader(bytes, cookie, { type: chunkType.offsetHole, flags, length: 12 });
  writeU64(bytes, hole.offset, chunkHeaderBytes);
  bytes.writeUInt32BE(hole.length, chunkHeaderBytes + 8);
  return bytes;
}

export function encodeDoneChunk(cookie: Cookie): Buffer {
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes);
  writeChunkHeader(bytes, cookie, { type: chunkType.none, flags: replyFlag.done, length: 0 });
  return bytes;
}

/** The reply's last chunk: the request failed as a whole. The message is cut to 4096 bytes. */
export function encodeErrorChunk(cookie: Cookie, error: number, message: string): Buffer {
  const text = Buffer.from(message).subarray(0, 4096);
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes + 6 + text.length);
  const length = 6 + text.length;
  writeChunkHeader(bytes, cookie, { type: chunkType.error, flags: replyFlag.done, length });
  bytes.writeUInt32BE(error, chunkHeaderBytes);
  bytes.writeUInt16BE(text.length, chunkHeaderBytes + 4);
  text.copy(bytes, chunkHeaderBytes + 6);
  return bytes;
}

/** One range of a block status reply; `flags` mean what the context says. */
export interface StatusExtent {
  readonly length: number;
  readonly flags: number;
}

export function encodeStatusChunk(
  cookie: Cookie,
  status: { readonly contextId: number; readonly extents: readonly StatusExtent[]; readonly done: boolean },
): Buffer {
  const length = 4 + 8 * status.extents.length;
  const bytes = Buffer.allocUnsafe(chunkHeaderBytes + length);
  const flags = status.done ? replyFlag.done : 0;
  writeChunkHeader(bytes, cookie, { type: chunkType.blockStatus, flags, length });
  bytes.writeUInt32BE(status.contextId, chunkHeaderBytes);
  status.extents.forEach((extent, index) => {
    const at = chunkHeaderBytes + 4 + 8 * index;
    bytes.writeUInt32BE(extent.length, at);
    bytes.writeUInt32BE(extent.flags, at + 4);
  });
  return bytes;
}

/** Payload of a `BLOCK_STATUS` chunk; undefined where it is malformed. */
export function decodeStatusPayload(
  payload: Buffer,
): { readonly contextId: number; readonly extents: readonly StatusExtent[] } | undefined {
  if (payload.length < 12 || (payload.length - 4) % 8 !== 0) return undefined;
  const extents: StatusExtent[] = [];
  for (let at = 4; at < payload.length; at += 8) {
    const length = payload.readUInt32BE(at);
    if (length === 0) return undefined;
    extents.push({ length, flags: payload.readUInt32BE(at + 4) });
  }
  return { contextId: payload.readUInt32BE(0), extents };
}

/** Payload of every chunk with bit 15 set; undefined where it is malformed. */
export function decodeErrorPayload(payload: Buffer): { error: number; message: string } | undefined {
  if (payload.length < 6) return undefined;
  const error = payload.readUInt32BE(0);
  const length = payload.readUInt16BE(4);
  if (error === 0 || length > payload.length - 6) return undefined;
  return { error, message: payload.toString("utf8", 6, 6 + length) };
}
