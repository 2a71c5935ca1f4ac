/**
 * Servers and their state machine. Operations set the transitional states (`pending`, `stopping`, `shutting-down`); the
 * lifecycle (lifecycle.ts) drives the compute driver and ends each transition.
 */
import { freeHostAddress } from "./addresses.ts";
import { find, findAll, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { createPort, removePort, type PortInput } from "./ports.ts";
import { checkQuota } from "./quotas.ts";
import type { ImageInfo, ServerRecord, ServerState, ServerTypeInfo } from "./records.ts";
import { refuse } from "./refusal.ts";
import { attachVolume, createVolume, type VolumeInput } from "./volumes.ts";

export function findImage(cloud: Cloud, id: string): ImageInfo {
  const found = cloud.catalog.images.find((image) => image.id === id);
  if (found !== undefined) return found;
  if (!cloud.ids.wellFormed("image", id)) refuse({ code: "malformed_id", kind: "image", id });
  return refuse({ code: "not_found", kind: "image", ids: [id] });
}

export function findServerType(cloud: Cloud, id: string): ServerTypeInfo {
  return (
    cloud.catalog.types.find((type) => type.id === id) ??
    refuse({ code: "not_found", kind: "serverType", ids: [id] })
  );
}

export interface ServerInput extends Naming {
  readonly imageId: string;
  readonly type: string;
  readonly keyName?: string | null;
  readonly userData?: string | null;
  /** Absent: the zone of the subnet, or the first one. */
  readonly zone?: string;
  /** Ports to make with it; the first one is the primary. */
  readonly ports?: readonly Omit<PortInput, "serverId" | "deleteWithServer">[];
  /** Ports that exist already (OpenStack). */
  readonly portIds?: readonly string[];
  readonly publicAddress: boolean;
  readonly rootDevice?: string;
  /** Disks to make and attach with it. */
  readonly volumes?: readonly (VolumeInput & {
    readonly device: string;
    readonly deleteOnTermination: boolean;
  })[];
  readonly token?: string | null;
  readonly protectedAgainst?: ServerRecord["protectedAgainst"];
  readonly onShutdown?: ServerRecord["onShutdown"];
}

/** Of the servers that have a machine, or are about to. */
function typesOnHosts(cloud: Cloud): ServerTypeInfo[] {
  return cloud.data.tables.server
    .by("alive", "yes")
    .filter(({ state }) => state === "pending" || state === "running")
    .map(({ type }) => findServerType(cloud, type));
}

function countsVcpus(cloud: Cloud): number {
  return typesOnHosts(cloud).reduce((sum, { vcpus }) => sum + vcpus, 0);
}

/** Refuses if the hosts do not bear `count` more servers of this type. For clouds that say so at once (EC2). */
export function checkCapacity(cloud: Cloud, type: string, count: number, zone = ""): void {
  const wanted = Array.from({ length: count }, () => findServerType(cloud, type));
  if (!cloud.hostsBear(typesOnHosts(cloud), wanted)) refuse({ code: "no_capacity", type, zone });
}

/** Refuses if `count` more servers of this type would be more than the quotas allow. */
export function checkServerQuota(cloud: Cloud, type: string, count: number): void {
  checkQuota(cloud.quotas, "servers", cloud.data.tables.server.countBy("alive", "yes"), count);
  checkQuota(cloud.quotas, "vcpus", countsVcpus(cloud), findServerType(cloud, type).vcpus * count);
}

/** Does not check the servers' quota: `checkServerQuota` does, once for a whole launch. */
export function createServer(cloud: Cloud, input: ServerInput): ServerRecord {
  const { server: servers, port: ports, keyPair, subnet } = cloud.data.tables;
  const image = findImage(cloud, input.imageId);
  findServerType(cloud, input.type);
  const keyName = input.keyName ?? null;
  if (keyName !== null && keyPair.countBy("name", keyName) === 0) {
    refuse({ code: "not_found", kind: "keyPair", ids: [keyName] });
  }
  const base = newRecord(cloud, "server", input);
  const given = findAll(cloud, "port", input.portIds ?? []).map((port) => {
    if (port.serverId !== null) {
      refuse({ code: "in_use", kind: "port", id: port.id, by: { kind: "server", id: port.serverId } });
    }
    return ports.put({ ...port, serverId: base.id });
  });
  const made = (input.ports ?? []).map((port) =>
    createPort(cloud, { ...port, serverId: base.id, deleteWithServer: true }),
  );
  const all = [...given, ...made];
  const subnetZone = all[0] === undefined ? null : subnet.get(all[0].subnetId)?.zone;
  const zone = input.zone ?? subnetZone ?? cloud.catalog.zones[0] ?? "";
  if (!cloud.catalog.zones.includes(zone)) refuse({ code: "not_found", kind: "zone", ids: [zone] });
  const server = servers.put({
    ...base,
    imageId: image.id,
    type: input.type,
    keyName,
    userData: input.userData ?? null,
    zone,
    state: "pending",
    stateReason: null,
    stateSince: base.createdAt,
    launchedAt: base.createdAt,
    boot: 1,
    portIds: all.map((port) => port.id),
    hostAddress: freeHostAddress(cloud),
    publicAddress: input.publicAddress,
    rootDevice: input.rootDevice ?? image.rootDevice,
    token: input.token ?? null,
    protectedAgainst: input.protectedAgainst ?? [],
    onShutdown: input.onShutdown ?? "stop",
  });
  for (const disk of input.volumes ?? []) {
    const volume = createVolume(cloud, { ...disk, zone });
    attachVolume(cloud, {
      volumeId: volume.id,
      serverId: server.id,
      device: disk.device,
      deleteOnTermination: disk.deleteOnTermination,
    });
  }
  return server;
}

/** Part of a transaction; also for the lifecycle. */
export function setServerState(
  cloud: Cloud,
  server: ServerRecord,
  state: ServerState,
  reason: ServerRecord["stateReason"] = null,
): ServerRecord {
  return cloud.data.tables.server.put({
    ...server,
    state,
    stateReason: reason,
    stateSince: cloud.clock.now(),
  });
}

const userShutdown = {
  code: "Client.UserInitiatedShutdown",
  message: "Client.UserInitiatedShutdown: User initiated shutdown",
};

/** A running or starting server is left as it is. */
export function startServer(cloud: Cloud, id: string): ServerRecord {
  const server = find(cloud, "server", id);
  if (server.state === "running" || server.state === "pending") return server;
  if (server.state !== "stopped" && server.state !== "failed") {
    refuse({ code: "wrong_state", kind: "server", id, state: server.state });
  }
  checkServerVcpus(cloud, server.type);
  return setServerState(
    cloud,
    { ...server, boot: server.boot + 1, launchedAt: cloud.clock.now() },
    "pending",
  );
}

function checkServerVcpus(cloud: Cloud, type: string): void {
  checkQuota(cloud.quotas, "vcpus", countsVcpus(cloud), findServerType(cloud, type).vcpus);
}

/** A stopped or stopping server is left as it is. */
export function stopServer(cloud: Cloud, id: string): ServerRecord {
  const server = find(cloud, "server", id);
  if (server.state === "stopped" || server.state === "stopping") return server;
  if (server.state !== "running") refuse({ code: "wrong_state", kind: "server", id, state: server.state });
  if (server.protectedAgainst.includes("stop")) refuse({ code: "protected", id, against: "stop" });
  return setServerState(cloud, server, "stopping", userShutdown);
}

/** The state stays `running`: the process is stopped and started again. */
export function rebootServer(cloud: Cloud, id: string): ServerRecord {
  const server = find(cloud, "server", id);
  if (server.state === "pending") return server;
  if (server.state !== "running") refuse({ code: "wrong_state", kind: "server", id, state: server.state });
  return cloud.data.tables.server.put({ ...server, boot: server.boot + 1 });
}

/** Terminating what is terminated succeeds, while the cloud still remembers it. */
export function terminateServer(cloud: Cloud, id: string): ServerRecord {
  const server = find(cloud, "server", id);
  if (server.state === "terminated" || server.state === "shutting-down") return server;
  if (server.protectedAgainst.includes("termination")) {
    refuse({ code: "protected", id, against: "termination" });
  }
  return setServerState(cloud, server, "shutting-down", userShutdown);
}

/** The end of `shutting-down`: addresses, ports and disks go, or come loose. */
export function finishTermination(cloud: Cloud, server: ServerRecord): ServerRecord {
  const { port: ports, volume: volumes, address } = cloud.data.tables;
  for (const held of address.by("server", server.id)) address.put({ ...held, association: null });
  for (const port of ports.by("server", server.id)) {
    if (port.deleteWithServer) removePort(cloud, port);
    else ports.put({ ...port, serverId: null });
  }
  for (const volume of volumes.by("server", server.id)) {
    if (volume.attachment?.deleteOnTermination === true) volumes.delete(volume.id);
    else volumes.put({ ...volume, attachment: null });
  }
  return setServerState(
    cloud,
    { ...server, portIds: [], publicAddress: false },
    "terminated",
    server.stateReason ?? userShutdown,
  );
}
