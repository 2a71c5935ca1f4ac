import type { Server } from "node:http";
import type { AddressInfo } from "node:net";

/** Listens on a free loopback port and tells the parent which, on one line. */
export async function announce(server: Server): Promise<void> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  console.log(JSON.stringify({ port: (server.address() as AddressInfo).port }));
}
