/** Opens the core on a data directory, or in memory alone. */
import { join } from "node:path";
import { systemClock, type Clock } from "#kernel/clock.ts";
import { systemRandom, type Random } from "#kernel/random.ts";
import { openAddressPool } from "./address-pool.ts";
import { CloudTables } from "./cloud-tables.ts";
import type { Catalog, Cloud, IdScheme } from "./cloud.ts";
import { defaultQuotas, type Quotas } from "./quotas.ts";
import { RecordFile } from "./record-file.ts";

export interface CloudOptions {
  /** Null: nothing is kept on disk. */
  readonly dataDir: string | null;
  readonly ids: IdScheme;
  readonly catalog: Catalog;
  /** Loopback prefix for servers and public addresses. */
  readonly addressBase?: string;
  readonly quotas?: Partial<Quotas>;
  readonly clock?: Clock;
  readonly random?: Random;
}

/** Errors: `config.invalid`, `store.version`, `store.failing`. Close with `cloud.data.close()`. */
export function openCloud(options: CloudOptions): Cloud {
  return {
    data: new CloudTables(
      options.dataDir === null ? null : new RecordFile(join(options.dataDir, "cloud.db")),
    ),
    ids: options.ids,
    catalog: options.catalog,
    clock: options.clock ?? systemClock,
    random: options.random ?? systemRandom,
    pool: openAddressPool(options.addressBase ?? "127.40.0.0/16"),
    quotas: { ...defaultQuotas, ...options.quotas },
    hostsBear: () => true,
  };
}
