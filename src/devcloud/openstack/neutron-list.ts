/** Neutron's listings: filters on any attribute, tags, fields, sort and pages, the same for every kind. */
import { type Answer, json } from "./answer.ts";
import type { Call } from "./api-call.ts";
import { badRequest, quoted } from "./api-error.ts";

export type Body = Readonly<Record<string, unknown>>;

export interface Listing<T extends { readonly id: string }> {
  /** `networks`, as in path and body. */
  readonly collection: string;
  readonly records: readonly T[];
  readonly body: (record: T) => Body;
  /** Attributes with a filter of another form; true: keeps it. */
  readonly special?: Readonly<Record<string, (record: T, values: readonly string[]) => boolean>>;
  /** Absent: all are shown. */
  readonly visible?: (record: T) => boolean;
  /** What may be filtered and sorted by. */
  readonly attributes: readonly string[];
}

const pageParameters = new Set(["limit", "marker", "page_reverse", "sort_key", "sort_dir", "fields"]);
const tagFilters = new Set(["tags", "tags-any", "not-tags", "not-tags-any"]);
const MAX_LIMIT = 10_000;

function matches(value: unknown, wanted: readonly string[]): boolean {
  if (typeof value === "boolean") return wanted.some((text) => text.toLowerCase() === String(value));
  if (Array.isArray(value)) return wanted.some((text) => value.includes(text));
  if (value === null || value === undefined) return wanted.some((text) => text === "" || text === "None");
  return wanted.some((text) => text === (typeof value === "string" ? value : JSON.stringify(value)));
}

function tagsMatch(name: string, tags: readonly string[], values: readonly string[]): boolean {
  const wanted = values.flatMap((value) => value.split(","));
  switch (name) {
    case "tags":
      return wanted.every((tag) => tags.includes(tag));
    case "tags-any":
      return wanted.some((tag) => tags.includes(tag));
    case "not-tags":
      return !wanted.every((tag) => tags.includes(tag));
    default:
      return !wanted.some((tag) => tags.includes(tag));
  }
}

function filtersOf(query: URLSearchParams): Map<string, string[]> {
  const filters = new Map<string, string[]>();
  for (const [name, value] of query) {
    if (pageParameters.has(name)) continue;
    const values = filters.get(name);
    if (values === undefined) filters.set(name, [value]);
    else values.push(value);
  }
  return filters;
}

function checkFilters<T extends { readonly id: string }>(listing: Listing<T>, names: Iterable<string>): void {
  const known = (name: string): boolean =>
    tagFilters.has(name) || listing.attributes.includes(name) || Object.hasOwn(listing.special ?? {}, name);
  const unknown = [...names].filter((name) => !known(name));
  if (unknown.length === 0) return;
  throw badRequest(
    `Invalid input for operation: ${quoted(JSON.stringify(unknown))} is invalid attribute for filtering.`,
    "InvalidInput",
  );
}

function compiled<T extends { readonly id: string }>(
  listing: Listing<T>,
  query: URLSearchParams,
): (record: T, body: Body) => boolean {
  const filters = filtersOf(query);
  checkFilters(listing, filters.keys());
  return (record, body) => {
    for (const [name, values] of filters) {
      const special = Object.hasOwn(listing.special ?? {}, name) ? listing.special?.[name] : undefined;
      const kept =
        special !== undefined
          ? special(record, values)
          : tagFilters.has(name)
            ? tagsMatch(name, (body["tags"] as readonly string[] | undefined) ?? [], values)
            : matches(body[name], values);
      if (!kept) return false;
    }
    return true;
  };
}

export function limitOf(query: URLSearchParams): number | undefined {
  const text = query.get("limit");
  if (text === null) return undefined;
  if (!/^[0-9]{1,9}$/.test(text)) {
    throw badRequest(`Bad limit request: 'limit' must be an integer 0 or greater and not '${quoted(text)}'.`);
  }
  const limit = Math.min(Number(text), MAX_LIMIT);
  return limit === 0 ? undefined : limit;
}

function sorted<T extends { readonly id: string }>(
  listing: Listing<T>,
  query: URLSearchParams,
): readonly T[] {
  const key = query.get("sort_key");
  if (key === null || key === "id" || key === "created_at") return listing.records;
  if (!listing.attributes.includes(key)) throw badRequest(`${quoted(key)} is invalid attribute for sort_key`);
  const sign = query.get("sort_dir") === "desc" ? -1 : 1;
  return [...listing.records]
    .map((record) => ({ record, by: String(listing.body(record)[key]) }))
    .sort((a, b) => sign * (a.by < b.by ? -1 : a.by > b.by ? 1 : 0))
    .map(({ record }) => record);
}

function picked(body: Body, fields: readonly string[]): Body {
  return fields.length === 0
    ? body
    : Object.fromEntries(fields.filter((f) => f in body).map((f) => [f, body[f]]));
}

export function listAnswer<T extends { readonly id: string }>(call: Call, listing: Listing<T>): Answer {
  const { query } = call;
  const { collection } = listing;
  const keep = compiled(listing, query);
  const limit = limitOf(query);
  const fields = query.getAll("fields").flatMap((text) => text.split(","));
  const records = sorted(listing, query);
  const marker = query.get("marker");
  let at = marker === null ? 0 : records.findIndex(({ id }) => id === marker) + 1;
  if (marker !== null && at === 0) {
    throw badRequest(`Invalid input for operation: marker ${quoted(marker)} is not there.`, "InvalidInput");
  }
  const page: Body[] = [];
  const most = limit ?? records.length;
  for (; at < records.length && page.length < most; at += 1) {
    const record = records[at] as T;
    if (listing.visible?.(record) === false) continue;
    const body = listing.body(record);
    if (keep(record, body)) page.push(body);
  }
  const links: object[] = [];
  const last = page.at(-1);
  const link = (rel: string, change: (search: URLSearchParams) => void): void => {
    const search = new URLSearchParams(query);
    change(search);
    links.push({
      rel,
      href: `${call.base}/networking/v2.0/${collection.replaceAll("_", "-")}?${search.toString()}`,
    });
  };
  // As Neutron: a full page has a next link, even where nothing follows.
  if (limit !== undefined && last !== undefined && page.length === limit) {
    link("next", (search) => search.set("marker", String(last["id"])));
  }
  if (marker !== null) {
    link("previous", (search) => {
      search.set("page_reverse", "True");
      if (page[0] !== undefined) search.set("marker", String(page[0]["id"]));
    });
  }
  return json(200, {
    [collection]: page.map((body) => picked(body, fields)),
    ...(links.length === 0 ? {} : { [`${collection}_links`]: links }),
  });
}

/** `fixed_ips=subnet_id=X`: name and value of each. */
export function subFilters(values: readonly string[]): (readonly [string, string])[] {
  return values.map((value) => {
    const at = value.indexOf("=");
    return [value.slice(0, Math.max(0, at)), value.slice(at + 1)] as const;
  });
}
