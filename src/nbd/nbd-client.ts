/** An export of an NBD server as a disk. */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import type { ListedExport } from "#wire/nbd/handshake.ts";
import {
  allocationContext,
  allocationState,
  commandFlag,
  dirtyState,
  nbdCommand,
  transmissionFlag,
} from "#wire/nbd/protocol.ts";
import type { StatusExtent } from "#wire/nbd/transmission.ts";
import type { Operation } from "./client-connection.ts";
import { listAsClient } from "./client-handshake.ts";
import { ClientPool, type NbdClientOptions, connectAndNegotiate, openSocket } from "./client-pool.ts";
import { appendExtent, checkRange } from "./device-range.ts";
import type { DirtyExtent } from "./export-provider.ts";
import { connectTls } from "./nbd-tls.ts";
import { RangeLock } from "./range-lock.ts";

/** Larger reads and writes go as several requests at once. */
const pieceBytes = 4 * 1024 * 1024;
/** Larger zeroes, trims and status queries go as several requests one after the other. */
const spanBytes = 1024 * 1024 * 1024;

/**
 * Connects and opens the export.
 * @throws OperationalError `not_found` (no such export), `nbd.unreachable`, `nbd.refused`, `nbd.protocol`, `auth.invalid` (TLS).
 */
export async function openNbdClient(options: NbdClientOptions, signal?: AbortSignal): Promise<NbdClient> {
  return new NbdClient(await connectAndNegotiate(options, signal ?? new AbortController().signal), options);
}

/** What the server says it exports. Errors as for `openNbdClient`. */
export async function listNbdExports(
  options: Pick<NbdClientOptions, "address" | "tls">,
  signal: AbortSignal,
): Promise<ListedExport[]> {
  const { address, tls } = options;
  const stream = await openSocket(address, signal);
  const host = address.kind === "tcp" ? address.host : "localhost";
  try {
    return await listAsClient(
      stream,
      tls === undefined ? {} : { startTls: (plain) => connectTls(plain, tls, host, signal) },
      signal,
    );
  } finally {
    stream.destroy();
  }
}

type Piece = Omit<Operation, "resolve" | "reject" | "isAbandoned">;

export class NbdClient implements BlockDevice {
  readonly sizeBytes: number;
  /** The server refuses writes. */
  readonly readOnly: boolean;
  readonly description: string | undefined;
  /** The metadata contexts that the server granted. */
  readonly contexts: readonly string[];
  /** Several connections see one another's writes, and a flush on one covers all. */
  readonly multiConn: boolean;
  readonly #pool: ClientPool;
  readonly #options: NbdClientOptions;
  readonly #flags: number;
  readonly #blockBytes: number;
  readonly #pieceBytes: number;
  readonly #lock = new RangeLock();
  /** Writes that were acknowledged, and how many of them are known to be durable. */
  #written = 0;
  #durable = 0;
  #mayHaveLostWrites = false;
  /** How often writes may have been lost. */
  #losses = 0;

  constructor(first: Awaited<ReturnType<typeof connectAndNegotiate>>, options: NbdClientOptions) {
    const { facts } = first;
    this.#options = options;
    this.#flags = facts.flags;
    this.sizeBytes = facts.sizeBytes;
    this.description = facts.description;
    this.readOnly = this.#has(transmissionFlag.readOnly);
    this.multiConn = this.#has(transmissionFlag.canMultiConn);
    this.#blockBytes = facts.minimumBlockBytes;
    const piece = Math.min(pieceBytes, facts.maximumBlockBytes);
    this.#pieceBytes = Math.max(this.#blockBytes, piece - (piece % this.#blockBytes));
    const wanted = this.multiConn ? Math.max(1, options.connections ?? 1) : 1;
    this.#pool = new ClientPool(first, options, wanted, () => this.#onLost());
    this.contexts = [...this.#pool.contexts.keys()];
  }

  async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    checkRange(this.sizeBytes, offset, length);
    const from = this.#down(offset);
    const to = this.#up(offset + length);
    const target = Buffer.allocUnsafeSlow(to - from);
    await this.#readInto(target, from, signal);
    return target.subarray(offset - from, offset - from + length);
  }

  async readInto(target: Buffer, offset: number, signal?: AbortSignal): Promise<void> {
    checkRange(this.sizeBytes, offset, target.length);
    const aligned = offset % this.#blockBytes === 0 && target.length % this.#blockBytes === 0;
    if (aligned) await this.#readInto(target, offset, signal);
    else (await this.read(offset, target.length, signal)).copy(target);
  }

