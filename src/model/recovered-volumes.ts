/** Volumes whose content comes back from the vault, by the tags that the user named. Pure. */
import type { ResourceId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { ResourceOf, Tags } from "#model/resource.ts";

type Resources = Pick<EnvironmentState, "resources">;

/** `select`: a volume that bears all these tags is one; null: none is. */
export function recoveredVolumes(state: Resources, select: Tags | null): readonly ResourceOf<"volume">[] {
  if (select === null) return [];
  const wanted = Object.entries(select);
  return [...state.resources()].filter(
    (one): one is ResourceOf<"volume"> =>
      one.kind === "volume" && wanted.every(([name, value]) => one.tags[name] === value),
  );
}

/** The servers that have one of them attached: they are nothing without it. */
export function serversOfVolumes(state: Resources, volumes: ReadonlySet<ResourceId>): Set<ResourceId> {
  const servers = new Set<ResourceId>();
  for (const one of state.resources()) {
    if (one.kind === "volumeAttachment" && volumes.has(one.spec.volumeId)) servers.add(one.spec.serverId);
  }
  return servers;
}
