/** Which standby resource stands for which active one: the durable memory of all that converging has done. */
import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import { resourceId } from "#kernel/ids.ts";
import { canonicalJson } from "#kernel/json.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource, ResourceKind, Tags } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";

/** A resource without its id. */
export interface Content {
  readonly spec: Resource["spec"];
  readonly tags: Tags;
}

export interface Pairing {
  readonly kind: ResourceKind;
  readonly activeId: ResourceId;
  /** Null while `creating`: the token was sent, the id is not yet known. */
  readonly standbyId: ResourceId | null;
  readonly state: "creating" | "paired" | "deleting";
  readonly token: string;
  /** The active side, as the counterpart now reflects it; while `creating`, as it is being asked for. */
  readonly applied: Content;
  /** What the standby was asked for, in its own ids. Null while `creating`. */
  readonly counterpart: Content | null;
  /** The cloud has said since its creation that it works; servers that are not confirmed are still watched. */
  readonly confirmed: boolean;
  /**
   * The counterpart was not translated from `applied` but is the original of which `applied` is the translation (after an
   * exchange of roles): what has not changed since is left as it is.
   */
  readonly original: boolean;
}

export type Pairings = ReadonlyMap<string, Pairing>;

/** `main`, or `drill-RUN`: isolated copies have pairings of their own. */
export interface PairingScope {
  readonly environment: EnvironmentId;
  readonly scope: string;
}

export function pairingKey(pairing: Pick<Pairing, "kind" | "activeId">): string {
  return resourceKey(pairing.kind, pairing.activeId);
}

export async function loadPairings(store: Store, of: PairingScope): Promise<Map<string, Pairing>> {
  const rows = await store.db
    .selectFrom("pairing")
    .selectAll()
    .where("environment", "=", of.environment)
    .where("scope", "=", of.scope)
    .execute();
  const pairings = new Map<string, Pairing>();
  for (const row of rows) {
    const { confirmed, original, ...applied } = JSON.parse(row.applied) as Content & {
      readonly confirmed?: boolean;
      readonly original?: boolean;
    };
    const pairing: Pairing = {
      kind: row.kind as ResourceKind,
      activeId: resourceId(row.active_id),
      standbyId: row.standby_id === null ? null : resourceId(row.standby_id),
      state: row.state as Pairing["state"],
      token: row.token,
      applied,
      counterpart: row.counterpart === null ? null : (JSON.parse(row.counterpart) as Content),
      confirmed: confirmed ?? false,
      original: original ?? false,
    };
    pairings.set(pairingKey(pairing), pairing);
  }
  return pairings;
}

export function writePairing(store: Store, of: PairingScope, pairing: Pairing, now: number): Statement {
  const { confirmed, original } = pairing;
  const row = {
    standby_id: pairing.standbyId,
    state: pairing.state,
    token: pairing.token,
    applied: JSON.stringify({ ...pairing.applied, confirmed, original }),
    counterpart: pairing.counterpart === null ? null : JSON.stringify(pairing.counterpart),
    updated_at: now,
  };
  const key = {
    environment: of.environment,
    scope: of.scope,
    kind: pairing.kind,
    active_id: pairing.activeId,
  };
  return {
    query: store.db
      .insertInto("pairing")
      .values({ ...key, ...row })
      .onConflict((conflict) =>
        conflict.columns(["environment", "scope", "kind", "active_id"]).doUpdateSet(row),
      )
      .compile(),
  };
}

export function erasePairing(
  store: Store,
  of: PairingScope,
  pairing: Pick<Pairing, "kind" | "activeId">,
): Statement {
  return {
    query: store.db
      .deleteFrom("pairing")
      .where("environment", "=", of.environment)
      .where("scope", "=", of.scope)
      .where("kind", "=", pairing.kind)
      .where("active_id", "=", pairing.activeId)
      .compile(),
  };
}

export function sameContent(a: unknown, b: unknown): boolean {
  return a === b || canonicalJson(a) === canonicalJson(b);
}
