/** The client's connections to one export, and the requests that wait for one. Connects anew when one is lost and there is work. */
import { connect } from "node:net";
import type { Duplex } from "node:stream";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { NbdPeerAddress } from "#wire/nbd/nbd-uri.ts";
import { nbdCommand } from "#wire/nbd/protocol.ts";
import { ClientConnection, type ConnectionOwner, type Operation } from "./client-connection.ts";
import { type ClientNegotiated, type NbdExportFacts, negotiateAsClient } from "./client-handshake.ts";
import { type NbdClientTls, connectTls } from "./nbd-tls.ts";

export interface NbdClientOptions {
  readonly address: NbdPeerAddress;
  readonly exportName: string;
  readonly tls?: NbdClientTls;
  /** Metadata contexts besides `base:allocation`, e.g. `qemu:dirty-bitmap:NAME`. */
  readonly contexts?: readonly string[];
  /** Default 1. More are used only where the server says that they see one another's writes. */
  readonly connections?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** For one connection, from the first packet to the transmission phase. Default 10 s. */
  readonly connectMs?: number;
  /** How long requests wait for a lost connection to come back. 0: not at all. Default 30 s. */
  readonly reconnectMs?: number;
  /**
   * Also writes, zeroes and trims without an answer are sent again over a new connection. Safe only while nobody else writes to the
   * export: the same bytes go to the same place, but a write of someone else's in between would be lost. Default false: they fail
   * with the outcome `unknown`.
   */
  readonly repeatWrites?: boolean;
  /**
   * The server keeps acknowledged writes whatever breaks a connection. Default false: the first flush after a lost connection fails
   * with the outcome `unknown` when there were unflushed writes, for the server may have lost its cache.
   */
  readonly trustServerCache?: boolean;
  /** For each connection: requests and payload bytes under way. Default 64, 32 MiB. */
  readonly maxRequests?: number;
  readonly maxBytes?: number;
}

/** A request that loses its connection this often is what breaks it. */
const maxAttempts = 5;

interface Queued {
  readonly operation: Operation;
  attempts: number;
  /** It was sent and may have been carried out. */
  doubtful: boolean;
}

/**
 * @throws OperationalError `nbd.unreachable`, and what `negotiateAsClient` throws, or the signal's reason.
 */
export async function connectAndNegotiate(
  options: NbdClientOptions,
  signal: AbortSignal,
): Promise<ClientNegotiated> {
  const deadline = deadlineAfter(options.clock, options.connectMs ?? 10_000);
  const both = AbortSignal.any([signal, deadline.signal]);
  let stream: Duplex | undefined;
  try {
    stream = await openSocket(options.address, both);
    const { tls, address } = options;
    const host = address.kind === "tcp" ? address.host : "localhost";
    return await negotiateAsClient(
      stream,
      {
        exportName: options.exportName,
        contexts: ["base:allocation", ...(options.contexts ?? [])],
        ...(tls && { startTls: (plain) => connectTls(plain, tls, host, both) }),
      },
      both,
    );
  } catch (error) {
    stream?.destroy();
    if (deadline.signal.aborted && !signal.aborted)
      throw new OperationalError("nbd.unreachable", "the NBD server did not answer in time", {
        cause: error,
      });
    throw error;
  } finally {
    deadline.cancel();
  }
}

/** A connected socket that reports failures to whoever listens and never by ending the process. */
export function openSocket(address: NbdPeerAddress, signal: AbortSignal): Promise<Duplex> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason as Error);
      return;
    }
    const socket =
      address.kind === "unix"
        ? connect({ path: address.path })
        : connect({ host: address.host, port: address.port });
    const onAbort = (): void => {
      socket.destroy();
      reject(signal.reason as Error);
    };
    signal.addEventListener("abort", onAbort, { once: true });
    socket.on("error", (error) => {
      const where = address.kind === "unix" ? address.path : `${address.host}:${address.port}`;
      reject(
        new OperationalError(
          "nbd.unreachable",
          `cannot connect to the NBD server at ${where}: ${error.message}`,
          {
            cause: error,
          },
        ),
      );
    });
    socket.once("connect", () => {
      signal.removeEventListener("abort", onAbort);
      socket.setNoDelay(true);
      resolve(socket);
    });
  });
}

