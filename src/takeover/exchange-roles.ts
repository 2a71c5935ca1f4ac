/**
 * The moment at which the copy becomes the environment: ids, specs and pairings change sides. Pure; the caller makes one
 * commit of it. Done twice, everything is as it was.
 */
import type { ResourceId } from "#kernel/ids.ts";
import { resourceKey, type EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { Pairing, Pairings } from "#standby/pairings.ts";
import { isSynthetic } from "#standby/translate.ts";

export interface Exchanged {
  /** The environment as its new active site has it. */
  readonly resources: readonly Resource[];
  readonly pairings: readonly Pairing[];
  /** Resources of the old side that have no counterpart: kept apart, so that a return finds them again. */
  readonly stranded: readonly Resource[];
}

/** @param returning what an earlier exchange kept apart, where this one leads back to its side */
export function exchangeRoles(
  state: EnvironmentState,
  pairings: Pairings,
  returning: readonly Resource[],
): Exchanged {
  const resources: Resource[] = [...returning];
  const exchanged: Pairing[] = [];
  for (const pairing of pairings.values()) {
    if (pairing.state !== "paired" || pairing.standbyId === null || pairing.counterpart === null) continue;
    // Deleted, but its counterpart would not go yet: it is no part of the environment that changes sides.
    if (!isWanted(state, pairing)) continue;
    const current = state.get(pairing.kind, pairing.activeId);
    const source = current === undefined ? pairing.applied : { spec: current.spec, tags: current.tags };
    exchanged.push({
      ...pairing,
      activeId: pairing.standbyId,
      standbyId: pairing.activeId,
      applied: pairing.counterpart,
      counterpart: source,
      confirmed: true,
      original: !pairing.original,
    });
    if (isSynthetic(pairing.standbyId)) continue;
    resources.push({ kind: pairing.kind, id: pairing.standbyId, ...pairing.counterpart } as Resource);
  }
  const stranded = [...state.resources()].filter(
    (resource) => pairings.get(resourceKey(resource.kind, resource.id))?.state !== "paired",
  );
  return { resources, pairings: exchanged, stranded };
}

/** What has no resource of its own on the old side lives with its server. */
function isWanted(state: EnvironmentState, { kind, activeId }: Pairing): boolean {
  return isSynthetic(activeId) || state.has(kind, activeId);
}

/** Active id -> id of the counterpart, for servers that are paired. */
export function counterpartIds(pairings: Pairings): ReadonlyMap<string, ResourceId> {
  const ids = new Map<string, ResourceId>();
  for (const pairing of pairings.values()) {
    if (pairing.kind !== "server" || pairing.state !== "paired" || pairing.standbyId === null) continue;
    ids.set(pairing.activeId, pairing.standbyId);
  }
  return ids;
}
