/** A server as Nova shows it to its owner, by microversion. Source: nova/api/openstack/compute/views/servers.py. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import { findServerType } from "#devcloud/core/servers.ts";
import type { ServerRecord, ServerTypeInfo } from "#devcloud/core/records.ts";
import { type Call, isoSeconds, projectOf } from "./api-call.ts";
import { extraFlag, extraNumber, extraText, extraTexts } from "./dialect-extra.ts";
import { versionAtLeast } from "./microversion.ts";
import { isKnown, novaState, shownFlavor } from "./nova-state.ts";
import { keystoneId } from "./openstack-ids.ts";
import { ApiError, quoted } from "./api-error.ts";

export function computeLinks(call: Call, path: string): object[] {
  return [
    { rel: "self", href: `${call.base}/compute/v2.1${path}` },
    { rel: "bookmark", href: `${call.base}/compute${path}` },
  ];
}

export function knownServer(cloud: Cloud, id: string): ServerRecord {
  const server = cloud.data.tables.server.get(id);
  if (server !== undefined && isKnown(server)) return server;
  throw new ApiError(404, `Instance ${quoted(id)} could not be found.`);
}

export function addressesOf(cloud: Cloud, server: ServerRecord): Record<string, object[]> {
  const { port: ports, network, address } = cloud.data.tables;
  const byNetwork = new Map<string, object[]>();
  for (const portId of server.portIds) {
    const port = ports.get(portId);
    if (port === undefined) continue;
    const name = network.get(port.networkId)?.name ?? "";
    const shared = { "OS-EXT-IPS-MAC:mac_addr": port.mac, version: 4 };
    const list = byNetwork.get(name) ?? [];
    list.push({ ...shared, addr: port.privateIp, "OS-EXT-IPS:type": "fixed" });
    for (const { ip } of address.by("port", port.id)) {
      list.push({ ...shared, addr: ip, "OS-EXT-IPS:type": "floating" });
    }
    byNetwork.set(name, list);
  }
  return Object.fromEntries(byNetwork);
}

export function groupNames(cloud: Cloud, server: ServerRecord): { name: string }[] {
  const { port: ports, group } = cloud.data.tables;
  const ids = new Set(server.portIds.flatMap((id) => ports.get(id)?.groupIds ?? []));
  return Array.from(ids, (id) => ({ name: group.get(id)?.name ?? id }));
}

function flavorView(call: Call, type: ServerTypeInfo): object {
  if (!versionAtLeast(call.microversion, "2.47")) {
    return { id: type.id, links: [computeLinks(call, `/flavors/${type.id}`)[1]] };
  }
  return {
    vcpus: type.vcpus,
    ram: type.memoryMiB,
    disk: type.diskGiB,
    ephemeral: 0,
    swap: 0,
    original_name: type.name,
    extra_specs: {},
  };
}

function fault(server: ServerRecord): object {
  if (server.state !== "failed") return {};
  return {
    fault: {
      code: 500,
      created: isoSeconds(server.stateSince),
      message: server.stateReason?.message ?? "The server could not be started.",
    },
  };
}

function newerFields(call: Call, server: ServerRecord): object {
  const at = (version: string, fields: object): object =>
    versionAtLeast(call.microversion, version) ? fields : {};
  return {
    ...at("2.9", { locked: false }),
    ...at("2.19", { description: extraText(server, "description") || null }),
    ...at("2.26", { tags: extraTexts(server, "novaTags") }),
    ...at("2.63", { trusted_image_certificates: null }),
    ...at("2.71", { server_groups: [] }),
    ...at("2.73", { locked_reason: null }),
  };
}

export function serverBody(call: Call, server: ServerRecord): object {
  const { cloud } = call;
  const state = novaState(cloud, server);
  const volumes = cloud.data.tables.volume.by("server", server.id).map(({ id, attachment }) => ({
    id,
    ...(versionAtLeast(call.microversion, "2.3")
      ? { delete_on_termination: attachment?.deleteOnTermination ?? false }
      : {}),
  }));
  return {
    id: server.id,
    name: server.name,
    status: state.status,
    tenant_id: projectOf(call),
    user_id: call.openstack.identity.user.id,
    metadata: server.tags,
    hostId: keystoneId("host", projectOf(call)),
    image: extraFlag(server, "bootFromVolume")
      ? ""
      : { id: server.imageId, links: [computeLinks(call, `/images/${server.imageId}`)[1]] },
    flavor: flavorView(call, findServerType(cloud, shownFlavor(cloud, server))),
    created: isoSeconds(server.createdAt),
    updated: isoSeconds(Math.max(server.stateSince, extraNumber(server, "updatedAt") ?? 0)),
    addresses: state.status === "BUILD" ? {} : addressesOf(cloud, server),
    accessIPv4: "",
    accessIPv6: "",
    links: computeLinks(call, `/servers/${server.id}`),
    "OS-DCF:diskConfig": "MANUAL",
    ...(state.status === "ACTIVE" || state.status === "BUILD" ? { progress: 0 } : {}),
    "OS-EXT-AZ:availability_zone": server.zone,
    config_drive: "",
    key_name: server.keyName,
    "OS-SRV-USG:launched_at":
      state.status === "BUILD" ? null : `${isoSeconds(server.launchedAt).slice(0, -1)}.000000`,
    "OS-SRV-USG:terminated_at": null,
    "OS-EXT-STS:task_state": state.task,
    "OS-EXT-STS:vm_state": state.vm,
    "OS-EXT-STS:power_state": state.power,
    "os-extended-volumes:volumes_attached": volumes,
    security_groups: groupNames(cloud, server),
    ...newerFields(call, server),
    ...fault(server),
  };
}