  async extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: Extent[] = [];
    if (!this.#pool.contexts.has(allocationContext)) {
      appendExtent(extents, { offset, length, kind: "data" });
      return extents;
    }
    let at = offset;
    for await (const status of this.#statuses(allocationContext, offset, length, signal)) {
      const zero = (status.flags & allocationState.zero) !== 0;
      const hole = (status.flags & allocationState.hole) !== 0;
      // A hole that does not read as zeroes holds nothing that is known: it must be read.
      const kind = zero ? (hole ? "hole" : "zero") : "data";
      appendExtent(extents, { offset: at, length: status.length, kind });
      at += status.length;
    }
    return extents;
  }

  /**
   * What a dirty context says of the range, in order and without gaps.
   * @throws OperationalError `nbd.refused` where the server did not grant the context.
   */
  async dirtyExtents(
    context: string,
    offset: number,
    length: number,
    signal?: AbortSignal,
  ): Promise<DirtyExtent[]> {
    checkRange(this.sizeBytes, offset, length);
    const extents: DirtyExtent[] = [];
    let at = offset;
    for await (const status of this.#statuses(context, offset, length, signal)) {
      const dirty = (status.flags & dirtyState.dirty) !== 0;
      const last = extents.at(-1);
      if (last?.dirty === dirty)
        extents[extents.length - 1] = { ...last, length: last.length + status.length };
      else extents.push({ offset: at, length: status.length, dirty });
      at += status.length;
    }
    return extents;
  }

  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    checkRange(this.sizeBytes, offset, data.length);
    this.#checkWritable();
    if (data.length === 0) return;
    const from = this.#down(offset);
    const to = this.#up(offset + data.length);
    const whole = from === offset && to === offset + data.length;
    if (this.#blockBytes === 1) return this.#write(offset, data, options);
    // A server that knows whole blocks only: their edges are read, changed and written back, and nobody else meanwhile.
    const release = await this.#lock.acquire(from, to, !whole);
    try {
      if (whole) return await this.#write(offset, data, options);
      const blocks = await this.read(from, to - from, options?.signal);
      blocks.set(data, offset - from);
      return await this.#write(from, blocks, options);
    } finally {
      release();
    }
  }

  async zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    checkRange(this.sizeBytes, offset, length);
    this.#checkWritable();
    const able = this.#has(transmissionFlag.sendWriteZeroes);
    const flags = this.#fua(options) | (options?.keepSpace === true ? commandFlag.noHole : 0);
    const end = offset + length;
    // What begins or ends within a block of the server's is written as data, and no more than that.
    const from = able ? Math.min(end, this.#down(offset + this.#blockBytes - 1)) : end;
    const to = Math.max(from, this.#down(end));
    const asData = [
      ...this.#spans(offset, from - offset, pieceBytes),
      ...this.#spans(to, end - to, pieceBytes),
    ];
    for (const span of asData) await this.write(span.offset, Buffer.alloc(span.length), options);
    for (const span of this.#spans(from, to - from, spanBytes)) {
      await this.#request({ command: nbdCommand.writeZeroes, flags, ...span }, options?.signal);
      this.#wrote(options);
    }
    await this.#emulateFua(options);
  }

  async trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    checkRange(this.sizeBytes, offset, length);
    this.#checkWritable();
    if (!this.#has(transmissionFlag.sendTrim)) return;
    // What a block only shares with others stays.
    const from = this.#up(offset);
    const to = this.#down(offset + length);
    if (to <= from) return;
    for (const span of this.#spans(from, to - from, spanBytes)) {
      await this.#request({ command: nbdCommand.trim, flags: this.#fua(options), ...span }, options?.signal);
      this.#wrote(options);
    }
    await this.#emulateFua(options);
  }

  /**
   * @throws OperationalError with the outcome `unknown` when a connection was lost after writes that no flush covers: the server may
   * have lost them with its cache. Once; what was written must be written again before the next flush.
   */
  async flush(signal?: AbortSignal): Promise<void> {
    if (this.readOnly) return;
    if (!this.#has(transmissionFlag.sendFlush))
      throw new OperationalError("nbd.refused", "the NBD server cannot make writes durable");
    if (this.#mayHaveLostWrites) throw this.#lost();
    const written = this.#written;
    const losses = this.#losses;
    await this.#request({ command: nbdCommand.flush, flags: 0, offset: 0, length: 0 }, signal);
    // It may have waited while a connection was lost, and then says nothing of what was written over that one.
    if (this.#losses !== losses) throw this.#lost();
    this.#durable = Math.max(this.#durable, written);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#pool.close();
  }

  // --- inside

  #has(flag: number): boolean {
    return (this.#flags & flag) !== 0;
  }

  #down(offset: number): number {
    return offset - (offset % this.#blockBytes);
  }

  /** Not beyond the end: a server's size is a whole number of its blocks, or its last one is short. */
  #up(offset: number): number {
    return Math.min(this.sizeBytes, this.#down(offset + this.#blockBytes - 1));
  }

  #checkWritable(): void {
    if (this.readOnly) throw new OperationalError("auth.forbidden", "the NBD export is read-only");
  }

  #fua(options: WriteOptions | undefined): number {
    return options?.fua === true && this.#has(transmissionFlag.sendFua) ? commandFlag.fua : 0;
  }

  async #emulateFua(options: WriteOptions | undefined): Promise<void> {
    if (options?.fua === true && !this.#has(transmissionFlag.sendFua)) await this.flush(options.signal);
  }

  #wrote(options: WriteOptions | undefined): void {
    this.#written += 1;
    // With FUA it was durable at once; counted as such only while nothing older is still open.
    if (this.#fua(options) !== 0 && this.#durable === this.#written - 1) this.#durable = this.#written;
  }

  /** It is said once. */
  #lost(): OperationalError {
    this.#mayHaveLostWrites = false;
    return new OperationalError(
      "nbd.unreachable",
      "the connection to the NBD server was lost after writes that were not flushed; write them again",
      { outcome: "unknown" },
    );
  }

  #onLost(): void {
    if (this.#options.trustServerCache === true || this.#written === this.#durable) return;
    this.#mayHaveLostWrites = true;
    this.#losses += 1;
    this.#durable = this.#written;
  }

  *#spans(offset: number, length: number, most: number): Generator<{ offset: number; length: number }> {
    for (let at = 0; at < length; at += most)
      yield { offset: offset + at, length: Math.min(most, length - at) };
  }

  async #readInto(target: Buffer, offset: number, signal: AbortSignal | undefined): Promise<void> {
    const piece = (span: { offset: number; length: number }): Promise<void> =>
      this.#request(
        {
          command: nbdCommand.read,
          flags: 0,
          ...span,
          target: target.subarray(span.offset - offset, span.offset - offset + span.length),
        },
        signal,
      );
    if (target.length <= this.#pieceBytes) {
      if (target.length > 0) await piece({ offset, length: target.length });
      return;
    }
    await Promise.all([...this.#spans(offset, target.length, this.#pieceBytes)].map(piece));
  }

  async #write(offset: number, data: Uint8Array, options: WriteOptions | undefined): Promise<void> {
    const flags = this.#fua(options);
    const piece = async (span: { offset: number; length: number }): Promise<void> => {
      const payload = data.subarray(span.offset - offset, span.offset - offset + span.length);
      await this.#request({ command: nbdCommand.write, flags, ...span, payload }, options?.signal);
      this.#wrote(options);
    };
    const settled = await Promise.allSettled(
      [...this.#spans(offset, data.length, this.#pieceBytes)].map(piece),
    );
    const failed = settled.find((result) => result.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    await this.#emulateFua(options);
  }

  async *#statuses(
    context: string,
    offset: number,
    length: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<StatusExtent> {
    const id = this.#pool.contexts.get(context);
    if (id === undefined)
      throw new OperationalError("nbd.refused", `the NBD server does not offer the context ${context}`);
    let at = this.#down(offset);
    const end = offset + length;
    while (at < end) {
      const asked = Math.min(spanBytes, this.#up(end) - at);
      const statuses = new Map<number, StatusExtent[]>();
      await this.#request(
        { command: nbdCommand.blockStatus, flags: 0, offset: at, length: asked, statuses },
        signal,
      );
      const found = statuses.get(id);
      if (found === undefined || found.length === 0)
        throw new OperationalError("nbd.protocol", "the NBD server did not say the status it was asked for");
      for (const status of found) {
        // The range may be smaller than what was asked for at either end, and a last extent may reach beyond it.
        const from = Math.max(at, offset);
        const to = Math.min(at + status.length, end);
        if (to > from) yield { length: to - from, flags: status.flags };
        at += status.length;
      }
    }
  }

  #request(piece: Piece, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal === undefined) {
        this.#pool.submit({ ...piece, resolve, reject, isAbandoned: () => false });
        return;
      }
      if (signal.aborted) {
        reject(signal.reason as Error);
        return;
      }
      let abandoned = false;
      const onAbort = (): void => {
        abandoned = true;
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      const settle =
        <T>(then: (value: T) => void) =>
        (value: T): void => {
          signal.removeEventListener("abort", onAbort);
          then(value);
        };
      this.#pool.submit({
        ...piece,
        resolve: settle(resolve),
        reject: settle(reject),
        isAbandoned: () => abandoned,
      });
    });
  }
}
