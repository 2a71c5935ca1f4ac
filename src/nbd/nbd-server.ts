/** An NBD server on a Unix socket or a TCP port. Which exports there are is the provider's; who may do what is decided here. */
import { unlinkSync } from "node:fs";
import { BlockList, type Server, type Socket, connect, createServer } from "node:net";
import type { Duplex } from "node:stream";
import { isMainThread } from "node:worker_threads";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { invariant, InvariantViolation } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { ExportProvider } from "./export-provider.ts";
import { type NbdServerTls, acceptTls, checkTls } from "./nbd-tls.ts";
import { type PeerAccess, negotiate } from "./server-handshake.ts";
import { type TransmissionLimits, TransmissionServer } from "./transmission-server.ts";

/** Where a server listens. A Unix socket has mode 0600: who can open it is who may use it. */
export type NbdListenAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/**
 * What a peer on TCP may do that showed neither a certificate nor a key. `refuse`: nothing. `read`: read what is exported.
 * `write-on-loopback`: anything, where the server listens on loopback: every user of this machine is then trusted.
 */
export type UnauthenticatedAccess = "refuse" | "read" | "write-on-loopback";

export interface NbdServerOptions {
  readonly listen: NbdListenAddress;
  readonly provider: ExportProvider;
  readonly tls?: NbdServerTls;
  /** For TCP; default `refuse`. Who can open a Unix socket is authenticated by that. */
  readonly unauthenticated?: UnauthenticatedAccess;
  readonly clock: Clock;
  readonly log: Log;
  /** Connections at once, those in their handshake included; a further one is closed at once. Default 16. */
  readonly maxConnections?: number;
  /** From connection to transmission, TLS included. Default 10 s. */
  readonly handshakeMs?: number;
  /** For each connection. Default 128 requests, 32 MiB. */
  readonly limits?: Partial<TransmissionLimits>;
}

export interface NbdServer extends AsyncDisposable {
  /** As bound: the port is the real one. */
  readonly address: NbdListenAddress;
  readonly connections: number;
  /** Requests in flight end, later ones are answered ESHUTDOWN; what is not over after `graceMs` (default 5 s) is cut off. */
  close(graceMs?: number): Promise<void>;
}

interface Connection {
  readonly done: Promise<void>;
  close(): void;
  destroy(): void;
}

/**
 * @throws OperationalError `port.in_use` or `port.forbidden` when it cannot listen, `config.invalid` when the options would let
 * strangers write, or nobody in.
 */
