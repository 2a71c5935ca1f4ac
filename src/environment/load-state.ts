import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import { EnvironmentState, resourceKey } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";

/** The name of the reader whose position the `resource` table stands at. */
export const stateReader = "state";

export interface LoadedState {
  readonly state: EnvironmentState;
  /** Every command up to here is in it. */
  readonly position: number;
  /** Key -> other ids of the resource. */
  readonly aliases: Map<string, readonly ResourceId[]>;
}

/** The environment as the journal's follower last made it durable; `onRemoved` as in `EnvironmentState`. */
export async function loadState(
  store: Store,
  environment: EnvironmentId,
  onRemoved?: (resource: Resource) => void,
): Promise<LoadedState> {
  // The position first: rows of a later commit are then newer than it says, and folding them again changes nothing.
  const position = await readerPosition(store, environment, stateReader);
  const rows = await store.db
    .selectFrom("resource")
    .select(["kind", "id", "spec", "tags", "aliases"])
    .where("environment", "=", environment)
    .execute();
  const state = new EnvironmentState(onRemoved);
  const aliases = new Map<string, readonly ResourceId[]>();
  for (const row of rows) {
    const others = JSON.parse(row.aliases) as ResourceId[];
    const resource = {
      kind: row.kind,
      id: row.id,
      spec: JSON.parse(row.spec),
      tags: JSON.parse(row.tags),
    } as Resource;
    state.put(resource, others);
    if (others.length > 0) aliases.set(resourceKey(resource.kind, resource.id), others);
  }
  return { state, position, aliases };
}

export async function readerPosition(
  store: Store,
  environment: EnvironmentId,
  name: string,
): Promise<number> {
  const row = await store.db
    .selectFrom("reader")
    .select("position")
    .where("environment", "=", environment)
    .where("name", "=", name)
    .executeTakeFirst();
  return row?.position ?? 0;
}

export function moveReader(
  store: Store,
  environment: EnvironmentId,
  name: string,
  position: number,
): Statement {
  return {
    query: store.db
      .insertInto("reader")
      .values({ environment, name, position })
      .onConflict((conflict) => conflict.columns(["environment", "name"]).doUpdateSet({ position }))
      .compile(),
  };
}

export function writeResource(
  store: Store,
  environment: EnvironmentId,
  resource: Resource,
  aliases: readonly ResourceId[],
  position: number,
): Statement {
  const row = {
    spec: JSON.stringify(resource.spec),
    tags: JSON.stringify(resource.tags),
    aliases: JSON.stringify(aliases),
    position,
  };
  return {
    query: store.db
      .insertInto("resource")
      .values({ environment, kind: resource.kind, id: resource.id, ...row })
      .onConflict((conflict) => conflict.columns(["environment", "kind", "id"]).doUpdateSet(row))
      .compile(),
  };
}

export function eraseResource(store: Store, environment: EnvironmentId, resource: Resource): Statement {
  return {
    query: store.db
      .deleteFrom("resource")
      .where("environment", "=", environment)
      .where("kind", "=", resource.kind)
      .where("id", "=", resource.id)
      .compile(),
  };
}
