/** From a route's configuration to the switch that it names. */
import { join } from "node:path";
import type { RouteConfig } from "#config/config-schema.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { makeDataFolder } from "#main/operator-token.ts";
import { DnsUpdateSwitch } from "#traffic/dns/dns-update-switch.ts";
import { fileEpochRecord } from "#traffic/epoch-record.ts";
import { fileForwarderState } from "#traffic/forwarder/forwarder-state.ts";
import type { ForwarderConfig } from "#traffic/forwarder/forwarder-config.ts";
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
  makeDataFolder(join(place.data, "traffic"));
  const state = join(place.data, "traffic", `${place.environment}-${name}.json`);
  const epochs = fileEpochRecord(state);
  if ("forwarder" in through) {
    const { listen, mode, drain } = through.forwarder;
    const config = { listen, mode, routes: [{ name }], limits: { drainMs: drain } };
    const forwarder = await openForwarder(config, state, `environments.${place.environment}.traffic`);
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

/** Says where the address is set, which the forwarder itself does not know. */
async function openForwarder(config: ForwarderConfig, state: string, setting: string): Promise<Forwarder> {
  try {
    return await Forwarder.open(config, { state: fileForwarderState(state) });
  } catch (error) {
    if (!isOperational(error, "port.in_use")) throw error;
    const { host, port } = config.listen;
    throw new OperationalError(
      "port.in_use",
      `the forwarder cannot listen on ${host}:${port}: another program does; stop it, or set another address under ${setting}`,
      { cause: error },
    );
  }
}
