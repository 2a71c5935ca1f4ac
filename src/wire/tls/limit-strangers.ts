import type { Server, Socket } from "node:net";
import type { TLSSocket } from "node:tls";

/** Connections of one address that have not shown who they are. */
const mostStrangers = 16;

const endOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;

/**
 * For a TLS server that asks for certificates: nobody who has none keeps others out by opening connections. Further ones of an address with
 * many in their handshake are closed at once.
 */
export function limitStrangers(server: Server): void {
  const strangers = new Map<string, Map<string, Socket>>();
  const known = (socket: Socket, address = socket.remoteAddress ?? "", end = endOf(socket)): void => {
    const ofAddress = strangers.get(address);
    ofAddress?.delete(end);
    if (ofAddress?.size === 0) strangers.delete(address);
  };
  server.on("connection", (socket: Socket) => {
    const address = socket.remoteAddress ?? "";
    const end = endOf(socket);
    const ofAddress = strangers.get(address) ?? new Map<string, Socket>();
    if (ofAddress.size >= mostStrangers) {
      socket.destroy();
      return;
    }
    strangers.set(address, ofAddress.set(end, socket));
    // A closed socket does not know its ends any more.
    socket.once("close", () => known(socket, address, end));
  });
  server.on("secureConnection", (socket: TLSSocket) => known(socket));
}
