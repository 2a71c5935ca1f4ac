/** Tags of any record. Names come from the network: objects are built from entries, so that `__proto__` is a name like others. */
import type { Cloud } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { BaseRecord, TableName, Tags } from "./records.ts";
import type { Table } from "./table.ts";

export function mergedTags(tags: Tags, set: readonly (readonly [string, string])[]): Tags {
  return Object.fromEntries([...Object.entries(tags), ...set]);
}

function tableOf(cloud: Cloud, kind: TableName): Table<BaseRecord> {
  return cloud.data.tables[kind] as unknown as Table<BaseRecord>;
}

export function setTags(
  cloud: Cloud,
  kind: TableName,
  id: string,
  set: readonly (readonly [string, string])[],
): void {
  const table = tableOf(cloud, kind);
  const record = table.get(id);
  if (record === undefined) return;
  const tags = mergedTags(record.tags, set);
  checkQuota(cloud.quotas, "tagsPerResource", 0, Object.keys(tags).length);
  table.put({ ...record, tags });
}

/** A tag whose `value` is given goes only if it has that value. */
export function removeTags(
  cloud: Cloud,
  kind: TableName,
  id: string,
  remove: readonly { readonly key: string; readonly value?: string }[] | "all",
): void {
  const table = tableOf(cloud, kind);
  const record = table.get(id);
  if (record === undefined) return;
  const kept = Object.entries(record.tags).filter(
    ([key, value]) =>
      remove !== "all" &&
      !remove.some((each) => each.key === key && (each.value === undefined || each.value === value)),
  );
  table.put({ ...record, tags: Object.fromEntries(kept) });
}
