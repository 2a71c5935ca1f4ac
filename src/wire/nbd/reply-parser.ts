/**
 * Divides a server's byte stream of the transmission phase into replies, whatever the pieces in which it arrives. Data goes
 * straight to where the sink wants it; nothing else is held but one head and one small payload.
 */
import { OperationalError } from "#kernel/errors.ts";
import { u64At } from "./handshake.ts";
import {
  chunkHeaderBytes,
  chunkType,
  maxPayloadBytes,
  nbdMagic,
  replyFlag,
  simpleReplyBytes,
} from "./protocol.ts";
import {
  type StatusExtent,
  dataChunkHeadBytes,
  decodeErrorPayload,
  decodeStatusPayload,
} from "./transmission.ts";

/** Descriptors of one status chunk and error texts: no honest server sends more. */
const maxCollectedBytes = 1024 * 1024;

export type ReplyChunk =
  | { readonly type: "hole"; readonly offset: number; readonly length: number }
  | { readonly type: "status"; readonly contextId: number; readonly extents: readonly StatusExtent[] }
  | { readonly type: "error"; readonly error: number; readonly message: string };

/** Every method may throw `nbd.protocol` when what came does not fit the request of that cookie. */
export interface ReplySink {
  /** The head of a simple reply; answers the buffer for the data that follows it, where some does. */
  simpleReply(cookieHigh: number, cookieLow: number, error: number): Buffer | undefined;
  /** A data chunk begins; answers the buffer of exactly `length` bytes that it fills. */
  dataChunk(cookieHigh: number, cookieLow: number, offset: number, length: number): Buffer;
  chunk(cookieHigh: number, cookieLow: number, chunk: ReplyChunk): void;
  /** The reply is complete: all of its data is where it belongs. */
  done(cookieHigh: number, cookieLow: number): void;
}

export class ReplyParser {
  readonly #sink: ReplySink;
  readonly #head = Buffer.allocUnsafe(dataChunkHeadBytes);
  #filled = 0;
  /** Bytes of the head that must be there before more is known. */
  #needed = 4;
  #target: Buffer | undefined;
  #targetFilled = 0;
  /** The target is a payload to decode, not data. */
  #collecting = false;

  constructor(sink: ReplySink) {
    this.#sink = sink;
  }

  /** @throws OperationalError `nbd.protocol` when the stream cannot be a server's: the connection must be dropped. */
  feed(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#target !== undefined) {
        const taken = Math.min(this.#target.length - this.#targetFilled, chunk.length - at);
        chunk.copy(this.#target, this.#targetFilled, at, at + taken);
        at += taken;
        this.#filledTarget(taken);
        continue;
      }
      const taken = Math.min(this.#needed - this.#filled, chunk.length - at);
      chunk.copy(this.#head, this.#filled, at, at + taken);
      this.#filled += taken;
      at += taken;
      if (this.#filled === this.#needed) this.#advance();
    }
  }

  #filledTarget(count: number): void {
    this.#targetFilled += count;
    if (this.#target === undefined || this.#targetFilled < this.#target.length) return;
    const target = this.#target;
    this.#target = undefined;
    if (this.#collecting) this.#decode(target);
    this.#complete();
  }

  #advance(): void {
    const head = this.#head;
    if (this.#needed === 4) {
      const magic = head.readUInt32BE(0);
      if (magic === nbdMagic.simpleReply) this.#needed = simpleReplyBytes;
      else if (magic === nbdMagic.structuredReply) this.#needed = chunkHeaderBytes;
      else throw broken("what is no NBD reply");
      return;
    }
    if (this.#needed === simpleReplyBytes) {
      const target = this.#sink.simpleReply(
        head.readUInt32BE(8),
        head.readUInt32BE(12),
        head.readUInt32BE(4),
      );
      this.#fill(target, false);
      return;
    }
    const type = head.readUInt16BE(6);
    const length = head.readUInt32BE(16);
    if (type === chunkType.offsetData) this.#beginData(length);
    else if (length === 0) {
      if (type !== chunkType.none || !this.#isLast) throw broken(`an empty chunk of type ${type}`);
      this.#complete();
    } else {
      if (length > maxCollectedBytes) throw broken(`a chunk of type ${type} and ${length} bytes`);
      this.#fill(Buffer.allocUnsafe(length), true);
    }
  }

  #beginData(length: number): void {
    if (length < 9 || length - 8 > maxPayloadBytes) throw broken(`a data chunk of ${length} bytes`);
    if (this.#needed < dataChunkHeadBytes) {
      this.#needed = dataChunkHeadBytes;
      return;
    }
    const offset = u64At(this.#head, chunkHeaderBytes);
    const target = this.#sink.dataChunk(this.#cookieHigh, this.#cookieLow, offset, length - 8);
    this.#fill(target, false);
  }

  #fill(target: Buffer | undefined, collecting: boolean): void {
    if (target === undefined || target.length === 0) {
      this.#complete();
      return;
    }
    this.#target = target;
    this.#targetFilled = 0;
    this.#collecting = collecting;
  }

  #decode(payload: Buffer): void {
    const chunk = decodeChunk(this.#head.readUInt16BE(6), payload);
    if (chunk === undefined) throw broken(`a malformed chunk of type ${this.#head.readUInt16BE(6)}`);
    this.#sink.chunk(this.#cookieHigh, this.#cookieLow, chunk);
  }

  /** A reply or one chunk of it is over. */
  #complete(): void {
    const last = this.#needed === simpleReplyBytes || this.#isLast;
    this.#filled = 0;
    this.#needed = 4;
    if (last) this.#sink.done(this.#cookieHigh, this.#cookieLow);
  }

  get #isLast(): boolean {
    return (this.#head.readUInt16BE(4) & replyFlag.done) !== 0;
  }

  get #cookieHigh(): number {
    return this.#head.readUInt32BE(8);
  }

  get #cookieLow(): number {
    return this.#head.readUInt32BE(12);
  }
}

function decodeChunk(type: number, payload: Buffer): ReplyChunk | undefined {
  if (type === chunkType.offsetHole) {
    const length = payload.length === 12 ? payload.readUInt32BE(8) : 0;
    return length === 0 ? undefined : { type: "hole", offset: u64At(payload, 0), length };
  }
  if (type === chunkType.blockStatus) {
    const status = decodeStatusPayload(payload);
    return status && { type: "status", ...status };
  }
  // Every type with bit 15 is an error that begins alike, also those that this codec does not know.
  if (type >= 0x8000) {
    const error = decodeErrorPayload(payload);
    return error && { type: "error", ...error };
  }
  return undefined;
}

function broken(what: string): OperationalError {
  return new OperationalError("nbd.protocol", `the NBD server sent ${what}`, { outcome: "unknown" });
}