export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  checkAccess(options);
  const connections = new Set<Connection>();
  const strangers = new Strangers();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const address = socket.remoteAddress ?? "";
    if (connections.size >= (options.maxConnections ?? 16) || strangers.isFull(address)) {
      options.log.warn({ connections: connections.size, address }, "nbd connection refused: too many");
      socket.destroy();
      return;
    }
    const connection = serveConnection(socket, options, strangers.come(address));
    connections.add(connection);
    void connection.done.finally(() => connections.delete(connection));
  });
  await listen(server, options.listen);
  const close = async (graceMs = 5_000): Promise<void> => {
    const closed = new Promise<void>((resolve) => server.close(() => resolve()));
    for (const connection of connections) connection.close();
    const grace = deadlineAfter(options.clock, graceMs);
    grace.signal.addEventListener("abort", () => {
      for (const connection of connections) connection.destroy();
    });
    await closed;
    await Promise.all([...connections].map(({ done }) => done));
    grace.cancel();
  };
  return {
    address: boundAddress(server, options.listen),
    get connections() {
      return connections.size;
    },
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

/** Connections of one address that are in their handshake: nobody keeps others out by opening many. A Unix socket has no address. */
class Strangers {
  readonly #counts = new Map<string, number>();

  isFull(address: string): boolean {
    return address !== "" && (this.#counts.get(address) ?? 0) >= mostStrangers;
  }

  /** Call what it returns, once or more, when the connection is no stranger any more. */
  come(address: string): () => void {
    this.#counts.set(address, (this.#counts.get(address) ?? 0) + 1);
    let isKnown = false;
    return () => {
      if (isKnown) return;
      isKnown = true;
      const left = (this.#counts.get(address) ?? 0) - 1;
      if (left > 0) this.#counts.set(address, left);
      else this.#counts.delete(address);
    };
  }
}

function serveConnection(socket: Socket, options: NbdServerOptions, isKnown: () => void): Connection {
  let transmission: TransmissionServer | undefined;
  let stream: Duplex = socket;
  socket.setNoDelay(true);
  // Without a listener a reset by the peer would end the process; every reader learns of it by itself.
  socket.on("error", (error) => options.log.debug({ error: error.message }, "nbd socket failed"));
  const destroy = (): void => {
    stream.destroy();
    socket.destroy();
  };
  const run = async (): Promise<void> => {
    const deadline = deadlineAfter(options.clock, options.handshakeMs ?? 10_000);
    try {
      const { tls } = options;
      const negotiated = await negotiate(
        socket,
        {
          provider: options.provider,
          access: accessOf(options, false),
          tls: tls?.mode ?? "off",
          startTls: async (plain) => {
            invariant(tls !== undefined, "TLS is off");
            const secured = await acceptTls(plain, tls, deadline.signal);
            stream = secured.stream;
            if (!secured.authenticated && tls.clientNames !== undefined) {
              options.log.warn(
                { address: socket.remoteAddress },
                "an nbd client's certificate has no name that may call",
              );
            }
            return { stream, access: accessOf(options, secured.authenticated) };
          },
        },
        deadline.signal,
      );
      deadline.cancel();
      isKnown();
      if (negotiated === undefined) return;
      stream = negotiated.stream;
      try {
        transmission = new TransmissionServer(negotiated, limitsOf(options), options);
        negotiated.opened.attached?.(transmission);
        await transmission.run();
      } finally {
        await negotiated.opened[Symbol.asyncDispose]();
      }
    } catch (error) {
      // A bug is nobody's connection: the process dies and is started anew.
      if (error instanceof InvariantViolation) throw error;
      const problem = error instanceof Error ? error.message : String(error);
      const about = { problem, address: socket.remoteAddress };
      // A certificate that is not right keeps a host's guests waiting, or is somebody who tries.
      if (isOperational(error, "auth.invalid"))
        options.log.warn({ ...about, cause: causeOf(error) }, "nbd connection refused");
      else options.log.debug(about, "nbd connection dropped");
    } finally {
      isKnown();
      deadline.cancel();
      destroy();
    }
  };
  return {
    done: run(),
    // Who has not chosen an export yet was promised nothing.
    close: () => (transmission === undefined ? destroy() : transmission.close()),
    destroy,
  };
}

const causeOf = ({ cause }: Error): string => (cause instanceof Error ? cause.message : String(cause));

const mostStrangers = 32;

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

function isLoopback(host: string): boolean {
  return host === "localhost" || loopback.check(host, host.includes(":") ? "ipv6" : "ipv4");
}

function accessOf(options: NbdServerOptions, authenticated: boolean): PeerAccess {
  if (authenticated) return "write";
  // Mode 0600 let it in; but a server that was given TLS on a Unix socket means it.
  if (options.listen.kind === "unix") return options.tls === undefined ? "write" : "none";
  if (options.unauthenticated === "read") return "read";
  return options.unauthenticated === "write-on-loopback" ? "write" : "none";
}

function checkAccess({ listen, tls, unauthenticated = "refuse" }: NbdServerOptions): void {
  const invalid = (why: string): OperationalError => new OperationalError("config.invalid", why);
  const authenticates = tls?.clientCa !== undefined || tls?.pskOf !== undefined;
  if (tls?.clientCa !== undefined && tls.certificate === undefined)
    throw invalid("a CA for NBD clients needs a certificate of the server's own");
  if (tls !== undefined && tls.certificate === undefined && tls.pskOf === undefined)
    throw invalid("TLS for NBD needs a certificate or keys");
  if (tls !== undefined) checkTls(tls);
  if (listen.kind === "unix") {
    if (tls !== undefined && !authenticates)
      throw invalid("TLS on a Unix socket needs a CA for clients, or keys");
    return;
  }
  if (unauthenticated === "write-on-loopback" && !isLoopback(listen.host))
    throw invalid(`everybody who reaches ${listen.host} could write: give NBD a CA for clients, or keys`);
  if (unauthenticated === "refuse" && !authenticates)
    throw invalid(
      "nobody could use the NBD server on TCP: give it a CA for clients, or keys, or let strangers read",
    );
}

function limitsOf(options: NbdServerOptions): TransmissionLimits {
  return { maxRequests: 128, maxBytes: 32 * 1024 * 1024, ...options.limits };
}

async function listen(server: Server, address: NbdListenAddress): Promise<void> {
  try {
    await tryListen(server, address);
  } catch (error) {
    const left = address.kind === "unix" && (error as NodeJS.ErrnoException).code === "EADDRINUSE";
    // A socket file that nobody answers on was left by a process that died.
    if (!left || (await answers(address.path))) throw cannotListen(address, error as NodeJS.ErrnoException);
    unlinkSync(address.path);
    await tryListen(server, address).catch((again: NodeJS.ErrnoException) => {
      throw cannotListen(address, again);
    });
  }
}

function cannotListen(address: NbdListenAddress, error: NodeJS.ErrnoException): OperationalError {
  const where = address.kind === "unix" ? address.path : `${address.host}:${address.port}`;
  const code = error.code === "EACCES" ? "port.forbidden" : "port.in_use";
  return new OperationalError(code, `cannot listen on ${where}: ${error.message}`, { cause: error });
}

function tryListen(server: Server, address: NbdListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => reject(error);
    server.once("error", onError);
    const onListening = (): void => {
      server.off("error", onError);
      resolve();
    };
    if (address.kind === "tcp") {
      server.listen(address.port, address.host, onListening);
      return;
    }
    invariant(isMainThread, "an NBD server on a Unix socket needs the main thread: only that has a umask");
    // The file is made within this call: under this mask it never has a wider mode, not even for a moment.
    const mask = process.umask(0o177);
    try {
      server.listen(address.path, onListening);
    } finally {
      process.umask(mask);
    }
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
}

function boundAddress(server: Server, wanted: NbdListenAddress): NbdListenAddress {
  const bound = server.address();
  if (wanted.kind === "unix" || bound === null || typeof bound === "string") return wanted;
  return { kind: "tcp", host: bound.address, port: bound.port };
}
