import { connect } from "node:net";

const connectMs = 1000;

/** Whether something listens there: what a cloud calls ready may still be booting. */
export function acceptsConnections(host: string, port: number, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port, signal: AbortSignal.any([signal, AbortSignal.timeout(connectMs)]) });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => {
      socket.destroy();
      if (signal.aborted) reject(signal.reason as Error);
      else resolve(false);
    });
  });
}
