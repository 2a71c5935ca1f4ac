/** OpenStack bodies as resources of the model. Pure; what one body does not tell comes in as an argument. */
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceOf } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import type { CinderVolume } from "./cinder.ts";
import type {
  NeutronFloatingIp,
  NeutronNetwork,
  NeutronPort,
  NeutronRouter,
  NeutronSecurityGroup,
  NeutronSubnet,
} from "./neutron.ts";
import { routerInterfaceOwners } from "./neutron.ts";
import type { NovaServer, NovaVolumeAttachment } from "./nova.ts";
import type { Marker } from "./openstack-tags.ts";
import { readDescription, splitMarker, tagsFromMetadata, tagsFromNeutron } from "./openstack-tags.ts";

export type MappedStatus = "pending" | "ready" | "stopped" | "failed" | "deleting";

/** A resource with how it stands; the shape of the driver contract's `Observed`. */
export interface MappedResource<K extends ResourceKind = ResourceKind> {
  readonly resource: ResourceOf<K>;
  readonly status: MappedStatus;
  readonly fault?: string;
  readonly addresses: { readonly private: readonly string[]; readonly public: readonly string[] };
}

export const noAddresses = { private: [], public: [] } as const;
const asId = (text: string): ResourceId => text as ResourceId;

/** Names that the driver gives to what has no `Name`, because Nova wants one. */
export const unnamedPrefix = "understudy-unnamed-";

function displayName(name: string): string | undefined {
  return name === "" || name.startsWith(unnamedPrefix) ? undefined : name;
}

const pendingStates = new Set([
  "BUILD",
  "REBUILD",
  "RESIZE",
  "VERIFY_RESIZE",
  "REVERT_RESIZE",
  "REBOOT",
  "HARD_REBOOT",
  "MIGRATING",
  "PASSWORD",
]);
const stoppedStates = new Set(["SHUTOFF", "SHELVED", "SHELVED_OFFLOADED", "SUSPENDED", "PAUSED", "RESCUE"]);

export function serverStatus(server: NovaServer): MappedStatus {
  if (server.status === "DELETED" || server.status === "SOFT_DELETED") return "deleting";
  const task = server["OS-EXT-STS:task_state"] ?? "";
  if (task.includes("delet")) return "deleting";
  if (server.status === "ERROR") return "failed";
  if (pendingStates.has(server.status) || task !== "") return "pending";
  if (stoppedStates.has(server.status)) return "stopped";
  return server.status === "ACTIVE" ? "ready" : "failed";
}

function faultOf(server: NovaServer): string | undefined {
  if (server.status === "ERROR") return server.fault?.message || "the cloud gives no reason";
  if (server.status === "UNKNOWN") return "the part of the cloud that holds the server does not answer";
  return undefined;
}

/** Nova's own list of floating addresses is a cache that lags behind Neutron. */
function addressesOf(server: NovaServer, ports: readonly NeutronPort[]): readonly string[] {
  const fixed = ports.flatMap(({ fixed_ips: ips }) => ips.map(({ ip_address: ip }) => ip));
  if (fixed.length > 0) return fixed;
  const cached = Object.values(server.addresses).flat();
  return cached.filter((address) => address["OS-EXT-IPS:type"] !== "floating").map(({ addr }) => addr);
}

export interface ServerLinks {
  /** They tell subnet, groups and private address. */
  readonly ports: readonly NeutronPort[];
  /** Floating addresses that lead to these ports. */
  readonly publicIps?: readonly string[];
}

/**
 * `typeName` for clouds below 2.47, whose bodies
 * name the flavor by id. Volumes that came with the server are volumes and attachments of their own.
 */
export function serverFromBody(
  server: NovaServer,
  { ports, publicIps = [] }: ServerLinks,
  typeName?: string,
): MappedResource<"server"> {
  const status = serverStatus(server);
  const fault = faultOf(server);
  const port = ports[0];
  const fixed = port?.fixed_ips[0];
  const groupIds = [...new Set(ports.flatMap(({ security_groups: groups }) => groups))];
  const { key_name: keyName } = server;
  const zone = server["OS-EXT-AZ:availability_zone"];
  const userData = server["OS-EXT-SRV-ATTR:user_data"];
  return {
    resource: {
      kind: "server",
      id: asId(server.id),
      spec: {
        imageId: typeof server.image === "object" ? (server.image?.id ?? "") : "",
        type: server.flavor?.original_name ?? typeName ?? server.flavor?.id ?? "",
        ...(fixed === undefined ? {} : { subnetId: asId(fixed.subnet_id), privateIp: fixed.ip_address }),
        groupIds: groupIds.map(asId),
        ...(keyName ? { keyName } : {}),
        ...(userData ? { userData } : {}),
        ...(zone ? { zone } : {}),
        publicAddress: false,
        power: stoppedStates.has(server.status) ? "stopped" : "running",
        blockDevices: [],
      },
      tags: tagsFromMetadata(server.metadata, displayName(server.name)),
    },
    status,
    ...(fault === undefined ? {} : { fault }),
    addresses: { private: addressesOf(server, ports), public: publicIps },
  };
}

/** By description, for a network that has no subnet (hence no interface) yet. */
export function routerDescription(networkId: string): string {
  return `understudy router of network ${networkId}`;
}

/** Networks that a router with an external gateway serves. */
export function internetNetworks(
  routers: readonly NeutronRouter[],
  interfaces: readonly NeutronPort[],
): ReadonlySet<string> {
  const open = new Set(routers.filter((router) => router.external_gateway_info).map(({ id }) => id));
  const served = new Set<string>();
  for (const port of interfaces) if (open.has(port.device_id)) served.add(port.network_id);
  const prefix = routerDescription("");
  for (const router of routers) {
    const description = router.description ?? "";
    if (router.external_gateway_info && description.startsWith(prefix)) {
      served.add(description.slice(prefix.length));
    }
  }
  return served;
}

