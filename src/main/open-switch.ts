/** From a route's configuration to the switch that it names. */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { RouteConfig } from "#config/config-schema.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import type { Log } from "#kernel/log.ts";
import { DnsUpdateSwitch } from "#traffic/dns/dns-update-switch.ts";
import { fileEpochRecord } from "#traffic/epoch-record.ts";
import { fileForwarderState } from "#traffic/forwarder/forwarder-state.ts";
import { Forwarder } from "#traffic/forwarder/forwarder.ts";
import { HaproxySwitch } from "#traffic/haproxy/haproxy-switch.ts";
import { PowerdnsSwitch } from "#traffic/powerdns/powerdns-switch.ts";
import type { TrafficSwitch } from "#traffic/traffic-switch.ts";

export interface SwitchPlace {
  readonly environment: string;
  /** Where secrets named by relative path stand. */
  readonly folder: string;
  /** The data folder: last targets and epochs outlive the process there. */
  readonly data: string;
  readonly log: Log;
}

export async function openSwitch(route: RouteConfig, place: SwitchPlace): Promise<TrafficSwitch> {
  const { through, name, port } = route;
  mkdirSync(join(place.data, "traffic"), { recursive: true, mode: 0o700 });
  const state = join(place.data, "traffic", `${place.environment}-${name}.json`);
  const epochs = fileEpochRecord(state);
  if ("forwarder" in through) {
    const { listen, mode, drain } = through.forwarder;
    const config = { listen, mode, routes: [{ name }], limits: { drainMs: drain } };
    const forwarder = await Forwarder.open(config, { state: fileForwarderState(state) });
    const close = (): Promise<void> => forwarder.close();
    const inner = forwarder.switchOf(name);
    return { ...inner, close, [Symbol.asyncDispose]: close };
  }
  if ("haproxy" in through) {
    const { socket, backend } = through.haproxy;
    const address = /^(.+):(\d+)$/u.exec(socket);
    const at = address === null ? { path: socket } : { host: address[1] ?? "", port: Number(address[2]) };
    return new HaproxySwitch({ socket: at, backend }, { epochs, log: place.log });
  }
  if ("dns" in through) {
    const { server, zone, record, ttl, key } = through.dns;
    const secret = resolveSecret(key.secret, place.folder);
    return new DnsUpdateSwitch(
      {
        server,
        zone,
        name: record,
        ttlSeconds: Math.ceil(ttl / 1000),
        port,
        key: { name: key.name, secret },
      },
      { epochs },
    );
  }
  const { url, serverId, zone, record, ttl, apiKey } = through.powerdns;
  return new PowerdnsSwitch(
    {
      url,
      serverId,
      zone,
      name: record,
      ttlSeconds: Math.ceil(ttl / 1000),
      port,
      apiKey: resolveSecret(apiKey, place.folder),
      authoritative: [],
    },
    { epochs },
  );
}
