/** What every operation of the cloud works on. Dialects call the operations inside `cloud.data.transact`. */
import type { Clock } from "#kernel/clock.ts";
import type { Random } from "#kernel/random.ts";
import type { AddressPool } from "./address-pool.ts";
import type { CloudTables } from "./cloud-tables.ts";
import type { Quotas } from "./quotas.ts";
import type { BaseRecord, ImageInfo, RecordKind, RecordTypes, ServerTypeInfo, TableName } from "./records.ts";
import { refuse } from "./refusal.ts";

/** How a dialect names things. */
export interface IdScheme {
  make(kind: RecordKind, random: Random): string;
  wellFormed(kind: RecordKind, id: string): boolean;
}

export interface Catalog {
  readonly region: string;
  readonly zones: readonly string[];
  readonly images: readonly ImageInfo[];
  readonly types: readonly ServerTypeInfo[];
}

export interface Cloud {
  readonly data: CloudTables;
  readonly ids: IdScheme;
  readonly catalog: Catalog;
  readonly clock: Clock;
  readonly random: Random;
  /** Loopback addresses, for servers and for public addresses. */
  readonly pool: AddressPool;
  /** Replaced, never changed in place. */
  quotas: Quotas;
  /** Whether the hosts bear `wanted` beside the servers that they have; set by what runs servers. Default: always. */
  hostsBear: (held: readonly ServerTypeInfo[], wanted: readonly ServerTypeInfo[]) => boolean;
}

/** The record, or a refusal: `malformed_id` or `not_found`. */
export function find<K extends TableName>(cloud: Cloud, kind: K, id: string): RecordTypes[K] {
  const found: RecordTypes[K] | undefined = cloud.data.tables[kind].get(id);
  if (found !== undefined) return found;
  if (!cloud.ids.wellFormed(kind, id)) refuse({ code: "malformed_id", kind, id });
  return refuse({ code: "not_found", kind, ids: [id] });
}

/** All of them, or one refusal that names every unknown id. */
export function findAll<K extends TableName>(
  cloud: Cloud,
  kind: K,
  ids: readonly string[],
): RecordTypes[K][] {
  const unknown = ids.filter((id) => cloud.data.tables[kind].get(id) === undefined);
  const malformed = unknown.find((id) => !cloud.ids.wellFormed(kind, id));
  if (malformed !== undefined) refuse({ code: "malformed_id", kind, id: malformed });
  if (unknown.length > 0) refuse({ code: "not_found", kind, ids: unknown });
  return ids.map((id) => cloud.data.tables[kind].get(id) as RecordTypes[K]);
}

export interface Naming {
  readonly name?: string;
  readonly tags?: Readonly<Record<string, string>>;
  readonly extra?: BaseRecord["extra"];
}

/** The fields that every record begins with. */
export function newRecord(cloud: Cloud, kind: RecordKind, naming: Naming): BaseRecord {
  return {
    id: cloud.ids.make(kind, cloud.random),
    name: naming.name ?? "",
    createdAt: cloud.clock.now(),
    tags: naming.tags ?? {},
    extra: naming.extra ?? {},
  };
}
