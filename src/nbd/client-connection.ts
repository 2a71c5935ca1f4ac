/**
 * The transmission phase of one connection, seen by the client: requests go out as they come, replies are matched by cookie. It
 * repeats nothing: what has no answer when the connection is lost goes back to its owner.
 */
import type { Duplex } from "node:stream";
import { OperationalError, type Outcome } from "#kernel/errors.ts";
import type { MetaContext } from "#wire/nbd/handshake.ts";
import { nbdCommand, nbdError, requestBytes } from "#wire/nbd/protocol.ts";
import { type ReplyChunk, ReplyParser, type ReplySink } from "#wire/nbd/reply-parser.ts";
import { type StatusExtent, writeRequest } from "#wire/nbd/transmission.ts";
import type { ClientNegotiated } from "./client-handshake.ts";
import { CoveredRanges } from "./covered-ranges.ts";
import { errorFromNumber } from "./error-number.ts";

/** A request on its way to an answer, over however many connections. Settled exactly once. */
export interface Operation {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** A write's data. */
  readonly payload?: Uint8Array;
  /** A read's place for its data. */
  readonly target?: Buffer;
  /** By context id, in the order they came; for a block status. */
  readonly statuses?: Map<number, StatusExtent[]>;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  /** The caller waits no longer. */
  readonly isAbandoned: () => boolean;
}

/** Of one read's data, before they have grown together: a server sends a few, in order. */
const maxPieces = 4096;

interface Pending {
  readonly operation: Operation;
  /** What has come of a read. */
  readonly covered: CoveredRanges;
  error: OperationalError | undefined;
  shutdown: boolean;
}

export interface ConnectionOwner {
  /** The connection is over. `unanswered` may or may not have been carried out; `refused` have not. */
  lost(
    connection: ClientConnection,
    operations: { readonly unanswered: readonly Operation[]; readonly refused: readonly Operation[] },
    reason: Error,
  ): void;
  /** The server says that it goes down: nothing more is sent over this connection. */
  draining(connection: ClientConnection): void;
  /** An operation was settled: there is room for another. */
  settled(connection: ClientConnection, operation: Operation): void;
}

export class ClientConnection implements ReplySink {
  readonly contexts: readonly MetaContext[];
  readonly #stream: Duplex;
  readonly #structured: boolean;
  readonly #owner: ConnectionOwner;
  readonly #parser = new ReplyParser(this);
  readonly #pending = new Map<number, Pending>();
  readonly #refused: Operation[] = [];
  #lastCookie = 0;
  #bytes = 0;
  #out: Uint8Array[] = [];
  #over = false;
  /** The server is shutting down: no more requests. */
  #draining = false;

