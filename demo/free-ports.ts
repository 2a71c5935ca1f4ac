/** For the demo, tests and benches: ports for servers that are told where to listen, and listen there again after a restart. */
import { randomInt } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";

/** The lowest port that the kernel gives to connections on their way out: below it nothing takes a port unasked. */
function ephemeralStart(): number {
  try {
    return Number.parseInt(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8"), 10);
  } catch {
    return 32_768;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/** TCP ports of loopback that nobody listens at; all different. Chosen by chance, so that two who ask at once hardly get the same. */
export async function freePorts(count: number): Promise<number[]> {
  const end = Math.max(ephemeralStart(), 12_000);
  const found = new Set<number>();
  while (found.size < count) {
    const port = randomInt(10_000, end);
    if (!found.has(port) && (await isFree(port))) found.add(port);
  }
  return [...found];
}

export async function freePort(): Promise<number> {
  const [port = 0] = await freePorts(1);
  return port;
}
