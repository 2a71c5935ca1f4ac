/** Unix sockets, also where the path is longer than the 107 bytes that `sockaddr_un` holds (unix(7)). */
import { closeSync, openSync, rmSync } from "node:fs";
import { connect, type Server, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { type ErrorCode, OperationalError } from "#kernel/errors.ts";

const MAX_PATH_BYTES = 107;

/**
 * Errors: `unreachable` when nobody listens there. An error of the connection later on is told by its end: who wants the reason, or
 * ECONNRESET (the other side left with bytes unread), listens for `error` too.
 */
export async function connectUnix(
  path: string,
  unreachable: ErrorCode,
  signal?: AbortSignal,
): Promise<Socket> {
  signal?.throwIfAborted();
  const long = Buffer.byteLength(path) > MAX_PATH_BYTES;
  // The folder's descriptor gives it a short name for as long as the connection is made.
  let folder: number | undefined;
  try {
    folder = long ? openSync(dirname(path), "r") : undefined;
    const short = folder === undefined ? path : `/proc/self/fd/${folder}/${basename(path)}`;
    return await opened(connect(short), signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw new OperationalError(unreachable, `nothing answers on ${path}`, { cause: error });
  } finally {
    if (folder !== undefined) closeSync(folder);
  }
}

function opened(socket: Socket, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      socket.destroy();
      reject(signal?.reason as Error);
    };
    signal?.addEventListener("abort", onAbort, { once: true });
    socket.once("connect", () => {
      signal?.removeEventListener("abort", onAbort);
      resolve(socket);
    });
    // It stays: a socket without a listener for its errors takes the process with it.
    socket.on("error", (error) => {
      signal?.removeEventListener("abort", onAbort);
      reject(error);
    });
  });
}

/**
 * Listens with mode 0600: who can open the socket may use it. What a dead process left is replaced; whether a living one serves it is
 * the caller's to know. Main thread only: the mode comes from the process's umask, so that nobody can open it before it is right.
 */
export async function listenUnix(server: Server, path: string): Promise<void> {
  rmSync(path, { force: true });
  const folder = openSync(dirname(path), "r");
  const mask = process.umask(0o177);
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(`/proc/self/fd/${folder}/${basename(path)}`, resolve);
      process.umask(mask);
    });
  } finally {
    closeSync(folder);
  }
}
