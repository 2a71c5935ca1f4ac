/** Pages of Nova's, Cinder's and Glance's listings: `limit` and `marker`, with a link to the next one. */
import type { Call } from "./api-call.ts";
import { badRequest, quoted } from "./api-error.ts";

export const MAX_PAGE = 1000;

export interface MarkerPage<T> {
  readonly items: readonly T[];
  /** Query of the next page; undefined after the last one. */
  readonly next: string | undefined;
}

function limitOf(call: Call): number {
  const text = call.query.get("limit");
  if (text === null) return MAX_PAGE;
  if (!/^[0-9]{1,9}$/.test(text)) {
    throw badRequest(`Invalid input for query parameters limit. Value: ${quoted(text)}.`);
  }
  return Math.min(Number(text), MAX_PAGE);
}

/** `keyOf`: what a marker names; default the id. A limit of 0 is one of `MAX_PAGE` in Nova, so here too. */
export function markerPage<T extends { readonly id: string }>(
  call: Call,
  all: readonly T[],
  keep: (item: T) => boolean,
  keyOf: (item: T) => string = ({ id }) => id,
): MarkerPage<T> {
  const limit = limitOf(call) || MAX_PAGE;
  const marker = call.query.get("marker");
  let at = marker === null || marker === "" ? 0 : all.findIndex((item) => keyOf(item) === marker) + 1;
  if (marker !== null && marker !== "" && at === 0) throw badRequest(`marker [${quoted(marker)}] not found`);
  const items: T[] = [];
  for (; at < all.length; at += 1) {
    const item = all[at] as T;
    if (!keep(item)) continue;
    const last = items.at(-1);
    if (items.length === limit && last !== undefined) {
      const search = new URLSearchParams(call.query);
      search.set("marker", keyOf(last));
      return { items, next: search.toString() };
    }
    items.push(item);
  }
  return { items, next: undefined };
}

export function nextLinks(collection: string, url: string, next: string | undefined): object {
  return next === undefined ? {} : { [`${collection}_links`]: [{ rel: "next", href: `${url}?${next}` }] };
}
