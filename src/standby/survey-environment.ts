/** What a resource's translation has to know of the others. */
import type { ResourceId } from "#kernel/ids.ts";
import type { Resource, ResourceOf, ServerSpec, SubnetSpec } from "#model/resource.ts";

/** Names that clouds keep for the group that they make themselves. */
const reservedGroupName = "default";

export interface Surroundings {
  readonly subnetsOf: ReadonlyMap<string, readonly SubnetSpec[]>;
  /** Network that a group belongs to where the source does not say: that of the first server that uses it. */
  readonly networkOfGroup: ReadonlyMap<string, ResourceId>;
  readonly anyNetwork: ResourceId | undefined;
  readonly groupNames: ReadonlyMap<string, string>;
  readonly subnets: ReadonlyMap<string, SubnetSpec>;
  readonly servers: ReadonlyMap<string, ServerSpec>;
  readonly serverOfVolume: ReadonlyMap<string, string>;
}

export function surveyEnvironment(resources: readonly Resource[]): Surroundings {
  const subnetsOf = new Map<string, SubnetSpec[]>();
  const subnets = new Map<string, SubnetSpec>();
  const servers = new Map<string, ServerSpec>();
  const serverOfVolume = new Map<string, string>();
  const networkOfGroup = new Map<string, ResourceId>();
  const groups: ResourceOf<"securityGroup">[] = [];
  let anyNetwork: ResourceId | undefined;
  for (const resource of resources) {
    if (resource.kind === "network" && (anyNetwork === undefined || resource.id < anyNetwork)) {
      anyNetwork = resource.id;
    }
    if (resource.kind === "subnet") {
      subnets.set(resource.id, resource.spec);
      const siblings = subnetsOf.get(resource.spec.networkId);
      if (siblings === undefined) subnetsOf.set(resource.spec.networkId, [resource.spec]);
      else siblings.push(resource.spec);
    }
    if (resource.kind === "securityGroup") groups.push(resource);
    if (resource.kind === "server") servers.set(resource.id, resource.spec);
    if (resource.kind === "volumeAttachment") {
      serverOfVolume.set(resource.spec.volumeId, resource.spec.serverId);
    }
  }
  for (const [, server] of [...servers].toSorted(([a], [b]) => (a < b ? -1 : 1))) {
    const subnet = server.subnetId === undefined ? undefined : subnets.get(server.subnetId);
    if (subnet === undefined) continue;
    for (const groupId of server.groupIds) {
      if (!networkOfGroup.has(groupId)) networkOfGroup.set(groupId, subnet.networkId);
    }
  }
  const groupNames = uniqueGroupNames(groups, networkOfGroup);
  return { subnetsOf, networkOfGroup, anyNetwork, groupNames, subnets, servers, serverOfVolume };
}

/** Some clouds allow two groups of one name in a network, others refuse: the later ones bear a part of their id. */
function uniqueGroupNames(
  groups: readonly ResourceOf<"securityGroup">[],
  networkOf: ReadonlyMap<string, ResourceId>,
): Map<string, string> {
  const names = new Map<string, string>();
  const taken = new Set<string>();
  for (const { id, spec } of groups.toSorted((a, b) => (a.id < b.id ? -1 : 1))) {
    const base = spec.name === reservedGroupName ? `understudy-${reservedGroupName}` : spec.name;
    const network = spec.networkId ?? networkOf.get(id) ?? "";
    const name = taken.has(`${network}|${base}`) ? `${base}-${id.slice(-8)}` : base;
    taken.add(`${network}|${name}`);
    names.set(id, name);
  }
  return names;
}
