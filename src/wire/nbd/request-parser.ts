/**
 * Divides a client's byte stream of the transmission phase into requests, whatever the pieces in which it arrives. Holds at
 * most one header and one payload; never reads ahead of what the sink admits.
 */
import { OperationalError } from "#kernel/errors.ts";
import { maxPayloadBytes, nbdCommand, requestBytes } from "./protocol.ts";
import { type NbdRequest, readRequest } from "./transmission.ts";

/**
 * `wait`: not now; the stream stops before the request's payload and asks again at the next `feed`. `discard`: a write whose
 * payload is to be thrown away: it is going to be refused.
 */
export type Admission = "take" | "discard" | "wait";

export interface RequestSink {
  admit(request: NbdRequest): Admission;
  /** A buffer of exactly `length` bytes for a write's payload; it is the sink's. */
  payload(length: number): Buffer;
  /** A complete request. `payload` is there for a write that was taken. */
  request(request: NbdRequest, payload: Buffer | undefined): void;
}

export class RequestParser {
  readonly #sink: RequestSink;
  readonly #header = Buffer.allocUnsafe(requestBytes);
  #headerFilled = 0;
  /** The request whose header is complete, until its payload is. */
  #current: NbdRequest | undefined;
  #admitted = false;
  #payload: Buffer | undefined;
  #payloadLeft = 0;

  constructor(sink: RequestSink) {
    this.#sink = sink;
  }

  /** True between two requests: a peer that ends here has left nothing half said. */
  get atBoundary(): boolean {
    return this.#current === undefined && this.#headerFilled === 0;
  }

  /** True while a complete header waits for the sink's admission; `feed` with the rest (or nothing) asks again. */
  get waiting(): boolean {
    return this.#current !== undefined && !this.#admitted;
  }

  /**
   * Takes bytes of `chunk` until it is used up or the sink says `wait`; returns how many were taken. The rest must come again.
   * @throws OperationalError `nbd.protocol` when the stream cannot be a client's: the connection must be dropped.
   */
  feed(chunk: Buffer): number {
    let at = 0;
    for (;;) {
      if (this.#current === undefined) {
        at = this.#takeHeader(chunk, at);
        if (this.#current === undefined) return at;
      }
      if (!this.#admitted && !this.#admit(this.#current)) return at;
      const taken = Math.min(this.#payloadLeft, chunk.length - at);
      if (taken > 0) {
        this.#payload?.set(chunk.subarray(at, at + taken), this.#payload.length - this.#payloadLeft);
        at += taken;
        this.#payloadLeft -= taken;
      }
      if (this.#payloadLeft > 0) return at;
      this.#complete();
    }
  }

  #takeHeader(chunk: Buffer, at: number): number {
    if (this.#headerFilled === 0 && chunk.length - at >= requestBytes) {
      this.#begin(readRequest(chunk, at));
      return at + requestBytes;
    }
    const taken = Math.min(requestBytes - this.#headerFilled, chunk.length - at);
    chunk.copy(this.#header, this.#headerFilled, at, at + taken);
    this.#headerFilled += taken;
    if (this.#headerFilled === requestBytes) {
      this.#headerFilled = 0;
      this.#begin(readRequest(this.#header));
    }
    return at + taken;
  }

  #begin(request: NbdRequest | undefined): void {
    if (request === undefined)
      throw new OperationalError("nbd.protocol", "the peer sent what is no NBD request");
    // What follows cannot be told from a request without reading it all: a portable client never sends that much.
    if (request.command === nbdCommand.write && request.length > maxPayloadBytes)
      throw new OperationalError("nbd.protocol", `the peer sent a write of ${request.length} bytes`);
    this.#current = request;
    this.#admitted = false;
  }

  #admit(request: NbdRequest): boolean {
    const admission = this.#sink.admit(request);
    if (admission === "wait") return false;
    this.#admitted = true;
    const length = request.command === nbdCommand.write ? request.length : 0;
    this.#payloadLeft = length;
    this.#payload = length > 0 && admission === "take" ? this.#sink.payload(length) : undefined;
    return true;
  }

  #complete(): void {
    const request = this.#current;
    const payload = this.#payload;
    this.#current = undefined;
    this.#payload = undefined;
    if (request !== undefined) this.#sink.request(request, payload);
  }
}
