/**
 * The transmission phase of one connection, seen by the server. Requests run side by side, replies leave as they complete, and
 * memory is bounded by construction: what is in flight counts from the request's admission until its reply has gone to the
 * kernel, and above the limits nothing more is read from the socket.
 */
import type { Duplex } from "node:stream";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import { invariant, InvariantViolation } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { commandFlag, maxPayloadBytes, nbdCommand, nbdError, simpleReplyBytes } from "#wire/nbd/protocol.ts";
import { type Admission, RequestParser, type RequestSink } from "#wire/nbd/request-parser.ts";
import {
  type NbdRequest,
  dataChunkHeadBytes,
  encodeDoneChunk,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeSimpleReply,
  writeDataChunkHead,
  writeSimpleReply,
} from "#wire/nbd/transmission.ts";
import { answerBlockStatus } from "./block-status.ts";
import { BufferPool } from "./buffer-pool.ts";
import { errorNumberOf } from "./error-number.ts";
import type { ExportConnection } from "./export-provider.ts";
import type { Negotiated } from "./server-handshake.ts";

export interface TransmissionLimits {
  readonly maxRequests: number;
  /** Payloads of writes and replies of reads; one request may always run, whatever its size. */
  readonly maxBytes: number;
}

/** How long a client may take to end its side after we have ended ours. */
const lingerMs = 1_000;
/** Counted for a request besides its payload. */
const requestOverheadBytes = 256;

export class TransmissionServer implements RequestSink, ExportConnection {
  readonly #negotiated: Negotiated;
  readonly #limits: TransmissionLimits;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #stream: Duplex;
  readonly #parser = new RequestParser(this);
  readonly #pool: BufferPool;
  readonly #abort = new AbortController();
  readonly #ended = Promise.withResolvers<void>();
  #requests = 0;
  #bytes = 0;
  /** Admitted, and its payload is still coming; with what its header was judged to be: 0, or the error number of its refusal. */
  #arriving: { readonly request: NbdRequest; readonly refused: number } | undefined;
  /** Bytes that were read and may not be looked at yet. */
  #held: Buffer | undefined;
  /** Who waits for what is held. */
  #behind: (() => void)[] = [];
  #closing = false;
  /** Our side has ended. */
  #leaving = false;
  /** No more is read: the client said goodbye or ended its side. */
  #inputOver = false;
  #batch: Buffer[] = [];
  #batchPooled: Buffer[] = [];
  #batchRequests = 0;
  #batchCost = 0;
  #flushScheduled = false;

  constructor(
    negotiated: Negotiated,
    limits: TransmissionLimits,
    { clock, log }: { readonly clock: Clock; readonly log: Log },
  ) {
    this.#negotiated = negotiated;
    this.#limits = limits;
    this.#pool = new BufferPool(limits.maxBytes);
    this.#clock = clock;
    this.#log = log;
    this.#stream = negotiated.stream;
  }

