/**
 * Makes public addresses answer: while one is associated with a running server, its TCP ports that the server's groups admit
 * are relayed to the server's own loopback address. Bounded: the first ports of each address, in order of the rules.
 */
import net from "node:net";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Log } from "#kernel/log.ts";

/** A rule for all ports cannot be a listener for each. */
export const MAX_PORTS_PER_ADDRESS = 32;

interface Relay {
  readonly listener: net.Server;
  readonly sockets: Set<net.Socket>;
  target: string;
}

/** `ip:port` of each relay wanted now, and the host it goes to. */
export function wantedRelays(cloud: Cloud): Map<string, string> {
  const { address, port: ports, server: servers, rule } = cloud.data.tables;
  const wanted = new Map<string, string>();
  for (const each of address.values()) {
    const serverId = each.association?.serverId;
    const server = serverId === null || serverId === undefined ? undefined : servers.get(serverId);
    const place = each.association === null ? undefined : ports.get(each.association.portId);
    if (server === undefined || place === undefined || server.state !== "running") continue;
    const admitted = new Set<number>();
    for (const groupId of place.groupIds) {
      for (const { direction, protocol, fromPort, toPort } of rule.by("group", groupId)) {
        if (direction !== "ingress" || (protocol !== "tcp" && protocol !== "all")) continue;
        const first = Math.max(1, fromPort ?? 1);
        for (let port = first; port <= (toPort ?? 65_535); port += 1) {
          if (admitted.size >= MAX_PORTS_PER_ADDRESS) break;
          admitted.add(port);
        }
      }
    }
    for (const port of admitted) wanted.set(`${each.ip}:${port}`, server.hostAddress);
  }
  return wanted;
}

export class AddressRelays {
  readonly #cloud: Cloud;
  readonly #log: Log;
  readonly #relays = new Map<string, Relay>();
  #closed = false;

  constructor(cloud: Cloud, log: Log) {
    this.#cloud = cloud;
    this.#log = log;
    cloud.data.onDurable((changes) => {
      const relevant = changes.some(({ table }) =>
        ["address", "server", "rule", "port", "group"].includes(table),
      );
      if (relevant) this.reconcile();
    });
    this.reconcile();
  }

  reconcile(): void {
    if (this.#closed) return;
    const wanted = wantedRelays(this.#cloud);
    for (const [key, relay] of this.#relays) {
      if (wanted.get(key) !== relay.target) this.#end(key, relay);
    }
    for (const [key, target] of wanted) if (!this.#relays.has(key)) this.#begin(key, target);
  }

  close(): void {
    this.#closed = true;
    for (const [key, relay] of this.#relays) this.#end(key, relay);
  }

  #begin(key: string, target: string): void {
    const [ip = "", portText = ""] = key.split(":");
    const port = Number(portText);
    const sockets = new Set<net.Socket>();
    const listener = net.createServer({ allowHalfOpen: true }, (socket) => {
      const upstream = net.connect({ host: target, port, allowHalfOpen: true });
      for (const [one, other] of [
        [socket, upstream],
        [upstream, socket],
      ] as const) {
        sockets.add(one);
        one.on("error", () => other.destroy());
        one.on("close", () => sockets.delete(one));
      }
      socket.pipe(upstream);
      upstream.pipe(socket);
    });
    listener.on("error", (error) => {
      this.#log.warn({ address: key, error: error.message }, "a public address's port cannot be relayed");
    });
    listener.listen(port, ip);
    this.#relays.set(key, { listener, sockets, target });
  }

  #end(key: string, relay: Relay): void {
    this.#relays.delete(key);
    relay.listener.close();
    for (const socket of relay.sockets) socket.destroy();
  }
}