export class ClientPool implements ConnectionOwner {
  readonly facts: NbdExportFacts;
  /** Context ids by name, as every connection gave them. */
  readonly contexts: ReadonlyMap<string, number>;
  readonly #options: NbdClientOptions;
  readonly #wanted: number;
  readonly #stop = new AbortController();
  readonly #connections: ClientConnection[] = [];
  readonly #underWay = new Map<Operation, Queued>();
  #queue: Queued[] = [];
  #connecting = false;
  #onLost: (() => void) | undefined;

  /** `onLost` is called for every lost connection, before its requests are settled. */
  constructor(first: ClientNegotiated, options: NbdClientOptions, wanted: number, onLost: () => void) {
    this.facts = first.facts;
    this.contexts = new Map(first.contexts.map(({ id, name }) => [name, id]));
    this.#options = options;
    this.#wanted = wanted;
    this.#onLost = onLost;
    this.#connections.push(new ClientConnection(first, this));
  }

  submit(operation: Operation): void {
    if (this.#stop.signal.aborted) {
      operation.reject(new OperationalError("nbd.unreachable", "the NBD client is closed"));
      return;
    }
    this.#queue.push({ operation, attempts: 0, doubtful: false });
    this.#dispatch();
  }

  async close(): Promise<void> {
    if (this.#stop.signal.aborted) return;
    const closed = new OperationalError("nbd.unreachable", "the NBD client is closed", {
      outcome: "unknown",
    });
    this.#stop.abort(closed);
    this.#onLost = undefined;
    this.#failQueue(closed);
    await Promise.all(
      this.#connections.map(async (connection) => {
        if (connection.requests > 0) connection.drop(closed);
        else await connection.disconnect();
      }),
    );
  }

  lost(
    connection: ClientConnection,
    operations: { readonly unanswered: readonly Operation[]; readonly refused: readonly Operation[] },
    reason: Error,
  ): void {
    const index = this.#connections.indexOf(connection);
    if (index >= 0) this.#connections.splice(index, 1);
    this.#options.log.info({ reason: reason.message }, "nbd connection lost");
    this.#onLost?.();
    const again = [
      ...operations.refused.flatMap((operation) => this.#takeBack(operation, false, reason)),
      ...operations.unanswered.flatMap((operation) => this.#takeBack(operation, true, reason)),
    ];
    this.#queue = [...again, ...this.#queue];
    this.#dispatch();
  }

  draining(): void {
    this.#options.log.info({}, "nbd server is shutting down");
  }

  settled(_connection: ClientConnection, operation: Operation): void {
    this.#underWay.delete(operation);
    if (this.#queue.length > 0) this.#dispatch();
  }

  /** What goes back into the queue; everything else is settled here. */
  #takeBack(operation: Operation, sent: boolean, reason: Error): Queued[] {
    const queued = this.#underWay.get(operation);
    this.#underWay.delete(operation);
    if (queued === undefined || operation.isAbandoned()) return [];
    const changes = !isRead(operation);
    queued.doubtful ||= sent && changes;
    queued.attempts += 1;
    const repeatable =
      !sent || !changes || (this.#options.repeatWrites === true && operation.command !== nbdCommand.flush);
    const trusted = operation.command === nbdCommand.flush && this.#options.trustServerCache === true;
    const possible = this.#options.reconnectMs !== 0 && !this.#stop.signal.aborted;
    if (possible && (repeatable || trusted) && queued.attempts < maxAttempts) return [queued];
    operation.reject(unreachable(queued, reason));
    return [];
  }

  #dispatch(): void {
    let next = 0;
    while (next < this.#queue.length) {
      const queued = this.#queue[next];
      if (queued === undefined) break;
      if (queued.operation.isAbandoned()) {
        next += 1;
        continue;
      }
      const connection = this.#roomiest(queued.operation);
      if (connection === undefined) break;
      next += 1;
      this.#underWay.set(queued.operation, queued);
      connection.send(queued.operation);
    }
    if (next > 0) this.#queue.splice(0, next);
    if (this.#queue.length > 0 && this.#connections.filter(({ usable }) => usable).length < this.#wanted)
      void this.#connect();
  }

  #roomiest(operation: Operation): ClientConnection | undefined {
    const { maxRequests = 64, maxBytes = 32 * 1024 * 1024 } = this.#options;
    const bytes = operation.target?.length ?? operation.payload?.length ?? 0;
    let best: ClientConnection | undefined;
    for (const connection of this.#connections) {
      const full = connection.requests >= maxRequests;
      const heavy = connection.requests > 0 && connection.bytes + bytes > maxBytes;
      if (!connection.usable || full || heavy) continue;
      if (best === undefined || connection.requests < best.requests) best = connection;
    }
    return best;
  }

  /** One more connection; whoever waits in vain fails with what stood in the way. */
  async #connect(): Promise<void> {
    if (this.#connecting || this.#stop.signal.aborted) return;
    this.#connecting = true;
    const { clock, random, reconnectMs = 30_000 } = this.#options;
    const end = clock.monotonicMs() + reconnectMs;
    const policy = { attempts: Infinity, baseMs: 50, capMs: 2_000 };
    try {
      for (let attempt = 1; ; attempt += 1) {
        const failure = await this.#tryConnect();
        if (failure === undefined || this.#stop.signal.aborted) return;
        const others = this.#connections.some(({ usable }) => usable);
        const over = failure.retry === "never" || clock.monotonicMs() >= end;
        if (over && others) return;
        if (over) {
          this.#failQueue(failure);
          return;
        }
        await clock.sleep(backoffMs(policy, attempt, random), this.#stop.signal).catch(() => {});
      }
    } finally {
      this.#connecting = false;
      if (this.#connections.length > 0 && this.#queue.length > 0) queueMicrotask(() => this.#dispatch());
    }
  }

  async #tryConnect(): Promise<OperationalError | undefined> {
    let negotiated: ClientNegotiated;
    try {
      negotiated = await connectAndNegotiate(this.#options, this.#stop.signal);
    } catch (error) {
      if (error instanceof OperationalError) return error;
      return new OperationalError("nbd.unreachable", "cannot connect to the NBD server", { cause: error });
    }
    const problem = changedExport(this.facts, this.contexts, negotiated);
    if (problem !== undefined || this.#stop.signal.aborted) {
      negotiated.stream.destroy();
      return new OperationalError("nbd.refused", `the NBD export is not the one it was: ${problem}`);
    }
    this.#connections.push(new ClientConnection(negotiated, this));
    return undefined;
  }

  #failQueue(reason: Error): void {
    const queue = this.#queue;
    this.#queue = [];
    for (const queued of queue)
      if (!queued.operation.isAbandoned()) queued.operation.reject(unreachable(queued, reason));
  }
}

function isRead({ command }: Operation): boolean {
  return command === nbdCommand.read || command === nbdCommand.blockStatus || command === nbdCommand.cache;
}

function unreachable(queued: Queued, reason: Error): OperationalError {
  const code = reason instanceof OperationalError ? reason.code : "nbd.unreachable";
  const said =
    reason instanceof OperationalError ? reason.message : "the connection to the NBD server was lost";
  return new OperationalError(code, said, {
    outcome: queued.doubtful ? "unknown" : "not_applied",
    cause: reason,
  });
}

/** Says what differs; a request that was meant for one disk must not reach another. */
function changedExport(
  facts: NbdExportFacts,
  contexts: ReadonlyMap<string, number>,
  now: ClientNegotiated,
): string | undefined {
  if (now.facts.sizeBytes !== facts.sizeBytes) return `its size is ${now.facts.sizeBytes} bytes`;
  if (now.facts.flags !== facts.flags) return "it offers other commands";
  if (now.facts.minimumBlockBytes !== facts.minimumBlockBytes) return "its block size differs";
  const same =
    now.contexts.every(({ id, name }) => contexts.get(name) === id) && now.contexts.length === contexts.size;
  return same ? undefined : "its metadata contexts differ";
}
