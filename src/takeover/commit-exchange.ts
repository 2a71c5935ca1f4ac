/** Makes an exchange of roles durable: statements for one commit. */
import type { Clock } from "#kernel/clock.ts";
import { loadState, writeResource } from "#environment/load-state.ts";
import { resourceId, type EnvironmentId, type ResourceId } from "#kernel/ids.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { loadPairings, writePairing, type PairingScope } from "#standby/pairings.ts";
import type { Statement, Store } from "#store/contract.ts";
import { exchangeRoles } from "#takeover/exchange-roles.ts";

export const mainScope = "main";
/** Resources without a counterpart wait here, under the side that they are on. */
const strandedScope = "stranded";
/** Other names of the side that was left (`sgr-...`), under which commands may speak of its resources after a return. */
const aliasScope = "aliases";

export interface ExchangeStatements {
  readonly statements: readonly Statement[];
  readonly resources: number;
  readonly stranded: readonly Resource[];
}

/** To be made when everything acknowledged is folded; the environment's row is the caller's to move, in the same commit. */
export async function exchangeStatements(
  store: Store,
  clock: Clock,
  environment: EnvironmentId,
): Promise<ExchangeStatements> {
  const of: PairingScope = { environment, scope: mainScope };
  const { state, position, aliases } = await loadState(store, environment);
  const pairings = await loadPairings(store, of);
  const returning = await readStranded(store, environment);
  const knownAliases = await readAliases(store, environment);
  const { resources, pairings: exchanged, stranded } = exchangeRoles(state, pairings, returning);
  const { db } = store;
  const now = clock.now();
  const clear = [mainScope, strandedScope, aliasScope].map((scope) =>
    db.deleteFrom("pairing").where("environment", "=", environment).where("scope", "=", scope).compile(),
  );
  const statements: Statement[] = [
    ...clear.map((query) => ({ query })),
    { query: db.deleteFrom("resource").where("environment", "=", environment).compile() },
    ...resources.map((resource) => {
      const others = knownAliases.get(resourceKey(resource.kind, resource.id)) ?? [];
      return writeResource(store, environment, resource, others, position);
    }),
    ...exchanged.map((pairing) => writePairing(store, of, pairing, now)),
    ...stranded.map(({ kind, id, spec, tags }) =>
      keepStatement(store, environment, { scope: strandedScope, kind, id, content: { spec, tags } }, now),
    ),
    ...[...aliases].flatMap(([key, others]) => {
      const [kind, id] = splitKey(key);
      return keepStatement(store, environment, { scope: aliasScope, kind, id, content: others }, now);
    }),
  ];
  return { statements, resources: resources.length, stranded };
}

function splitKey(key: string): readonly [ResourceKind, ResourceId] {
  const colon = key.indexOf(":");
  return [key.slice(0, colon) as ResourceKind, resourceId(key.slice(colon + 1))];
}

interface Kept {
  readonly scope: string;
  readonly kind: ResourceKind;
  readonly id: string;
  readonly content: object;
}

function keepStatement(
  store: Store,
  environment: string,
  { scope, kind, id, content }: Kept,
  now: number,
): Statement {
  const row = {
    environment,
    scope,
    kind,
    active_id: id,
    standby_id: null,
    state: "paired",
    token: "",
    applied: JSON.stringify(content),
    counterpart: null,
    updated_at: now,
  };
  return { query: store.db.insertInto("pairing").values(row).compile() };
}

async function readAliases(
  store: Store,
  environment: string,
): Promise<ReadonlyMap<string, readonly ResourceId[]>> {
  const rows = await store.db
    .selectFrom("pairing")
    .select(["kind", "active_id", "applied"])
    .where("environment", "=", environment)
    .where("scope", "=", aliasScope)
    .execute();
  return new Map(
    rows.map((row) => [
      resourceKey(row.kind as ResourceKind, row.active_id),
      JSON.parse(row.applied) as ResourceId[],
    ]),
  );
}

export async function readStranded(store: Store, environment: string): Promise<readonly Resource[]> {
  const rows = await store.db
    .selectFrom("pairing")
    .select(["kind", "active_id", "applied"])
    .where("environment", "=", environment)
    .where("scope", "=", strandedScope)
    .execute();
  return rows.map(
    (row) =>
      ({
        kind: row.kind as ResourceKind,
        id: resourceId(row.active_id),
        ...(JSON.parse(row.applied) as object),
      }) as Resource,
  );
}

/** The side that was left is left for good: what was kept for a return to it is kept no longer. */
export function forgetKept(store: Store, environment: string): Statement {
  return {
    query: store.db
      .deleteFrom("pairing")
      .where("environment", "=", environment)
      .where("scope", "in", [strandedScope, aliasScope])
      .compile(),
  };
}
