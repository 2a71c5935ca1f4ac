/** An NBD server on a Unix socket or a TCP port. Which exports there are is the provider's; who may do what is decided here. */
import { chmodSync } from "node:fs";
import { type Server, type Socket, createServer } from "node:net";
import type { Duplex } from "node:stream";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ExportProvider } from "./export-provider.ts";
import { type PeerAccess, negotiate } from "./server-handshake.ts";
import { type TransmissionLimits, TransmissionServer } from "./transmission-server.ts";

/** Where a server listens. A Unix socket has mode 0600: who can open it is who may use it. */
export type NbdListenAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export interface NbdServerOptions {
  readonly listen: NbdListenAddress;
  readonly provider: ExportProvider;
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

/** @throws OperationalError `port.in_use` or `port.forbidden` when it cannot listen. */
export async function startNbdServer(options: NbdServerOptions): Promise<NbdServer> {
  const connections = new Set<Connection>();
  let closing = false;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    if (connections.size >= (options.maxConnections ?? 16)) {
      options.log.warn({ connections: connections.size }, "nbd connection refused: too many");
      socket.destroy();
      return;
    }
    const connection = serveConnection(socket, options, () => closing);
    connections.add(connection);
    void connection.done.finally(() => connections.delete(connection));
  });
  await listen(server, options.listen);
  const close = async (graceMs = 5_000): Promise<void> => {
    closing = true;
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

function serveConnection(socket: Socket, options: NbdServerOptions, closing: () => boolean): Connection {
  let transmission: TransmissionServer | undefined;
  let stream: Duplex = socket;
  socket.setNoDelay(true);
  // Without a listener a reset by the peer would end the process; every reader learns of it by itself.
  socket.on("error", (error) => options.log.debug({ error: error.message }, "nbd socket failed"));
  const run = async (): Promise<void> => {
    const deadline = deadlineAfter(options.clock, options.handshakeMs ?? 10_000);
    try {
      const access: PeerAccess = "write";
      const negotiated = await negotiate(
        socket,
        {
          provider: options.provider,
          access,
          tls: "off",
          startTls: async () => {
            throw new OperationalError("internal", "TLS is off");
          },
          closing,
        },
        deadline.signal,
      );
      deadline.cancel();
      if (negotiated === undefined) return;
      stream = negotiated.stream;
      try {
        transmission = new TransmissionServer(negotiated, limitsOf(options), options.log);
        if (closing()) transmission.close();
        await transmission.run();
      } finally {
        await negotiated.opened[Symbol.asyncDispose]();
      }
    } catch (error) {
      const problem = error instanceof Error ? error.message : String(error);
      options.log.debug({ problem }, "nbd connection dropped");
    } finally {
      deadline.cancel();
      stream.destroy();
      socket.destroy();
    }
  };
  return {
    done: run(),
    close: () => transmission?.close(),
    destroy: () => {
      stream.destroy();
      socket.destroy();
    },
  };
}

function limitsOf(options: NbdServerOptions): TransmissionLimits {
  return { maxRequests: 128, maxBytes: 32 * 1024 * 1024, ...options.limits };
}

function listen(server: Server, address: NbdListenAddress): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const where = address.kind === "unix" ? address.path : `${address.host}:${address.port}`;
      const code = error.code === "EACCES" ? "port.forbidden" : "port.in_use";
      reject(new OperationalError(code, `cannot listen on ${where}: ${error.message}`, { cause: error }));
    });
    if (address.kind === "tcp") {
      server.listen(address.port, address.host, resolve);
      return;
    }
    server.listen(address.path, () => {
      chmodSync(address.path, 0o600);
      resolve();
    });
  });
}

function boundAddress(server: Server, wanted: NbdListenAddress): NbdListenAddress {
  const bound = server.address();
  if (wanted.kind === "unix" || bound === null || typeof bound === "string") return wanted;
  return { kind: "tcp", host: bound.address, port: bound.port };
}
