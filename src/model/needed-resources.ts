/** A part of an environment that stands by itself. Pure. */
import type { ResourceId } from "#kernel/ids.ts";
import { type EnvironmentState, resourceKey } from "#model/environment-state.ts";
import { referencesOf, type Resource } from "#model/resource.ts";

type Resources = Pick<EnvironmentState, "resources">;

/** Belongs to what it refers to, instead of the other way round. */
const belonging: ReadonlySet<Resource["kind"]> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

/**
 * The servers, what they refer to, the rules of their groups, and the volumes and addresses that are theirs; no other server. What a
 * rule lets in from is needed as well: a rule can't be made without it.
 */
export function neededBy(state: Resources, servers: ReadonlySet<ResourceId>): readonly Resource[] {
  const all = [...state.resources()];
  const byKey = new Map(all.map((one) => [resourceKey(one.kind, one.id), one]));
  const wanted = new Set<string>();
  const take = (one: Resource): void => {
    const key = resourceKey(one.kind, one.id);
    if (wanted.has(key)) return;
    wanted.add(key);
    for (const { kind, id } of referencesOf(one)) {
      const end = byKey.get(resourceKey(kind, id));
      if (end !== undefined) take(end);
    }
  };
  for (const one of all) if (one.kind === "server" && servers.has(one.id)) take(one);
  const owned = (one: Resource): boolean => {
    if (!belonging.has(one.kind)) return false;
    if (one.kind === "securityGroupRule") return wanted.has(resourceKey("securityGroup", one.spec.groupId));
    if (one.kind === "volumeAttachment" || one.kind === "addressAssociation")
      return servers.has(one.spec.serverId);
    return false;
  };
  // A rule brings in the group that it lets in from, and that one its own rules.
  for (let before = -1; before !== wanted.size;) {
    before = wanted.size;
    for (const one of all) if (owned(one)) take(one);
  }
  return all.filter((one) => wanted.has(resourceKey(one.kind, one.id)));
}
