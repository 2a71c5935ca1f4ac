/**
 * What runs have written into kept disks, durably: so that a run that is begun again neither gives a disk its content twice, over what
 * its servers wrote since, nor takes one for whole that is part old and part new.
 */
import { type EnvironmentId, resourceId, type ResourceId } from "#kernel/ids.ts";
import type { Statement, Store } from "#store/contract.ts";

/** `half`: a moment is being written into it, or was when that broke off. `null`: what its servers wrote. */
export type KeptContent = { readonly sequence: number } | "half" | null;

export interface KeptDisk {
  readonly environment: EnvironmentId;
  readonly site: string;
  readonly volumeId: ResourceId;
}

const half = "half";
const momentPrefix = "moment:";

export async function contentOf(
  store: Store,
  { environment, site, volumeId }: KeptDisk,
): Promise<KeptContent> {
  const row = await store.db
    .selectFrom("kept_volume")
    .select("content")
    .where("environment", "=", environment)
    .where("site", "=", site)
    .where("volume_id", "=", volumeId)
    .executeTakeFirst();
  const content = row?.content ?? null;
  if (content === null || content === half) return content;
  return { sequence: Number(content.slice(momentPrefix.length)) };
}

/** Said again, it is as it was. */
export function writeContent(
  store: Store,
  kept: KeptDisk & { readonly lineage: string; readonly content: KeptContent; readonly at: number },
): Statement {
  const { environment, site, volumeId, lineage, at } = kept;
  const content =
    kept.content === null || kept.content === half ? kept.content : `${momentPrefix}${kept.content.sequence}`;
  return {
    query: store.db
      .insertInto("kept_volume")
      .values({ environment, site, volume_id: volumeId, lineage, since: at, content })
      .onConflict((conflict) =>
        conflict.columns(["environment", "site", "volume_id"]).doUpdateSet({ lineage, content }),
      )
      .compile(),
  };
}

/**
 * At rest again, whichever site serves: from here on the disks hold what their servers write. One that is part old and part new
 * stays that.
 */
export function forgetContents(store: Store, environment: string): Statement {
  return {
    query: store.db
      .updateTable("kept_volume")
      .set({ content: null })
      .where("environment", "=", environment)
      .where("content", "!=", half)
      .compile(),
  };
}

/** Ids of the disks there that are part old and part new. */
export async function halfWritten(
  store: Store,
  environment: EnvironmentId,
  site: string,
): Promise<readonly ResourceId[]> {
  const rows = await store.db
    .selectFrom("kept_volume")
    .select("volume_id")
    .where("environment", "=", environment)
    .where("site", "=", site)
    .where("content", "=", half)
    .execute();
  return rows.map((row) => resourceId(row.volume_id));
}
