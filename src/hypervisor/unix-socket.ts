/** Connections to Unix sockets, also where the path is longer than the 107 bytes that `sockaddr_un` holds (unix(7)). */
import { closeSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { OperationalError } from "#kernel/errors.ts";

const MAX_PATH_BYTES = 107;

/** Errors: `machine.failing` when nobody listens there. */
export async function connectUnix(path: string, signal?: AbortSignal): Promise<Socket> {
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
    throw new OperationalError("machine.failing", `nothing answers on ${path}`, { cause: error });
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
      socket.removeAllListeners("error");
      resolve(socket);
    });
    socket.once("error", (error) => {
      signal?.removeEventListener("abort", onAbort);
      reject(error);
    });
  });
}