  /** Serves until the connection is over and no request of it runs any more. */
  async run(): Promise<void> {
    const stream = this.#stream;
    stream.pause();
    stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    stream.on("end", () => this.#endInput());
    stream.on("error", (error) => this.#log.debug({ error }, "nbd connection failed"));
    stream.on("close", () => {
      this.#abort.abort(new OperationalError("aborted", "the NBD client is gone"));
      this.#endInput();
    });
    if (stream.destroyed) return;
    this.#receive(this.#negotiated.leftover);
    // The end may have come with the last byte of the handshake, before anybody listened here.
    if (stream.readableEnded) this.#endInput();
    if (this.#held === undefined) stream.resume();
    await this.#ended.promise;
  }

  /** From here on requests are answered ESHUTDOWN; the connection ends when those in flight have been answered. */
  close(): void {
    this.#closing = true;
    this.#settle();
  }

  destroy(): void {
    this.#stream.destroy();
  }

  async caughtUp(signal: AbortSignal): Promise<void> {
    // A socket that is read is read dry in one turn of the event loop; the first may have begun before the call.
    for (let turns = 0; turns < 2 && !this.#inputOver;) {
      if (this.#held !== undefined) await this.#readOn(signal);
      signal.throwIfAborted();
      await new Promise<void>((resolve) => void setImmediate(resolve));
      turns = this.#held === undefined ? turns + 1 : 0;
    }
  }

  /** Resolves when nothing is held for want of room, or never will be looked at. */
  async #readOn(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const aborted = Promise.withResolvers<never>();
    const abort = (): void => aborted.reject(signal.reason as Error);
    signal.addEventListener("abort", abort, { once: true });
    try {
      while (this.#held !== undefined) {
        const moved = new Promise<void>((resolve) => void this.#behind.push(resolve));
        await Promise.race([moved, aborted.promise]);
      }
    } finally {
      signal.removeEventListener("abort", abort);
    }
  }

  // --- what the parser asks

  admit(request: NbdRequest): Admission {
    // What comes after a goodbye is not for us.
    if (this.#inputOver) return "wait";
    const cost = costOf(request);
    const full =
      this.#requests >= this.#limits.maxRequests ||
      (this.#requests > 0 && this.#bytes + cost > this.#limits.maxBytes);
    if (full) return "wait";
    this.#requests += 1;
    this.#bytes += cost;
    const refused = this.#refusal(request);
    this.#arriving = { request, refused };
    return refused === 0 ? "take" : "discard";
  }

  payload(length: number): Buffer {
    return this.#pool.take(length);
  }

  request(request: NbdRequest, payload: Buffer | undefined): void {
    if (request.command === nbdCommand.disconnect) {
      this.#endInput();
      return;
    }
    // What was refused stays refused, and its payload is gone, though the export may have grown since.
    const refused = this.#arriving?.refused ?? 0;
    this.#arriving = undefined;
    void this.#serve(request, payload, refused);
  }

  // --- bytes in

  #receive(chunk: Buffer): void {
    if (this.#inputOver) return;
    try {
      const taken = this.#parser.feed(chunk);
      if (!this.#parser.waiting || this.#inputOver) return;
      this.#held = chunk.subarray(taken);
      this.#stream.pause();
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      this.#log.warn({ code: error.code, problem: error.message }, "nbd connection dropped");
      this.#stream.destroy();
    }
  }

  #continue(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.#receive(held);
    if (this.#held === undefined && !this.#inputOver) this.#stream.resume();
    this.#wakeBehind();
  }

  #wakeBehind(): void {
    for (const wake of this.#behind.splice(0)) wake();
  }

  #endInput(): void {
    this.#inputOver = true;
    this.#held = undefined;
    this.#wakeBehind();
    if (this.#arriving !== undefined) {
      // It will never be complete, and nothing of it was done.
      this.#requests -= 1;
      this.#bytes -= costOf(this.#arriving.request);
      this.#arriving = undefined;
    }
    this.#settle();
  }

  /** Ends the connection once nothing more is to come in or out. */
  #settle(): void {
    if (this.#requests > 0) return;
    if (this.#stream.destroyed) {
      this.#ended.resolve();
      return;
    }
    if (this.#leaving || !(this.#inputOver || this.#closing)) return;
    this.#leaving = true;
    this.#inputOver = true;
    this.#stream.end();
    // Unread bytes would turn the end into a reset, and a reset takes answers with it that are still on their way: what the client
    // sends now is read and dropped until it ends its side too, or has had its time to.
    this.#stream.resume();
    const linger = deadlineAfter(this.#clock, lingerMs);
    const leave = (): void => {
      if (this.#stream.readableEnded && this.#stream.writableFinished) this.#stream.destroy();
    };
    linger.signal.addEventListener("abort", () => this.#stream.destroy());
    this.#stream.once("close", () => linger.cancel());
    this.#stream.once("finish", leave);
    this.#stream.once("end", leave);
    leave();
  }

  // --- requests

  /** 0, or the error number of a request that must not reach the device. */
  #refusal(request: NbdRequest): number {
    if (this.#closing) return nbdError.ESHUTDOWN;
    const { opened, contexts } = this.#negotiated;
    const rule = rules[request.command];
    if (rule === undefined) return nbdError.EINVAL;
    if ((request.flags & ~rule.flags) !== 0) return nbdError.EINVAL;
    if (rule.writes && !opened.writable) return nbdError.EPERM;
    if (request.command === nbdCommand.flush || request.command === nbdCommand.disconnect) return 0;
    const beyond = request.offset + request.length > opened.device.sizeBytes;
    if (beyond) return rule.writes ? nbdError.ENOSPC : nbdError.EINVAL;
    if (request.command === nbdCommand.read && request.length > maxPayloadBytes) return nbdError.EINVAL;
    if (request.command === nbdCommand.blockStatus && (contexts.length === 0 || request.length === 0))
      return nbdError.EINVAL;
    return 0;
  }

  async #serve(request: NbdRequest, payload: Buffer | undefined, refusedBefore: number): Promise<void> {
    // Again: while its payload came, the server may have begun to close.
    const refused = refusedBefore === 0 ? this.#refusal(request) : refusedBefore;
    try {
      if (refused !== 0) this.#fail(request, refused, "");
      else if (request.command === nbdCommand.read) await this.#read(request);
      else if (request.command === nbdCommand.blockStatus)
        this.#finish(request, await answerBlockStatus(request, this.#negotiated, this.#abort.signal));
      else {
        await this.#perform(request, payload);
        this.#finish(request, [encodeSimpleReply(request, 0)]);
      }
    } catch (error) {
      // A bug must not be told to a guest as a disk error: the process dies and is started anew.
      if (error instanceof InvariantViolation) throw error;
      if (!this.#stream.destroyed) this.#log.warn({ command: request.command, error }, "nbd request failed");
      this.#fail(request, errorNumberOf(error), publicMessage(error));
    }
  }

  async #perform(request: NbdRequest, payload: Buffer | undefined): Promise<void> {
    const { opened } = this.#negotiated;
    const { signal } = this.#abort;
    const { offset, length, flags } = request;
    if (request.command === nbdCommand.cache)
      return warm(opened.device.read.bind(opened.device), request, signal);
    if (!opened.writable) return;
    const device: BlockDevice = opened.device;
    const fua = (flags & commandFlag.fua) !== 0;
    switch (request.command) {
      case nbdCommand.flush:
        return device.flush(signal);
      case nbdCommand.write:
        if (length === 0) return;
        invariant(payload !== undefined, "a write that is carried out has its data");
        await device.write(offset, payload, { fua, signal });
        // Not after a failure: who knows what still reads it.
        this.#pool.give(payload);
        return;
      case nbdCommand.trim:
        return device.trim(offset, length, { fua, signal });
      case nbdCommand.writeZeroes:
        if ((flags & commandFlag.fastZero) !== 0 && opened.fastZero !== true)
          throw new OperationalError("cloud.unsupported", "zeroes are not faster than data here");
        return device.zero(offset, length, { fua, keepSpace: (flags & commandFlag.noHole) !== 0, signal });
      default:
        return undefined;
    }
  }

  async #read(request: NbdRequest): Promise<void> {
    const { opened, structured } = this.#negotiated;
    const { device } = opened;
    const { signal } = this.#abort;
    const { offset, length } = request;
    const whole = !structured || (request.flags & commandFlag.dontFragment) !== 0;
    if (!whole && opened.cheapExtents === true && length > 0) {
      const extents = await device.extents(offset, length, signal);
      if (extents.some(({ kind }) => kind !== "data")) {
        const chunks: Buffer[] = [];
        for (const [index, extent] of extents.entries()) {
          const chunk = { offset: extent.offset, length: extent.length, done: index === extents.length - 1 };
          if (extent.kind === "data") {
            const head = Buffer.allocUnsafe(dataChunkHeadBytes);
            writeDataChunkHead(head, request, chunk);
            chunks.push(head, await device.read(extent.offset, extent.length, signal));
          } else chunks.push(encodeHoleChunk(request, chunk));
        }
        this.#finish(request, chunks);
        return;
      }
    }
    if (structured && length === 0) {
      this.#finish(request, [encodeDoneChunk(request)]);
      return;
    }
    const headBytes = structured ? dataChunkHeadBytes : simpleReplyBytes;
    const writeHead = (reply: Buffer): void => {
      if (structured) writeDataChunkHead(reply, request, { offset, length, done: true });
      else writeSimpleReply(reply, request, 0);
    };
    if (device.readInto === undefined) {
      const head = Buffer.allocUnsafe(headBytes);
      writeHead(head);
      this.#finish(request, [head, await device.read(offset, length, signal)]);
      return;
    }
    const reply = this.#pool.take(headBytes + length);
    writeHead(reply);
    await device.readInto(reply.subarray(headBytes), offset, signal);
    this.#finish(request, [reply], reply);
  }

  #fail(request: NbdRequest, error: number, message: string): void {
    const reply = this.#negotiated.structured
      ? encodeErrorChunk(request, error, message)
      : encodeSimpleReply(request, error);
    this.#finish(request, [reply]);
  }

  // --- replies out

  /** `pooled` goes back to the pool once the reply is gone. */
  #finish(request: NbdRequest, reply: readonly Buffer[], pooled?: Buffer): void {
    this.#batch.push(...reply);
    if (pooled !== undefined) this.#batchPooled.push(pooled);
    this.#batchRequests += 1;
    this.#batchCost += costOf(request);
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    // After all completions of this turn of the event loop: their replies leave in one system call.
    setImmediate(() => this.#flush());
  }

  #flush(): void {
    this.#flushScheduled = false;
    const batch = this.#batch;
    const pooled = this.#batchPooled;
    const requests = this.#batchRequests;
    const cost = this.#batchCost;
    this.#batch = [];
    this.#batchPooled = [];
    this.#batchRequests = 0;
    this.#batchCost = 0;
    const gone = (): void => {
      this.#requests -= requests;
      this.#bytes -= cost;
      for (const bytes of pooled) this.#pool.give(bytes);
      this.#continue();
      this.#settle();
    };
    if (this.#stream.destroyed) {
      gone();
      return;
    }
    this.#stream.cork();
    for (const [index, bytes] of batch.entries()) {
      if (index < batch.length - 1) this.#stream.write(bytes);
      else this.#stream.write(bytes, gone);
    }
    this.#stream.uncork();
  }
}

interface CommandRule {
  /** The flags that the command knows; any other is refused. */
  readonly flags: number;
  readonly writes: boolean;
}

const rules: Readonly<Record<number, CommandRule>> = {
  // The document: clients are known to set FUA on commands that do not write; it is accepted everywhere.
  [nbdCommand.read]: { flags: commandFlag.fua | commandFlag.dontFragment, writes: false },
  [nbdCommand.write]: { flags: commandFlag.fua, writes: true },
  [nbdCommand.disconnect]: { flags: 0xffff, writes: false },
  [nbdCommand.flush]: { flags: commandFlag.fua, writes: false },
  [nbdCommand.trim]: { flags: commandFlag.fua, writes: true },
  [nbdCommand.cache]: { flags: commandFlag.fua, writes: false },
  [nbdCommand.writeZeroes]: {
    flags: commandFlag.fua | commandFlag.noHole | commandFlag.fastZero,
    writes: true,
  },
  [nbdCommand.blockStatus]: { flags: commandFlag.fua | commandFlag.requestOne, writes: false },
};

function costOf(request: NbdRequest): number {
  const carries = request.command === nbdCommand.read || request.command === nbdCommand.write;
  const payload = carries ? Math.min(request.length, maxPayloadBytes) : 0;
  return payload + requestOverheadBytes;
}

/** Reads a range piece by piece and throws it away: what a hint to cache comes to for a device that has no other way. */
async function warm(
  read: (offset: number, length: number, signal: AbortSignal) => Promise<Buffer>,
  { offset, length }: NbdRequest,
  signal: AbortSignal,
): Promise<void> {
  const pieceBytes = 1024 * 1024;
  for (let at = 0; at < length; at += pieceBytes) {
    signal.throwIfAborted();
    await read(offset + at, Math.min(pieceBytes, length - at), signal);
  }
}
