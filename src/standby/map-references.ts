import type { ResourceId } from "#kernel/ids.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";

/** Rewrites every id in a spec that names another resource; the id of one that has no counterpart yet is up to `map`. */
export function mapReferences(
  kind: ResourceKind,
  spec: Resource["spec"],
  map: (kind: ResourceKind, id: ResourceId) => ResourceId,
): Resource["spec"] {
  const { ...resource } = { kind, spec } as Resource;
  switch (resource.kind) {
    case "network":
    case "keyPair":
    case "volume":
    case "address":
      return resource.spec;
    case "subnet":
      return { ...resource.spec, networkId: map("network", resource.spec.networkId) };
    case "securityGroup":
      return resource.spec.networkId === undefined
        ? resource.spec
        : { ...resource.spec, networkId: map("network", resource.spec.networkId) };
    case "securityGroupRule": {
      const { groupId, peer } = resource.spec;
      return {
        ...resource.spec,
        groupId: map("securityGroup", groupId),
        peer: "groupId" in peer ? { groupId: map("securityGroup", peer.groupId) } : peer,
      };
    }
    case "server": {
      const { subnetId, keyName, groupIds } = resource.spec;
      return {
        ...resource.spec,
        groupIds: groupIds.map((id) => map("securityGroup", id)),
        ...(subnetId === undefined ? {} : { subnetId: map("subnet", subnetId) }),
        ...(keyName === undefined ? {} : { keyName: map("keyPair", keyName as ResourceId) }),
      };
    }
    case "volumeAttachment":
      return {
        ...resource.spec,
        volumeId: map("volume", resource.spec.volumeId),
        serverId: map("server", resource.spec.serverId),
      };
    case "addressAssociation":
      return {
        ...resource.spec,
        addressId: map("address", resource.spec.addressId),
        serverId: map("server", resource.spec.serverId),
      };
  }
}