export function isRouterInterface(port: Pick<NeutronPort, "device_owner">): boolean {
  return (routerInterfaceOwners as readonly string[]).includes(port.device_owner);
}

export function networkFromBody(network: NeutronNetwork, internet: boolean): MappedResource<"network"> {
  return {
    resource: {
      kind: "network",
      id: asId(network.id),
      spec: { internet },
      tags: tagsFromNeutron(network.tags ?? [], displayName(network.name)),
    },
    // DOWN and BUILD pass on clouds whose agents work; a network takes subnets and ports meanwhile.
    status: network.status === "ERROR" ? "failed" : "ready",
    addresses: noAddresses,
  };
}

export function subnetFromBody(subnet: NeutronSubnet): MappedResource<"subnet"> {
  return {
    resource: {
      kind: "subnet",
      id: asId(subnet.id),
      spec: { networkId: asId(subnet.network_id), cidr: subnet.cidr, publicAddresses: false },
      tags: tagsFromNeutron(subnet.tags ?? [], displayName(subnet.name)),
    },
    status: "ready",
    addresses: noAddresses,
  };
}

export function securityGroupFromBody(group: NeutronSecurityGroup): MappedResource<"securityGroup"> {
  return {
    resource: {
      kind: "securityGroup",
      id: asId(group.id),
      spec: { name: group.name, description: readDescription(group.description, group.tags).text },
      tags: tagsFromNeutron(group.tags ?? []),
    },
    status: "ready",
    addresses: noAddresses,
  };
}

export function addressFromBody(address: NeutronFloatingIp): MappedResource<"address"> {
  return {
    resource: {
      kind: "address",
      id: asId(address.id),
      spec: { publicIp: address.floating_ip_address },
      tags: tagsFromNeutron(address.tags ?? []),
    },
    status: address.status === "ERROR" ? "failed" : "ready",
    addresses: { private: [], public: [address.floating_ip_address] },
  };
}

/** An address has at most one association, so that a new one replaces the old one. */
export function addressAssociationId(addressId: string): ResourceId {
  return asId(`${addressId}/association`);
}

export function addressOfAssociation(associationId: string): string {
  return associationId.replace(/\/association$/, "");
}

/** `undefined`: the address is free, or leads to something that is no server. */
export function addressAssociationFromBody(
  address: NeutronFloatingIp,
  serverId: string | undefined = address.port_details?.device_id,
): MappedResource<"addressAssociation"> | undefined {
  if (!address.port_id || serverId === undefined || serverId === "") return undefined;
  const privateIp = address.fixed_ip_address;
  return {
    resource: {
      kind: "addressAssociation",
      id: addressAssociationId(address.id),
      spec: {
        addressId: asId(address.id),
        serverId: asId(serverId),
        ...(privateIp ? { privateIp } : {}),
      },
      tags: {},
    },
    status: "ready",
    addresses: { private: privateIp ? [privateIp] : [], public: [address.floating_ip_address] },
  };
}

function volumeStatus(status: string): MappedStatus {
  if (status.startsWith("error")) return "failed";
  if (status === "deleting") return "deleting";
  return status === "available" || status === "in-use" ? "ready" : "pending";
}

export function volumeFromBody(volume: CinderVolume): MappedResource<"volume"> {
  const { volume_type: type, availability_zone: zone, snapshot_id: snapshotId } = volume;
  const status = volumeStatus(volume.status);
  return {
    resource: {
      kind: "volume",
      id: asId(volume.id),
      spec: {
        sizeGiB: volume.size,
        ...(type ? { type } : {}),
        ...(zone ? { zone } : {}),
        ...(volume.encrypted === undefined ? {} : { encrypted: volume.encrypted }),
        ...(snapshotId ? { snapshotId: asId(snapshotId) } : {}),
      },
      tags: tagsFromMetadata(volume.metadata, displayName(volume.name ?? "")),
    },
    status,
    ...(status === "failed" ? { fault: `the volume is in the state ${volume.status}` } : {}),
    addresses: noAddresses,
  };
}

export function attachmentFromBody(attachment: NovaVolumeAttachment): MappedResource<"volumeAttachment"> {
  return {
    resource: {
      kind: "volumeAttachment",
      id: volumeAttachmentId(attachment.volumeId, attachment.serverId),
      spec: {
        volumeId: asId(attachment.volumeId),
        serverId: asId(attachment.serverId),
        device: attachment.device ?? "",
        deleteOnTermination: attachment.delete_on_termination ?? false,
      },
      tags: {},
    },
    status: "ready",
    addresses: noAddresses,
  };
}

export interface KeyPairBody {
  readonly name: string;
  readonly public_key?: string | undefined;
}

export function keyPairFromBody(keypair: KeyPairBody): MappedResource<"keyPair"> {
  const publicKey =
    keypair.public_key === undefined ? undefined : splitMarker(keypair.public_key.trim()).text;
  return {
    resource: {
      kind: "keyPair",
      id: asId(keypair.name),
      spec: { name: keypair.name, ...(publicKey === undefined ? {} : { publicKey }) },
      tags: {},
    },
    status: "ready",
    addresses: noAddresses,
  };
}

export function keyPairMarker(keypair: KeyPairBody): Marker | undefined {
  return splitMarker((keypair.public_key ?? "").trim()).marker;
}