  constructor(negotiated: ClientNegotiated, owner: ConnectionOwner) {
    this.contexts = negotiated.contexts;
    this.#stream = negotiated.stream;
    this.#structured = negotiated.structured;
    this.#owner = owner;
    this.#stream.on("data", (chunk: Buffer) => this.#receive(chunk));
    this.#stream.on("error", (error) => this.#lose(error));
    this.#stream.on("end", () => this.#lose(new Error("the server ended the connection")));
    this.#stream.on("close", () => this.#lose(new Error("the connection closed")));
    // Later, when the owner knows this connection: it may be lost at once.
    process.nextTick(() => {
      this.#receive(negotiated.leftover);
      if (this.#stream.destroyed || this.#stream.readableEnded)
        this.#lose(new Error("the connection closed"));
      this.#stream.resume();
    });
  }

  get requests(): number {
    return this.#pending.size;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get usable(): boolean {
    return !this.#over && !this.#draining;
  }

  send(operation: Operation): void {
    let cookie = this.#lastCookie;
    do cookie = cookie === 0xffffffff ? 1 : cookie + 1;
    while (this.#pending.has(cookie));
    this.#lastCookie = cookie;
    this.#pending.set(cookie, { operation, covered: new CoveredRanges(), error: undefined, shutdown: false });
    this.#bytes += payloadBytes(operation);
    const head = Buffer.allocUnsafe(requestBytes);
    writeRequest(head, { ...operation, cookieHigh: 0, cookieLow: cookie });
    if (this.#out.length === 0) process.nextTick(() => this.#flush());
    this.#out.push(head);
    if (operation.payload !== undefined) this.#out.push(operation.payload);
  }

  /** The orderly end; to be called when nothing is pending. */
  async disconnect(): Promise<void> {
    if (this.#over) return;
    this.#over = true;
    const head = Buffer.allocUnsafe(requestBytes);
    const goodbye = { command: nbdCommand.disconnect, flags: 0, offset: 0, length: 0 };
    writeRequest(head, { ...goodbye, cookieHigh: 0, cookieLow: 0 });
    await new Promise<void>((resolve) => {
      this.#stream.once("close", resolve);
      this.#stream.end(head, () => this.#stream.destroy());
    });
  }

  /** Ends the connection as if it had been lost. */
  drop(reason: Error): void {
    this.#lose(reason);
  }

  // --- replies

  simpleReply(high: number, low: number, error: number): Buffer | undefined {
    const pending = this.#pendingOf(high, low);
    const { operation } = pending;
    if (error !== 0) this.#fail(pending, error, "");
    const carries = operation.command === nbdCommand.read || operation.command === nbdCommand.blockStatus;
    // Simple replies to requests with data in the answer are gone once structured ones were agreed.
    if (carries && this.#structured && error === 0) throw broken("a simple reply to a read");
    if (operation.target === undefined || error !== 0) return undefined;
    pending.covered.add(0, operation.length);
    return operation.target;
  }

  dataChunk(high: number, low: number, offset: number, length: number): Buffer {
    const pending = this.#pendingOf(high, low);
    return this.#place(pending, offset, length);
  }

  chunk(high: number, low: number, chunk: ReplyChunk): void {
    const pending = this.#pendingOf(high, low);
    switch (chunk.type) {
      case "hole":
        this.#place(pending, chunk.offset, chunk.length).fill(0);
        return;
      case "status": {
        const { statuses } = pending.operation;
        if (statuses === undefined || statuses.has(chunk.contextId))
          throw broken("a status nobody asked for");
        statuses.set(chunk.contextId, [...chunk.extents]);
        return;
      }
      case "error":
        this.#fail(pending, chunk.error, chunk.message);
    }
  }

  done(high: number, low: number): void {
    const pending = this.#pendingOf(high, low);
    const { operation } = pending;
    const short = operation.target !== undefined && pending.covered.bytes < operation.length;
    // Thrown while the request is still pending: it is settled with the rest when the connection is given up.
    if (short && pending.error === undefined) throw broken("fewer bytes than were asked for");
    this.#pending.delete(low);
    this.#bytes -= payloadBytes(operation);
    if (pending.shutdown) {
      this.#drain(operation);
      return;
    }
    if (pending.error !== undefined) operation.reject(pending.error);
    else operation.resolve();
    this.#owner.settled(this, operation);
  }

  // --- inside

  #pendingOf(high: number, low: number): Pending {
    const pending = high === 0 ? this.#pending.get(low) : undefined;
    if (pending === undefined) throw broken("a reply to no request");
    return pending;
  }

  /** The part of a read's target that a chunk fills. */
  #place(pending: Pending, offset: number, length: number): Buffer {
    const { operation } = pending;
    const at = offset - operation.offset;
    if (operation.target === undefined || at < 0 || at + length > operation.length)
      throw broken("data outside of what was asked for");
    // Without overlaps, as many bytes as were asked for are all of them: none is left as the memory had it before.
    if (!pending.covered.add(at, at + length)) throw broken("the same data twice");
    // Each piece costs a look at all others: a server that wants to keep us busy could send millions.
    if (pending.covered.pieces > maxPieces) throw broken("data in more pieces than make sense");
    return operation.target.subarray(at, at + length);
  }

  #fail(pending: Pending, error: number, said: string): void {
    const { command, offset, length } = pending.operation;
    if (error === nbdError.ESHUTDOWN) pending.shutdown = true;
    const writes = command === nbdCommand.write || command === nbdCommand.writeZeroes;
    const what = `command ${command} at ${offset}, ${length} bytes`;
    pending.error ??= errorFromNumber(error, { what, outcome: outcomeOf(error, writes), said });
  }

  /** The server goes down: this request was not carried out, and no further one will be. */
  #drain(operation: Operation): void {
    if (!this.#draining) this.#owner.draining(this);
    this.#draining = true;
    this.#refused.push(operation);
    if (this.#pending.size === 0) this.#lose(new Error("the server is shutting down"));
  }

  #receive(chunk: Buffer): void {
    if (this.#over) return;
    try {
      this.#parser.feed(chunk);
    } catch (error) {
      if (!(error instanceof OperationalError)) throw error;
      this.#lose(error);
    }
    if (this.#draining && this.#pending.size === 0) this.#lose(new Error("the server is shutting down"));
  }

  #flush(): void {
    const out = this.#out;
    this.#out = [];
    if (this.#over) return;
    this.#stream.cork();
    for (const bytes of out) this.#stream.write(bytes);
    this.#stream.uncork();
  }

  #lose(reason: Error): void {
    if (this.#over) return;
    this.#over = true;
    this.#stream.destroy();
    const unanswered = [...this.#pending.values()].map(({ operation }) => operation);
    this.#pending.clear();
    this.#owner.lost(this, { unanswered, refused: this.#refused }, reason);
  }
}

/** A write that failed on the disk may have been carried out in part; one that was refused was not. */
function outcomeOf(error: number, writes: boolean): Outcome {
  if (!writes) return "not_applied";
  const refusals: readonly number[] = [nbdError.EPERM, nbdError.EINVAL, nbdError.ENOTSUP, nbdError.ESHUTDOWN];
  return refusals.includes(error) ? "not_applied" : "unknown";
}

function payloadBytes(operation: Operation): number {
  return operation.target?.length ?? operation.payload?.length ?? 0;
}

function broken(what: string): OperationalError {
  return new OperationalError("nbd.protocol", `the NBD server sent ${what}`, { outcome: "unknown" });
}
