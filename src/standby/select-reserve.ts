/** Which part of the environment the standby holds while the active site serves. Pure and stable. */
import { createHash } from "node:crypto";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { ReservePolicy, ReserveScale } from "#model/policy.ts";
import { recoveredVolumes, serversOfVolumes } from "#model/recovered-volumes.ts";
import type { Resource, ResourceOf } from "#model/resource.ts";

type Server = ResourceOf<"server">;

/** The same for the same id, whatever else there is: so that a tier that grows keeps its members. */
function place(id: string): string {
  return createHash("sha256").update(id).digest("hex");
}

/** How many servers of a group of `size` are held. */
export function reserveSize(scale: ReserveScale, size: number): number {
  switch (scale.mode) {
    case "none":
      return 0;
    case "full":
      return size;
    case "ratio": {
      // A ratio like 0.2 is not exact in binary: 0.2 x 15 must not become 4.
      const share = Math.ceil(scale.ratio * size - 1e-9);
      return Math.min(size, Math.max(share, scale.minimumPerGroup));
    }
  }
}

function selectServers(
  servers: readonly Server[],
  policy: ReservePolicy,
  paired: ReadonlySet<string>,
): Set<string> {
  const wanted = Object.entries(policy.onlyTags);
  const eligible = servers.filter(({ tags }) => wanted.every(([name, value]) => tags[name] === value));
  const groups = new Map<string, Server[]>();
  for (const server of eligible) {
    const group = policy.servers.mode === "ratio" ? (server.tags[policy.servers.groupBy] ?? "") : "";
    const members = groups.get(group);
    if (members === undefined) groups.set(group, [server]);
    else members.push(server);
  }
  const selected = new Set<string>();
  for (const members of groups.values()) {
    const rank = (server: Server): string =>
      `${paired.has(resourceKey("server", server.id)) ? "0" : "1"}${place(server.id)}`;
    const ranked = members
      .map((server) => ({ id: server.id, rank: rank(server) }))
      .toSorted((a, b) => (a.rank < b.rank ? -1 : 1));
    for (const { id } of ranked.slice(0, reserveSize(policy.servers, members.length))) selected.add(id);
  }
  return selected;
}

/**
 * Keys of the resources to hold. Networks, subnets, groups, rules and key pairs always, since they cost nothing; volumes by the
 * policy; links where both their ends are held; addresses with the server that they lead to. What comes back from the vault is
 * not held at all.
 * `paired`: keys of what the standby has already, which is kept rather than swapped for another.
 */
export function selectReserve(
  state: Pick<EnvironmentState, "resources">,
  policy: ReservePolicy,
  paired: ReadonlySet<string> = new Set(),
): Set<string> {
  const all = [...state.resources()];
  const recovered = new Set(recoveredVolumes(state, policy.recovered ?? null).map(({ id }) => id));
  const waiting = serversOfVolumes(state, recovered);
  const servers = selectServers(
    all.filter((one) => one.kind === "server").filter(({ id }) => !waiting.has(id)),
    policy,
    paired,
  );
  const everything = policy.servers.mode === "full" && Object.keys(policy.onlyTags).length === 0;
  const volumes = new Set<string>();
  const addresses = new Set<string>();
  for (const one of all) {
    if (one.kind === "volumeAttachment" && servers.has(one.spec.serverId)) volumes.add(one.spec.volumeId);
    if (one.kind === "addressAssociation" && servers.has(one.spec.serverId))
      addresses.add(one.spec.addressId);
  }
  const held = (one: Resource): boolean => {
    switch (one.kind) {
      case "network":
      case "subnet":
      case "securityGroup":
      case "securityGroupRule":
      case "keyPair":
        return true;
      case "server":
        return servers.has(one.id);
      case "volume":
        if (recovered.has(one.id)) return false;
        return everything || policy.volumes === "all" || volumes.has(one.id);
      case "address":
        return everything || addresses.has(one.id);
      case "volumeAttachment":
      case "addressAssociation":
        return servers.has(one.spec.serverId);
    }
  };
  return new Set(all.filter(held).map(({ kind, id }) => resourceKey(kind, id)));
}

/** The resources behind the keys. */
export function reserveResources(
  state: Pick<EnvironmentState, "resources">,
  policy: ReservePolicy,
  paired: ReadonlySet<string> = new Set(),
): Resource[] {
  const keys = selectReserve(state, policy, paired);
  return [...state.resources()].filter(({ kind, id }) => keys.has(resourceKey(kind, id)));
}
