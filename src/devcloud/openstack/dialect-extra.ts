/** The dialect's own fields of a record, typed. They come from this dialect's own disk, but a state may be put in from outside. */
import type { BaseRecord } from "#devcloud/core/records.ts";
import type { Json } from "#kernel/json.ts";

type Extra = BaseRecord["extra"];

export function extraText(record: { readonly extra: Extra }, key: string): string {
  const value = Object.hasOwn(record.extra, key) ? record.extra[key] : undefined;
  return typeof value === "string" ? value : "";
}

export function extraNumber(record: { readonly extra: Extra }, key: string): number | undefined {
  const value = Object.hasOwn(record.extra, key) ? record.extra[key] : undefined;
  return typeof value === "number" ? value : undefined;
}

export function extraFlag(record: { readonly extra: Extra }, key: string): boolean {
  return Object.hasOwn(record.extra, key) && record.extra[key] === true;
}

export function extraTexts(record: { readonly extra: Extra }, key: string): readonly string[] {
  const value = Object.hasOwn(record.extra, key) ? record.extra[key] : undefined;
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === "string") : [];
}

/** Also says when it changed. */
export function changedExtra(
  record: { readonly extra: Extra },
  now: number,
  set: Record<string, Json> = {},
): Extra {
  return {
    ...record.extra,
    ...set,
    updatedAt: now,
    revision: (extraNumber(record, "revision") ?? 0) + 1,
  };
}
