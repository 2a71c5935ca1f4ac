/** What each site offers, remembered: it must be known when the site is gone. */
import type { Catalogue, Cloud } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import type { SiteId } from "#kernel/ids.ts";
import type { Store } from "#store/contract.ts";

export interface RememberedCatalogue {
  readonly catalogue: Catalogue;
  /** When the site last said so. */
  readonly at: number;
}

export async function readCatalogue(store: Store, site: SiteId): Promise<RememberedCatalogue | undefined> {
  const row = await store.db.selectFrom("catalogue").selectAll().where("site", "=", site).executeTakeFirst();
  if (row === undefined) return undefined;
  return { catalogue: JSON.parse(row.data) as Catalogue, at: row.at };
}

/** Asks the site and keeps its answer. Errors: the driver's and the store's; what was remembered stays. */
export async function refreshCatalogue(
  store: Store,
  site: SiteId,
  cloud: Cloud,
  clock: Clock,
  signal: AbortSignal,
): Promise<Catalogue> {
  const catalogue = await cloud.catalogue(signal);
  const row = { data: JSON.stringify(catalogue), at: clock.now() };
  await store.commit([
    {
      query: store.db
        .insertInto("catalogue")
        .values({ site, ...row })
        .onConflict((conflict) => conflict.column("site").doUpdateSet(row))
        .compile(),
    },
  ]);
  return catalogue;
}
