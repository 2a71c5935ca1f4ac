/** Under which name the vault knows a volume, wherever it is: its lineage, the id that it had when it was first captured. */
import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import type { KeptVolume } from "#recovery/vault-desk.ts";
import { isJoining, type LogVolume } from "#vault/write-log/log-event.ts";
import type { Statement, Store } from "#store/contract.ts";

/** The volume's own id where it never moved. */
export async function lineageOf(
  store: Store,
  environment: EnvironmentId,
  site: string,
  volumeId: ResourceId,
): Promise<string> {
  const row = await store.db
    .selectFrom("kept_volume")
    .select("lineage")
    .where("environment", "=", environment)
    .where("site", "=", site)
    .where("volume_id", "=", volumeId)
    .executeTakeFirst();
  return row?.lineage ?? volumeId;
}

/** Nothing of it was whole before: it is in no moment yet, and holds up no other's. */
export function isFirstCopy({ state, reason }: KeptVolume): boolean {
  return isJoining({ state, reason: reason as LogVolume["reason"] });
}

/** Said again, it is as it was. */
export function writeLineage(
  store: Store,
  kept: {
    readonly environment: EnvironmentId;
    readonly site: string;
    readonly volumeId: ResourceId;
    readonly lineage: string;
    readonly since: number;
  },
): Statement {
  const { environment, site, volumeId, lineage, since } = kept;
  return {
    query: store.db
      .insertInto("kept_volume")
      .values({ environment, site, volume_id: volumeId, lineage, since, content: null })
      .onConflict((conflict) =>
        conflict.columns(["environment", "site", "volume_id"]).doUpdateSet({ lineage }),
      )
      .compile(),
  };
}

/** Every name under which the environment's volumes were ever kept, wherever. */
export async function knownLineages(store: Store, environment: EnvironmentId): Promise<ReadonlySet<string>> {
  const rows = await store.db
    .selectFrom("kept_volume")
    .select("lineage")
    .where("environment", "=", environment)
    .execute();
  return new Set(rows.map(({ lineage }) => lineage));
}
