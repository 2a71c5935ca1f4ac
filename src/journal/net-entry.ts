/** What a queue of changes amounts to for one resource. */
import type { ResourceId } from "#kernel/ids.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource, ResourceKind, Tags } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";

/** Which commands a net change stands for: `count` of them, the first and the last by position. */
export interface Span {
  readonly count: number;
  readonly first: number;
  readonly last: number;
}

interface Created {
  readonly tick: number;
  resource: Resource;
  readonly aliases: Set<ResourceId>;
  /** When it was last said what it refers to. */
  referred: number;
}

interface Updated {
  set: Record<string, unknown>;
  tick: number;
  /** When references were set first and last; absent where the update sets none. */
  references: { readonly first: number; readonly last: number } | undefined;
}

/**
 * A resource that the queue touches. `tick`s order events within the queue. The parts happen in the order in which
 * they stand here; absent ones did not happen, or cancelled each other out.
 */
export interface NetEntry {
  readonly kind: ResourceKind;
  readonly id: ResourceId;
  span: Span;
  /** It was there before the queue, and the queue deletes it. `moved`: when an update that went with it first moved its references. */
  deleted: { readonly tick: number; readonly moved?: number | undefined } | undefined;
  /** The queue creates it; later updates and tags are part of the resource here. */
  created: Created | undefined;
  /** It was there before the queue, which changes it. */
  updated: Updated | undefined;
  /** Tag key -> new value, or null for removal. */
  tagged: { readonly keys: Map<string, string | null>; tick: number } | undefined;
  /** Created and deleted by the queue, but something that stays was made with it (a server with its key pair). */
  spent: { readonly tick: number } | undefined;
}

export function extendSpan(span: Span | undefined, position: number): Span {
  if (span === undefined) return { count: 1, first: position, last: position };
  return span.last === position ? span : { count: span.count + 1, first: span.first, last: position };
}

/** As `EnvironmentState` follows them: by the id that the reference names, not by an alias. */
export function referenceKeys(resource: Resource): string[] {
  return referencesOf(resource).map((reference) => resourceKey(reference.kind, reference.id));
}

/** The references that a partial spec sets. The padding stands in for fields that `referencesOf` reads unasked. */
export function referenceKeysSet(kind: ResourceKind, id: ResourceId, set: object): string[] {
  const padded = { kind, id, tags: {}, spec: { groupIds: [], peer: { cidr: "" }, ...set } };
  return referencesOf(padded as unknown as Resource)
    .filter((reference) => (reference.id as string | undefined) !== undefined)
    .map((reference) => resourceKey(reference.kind, reference.id));
}

const referenceFields = [
  "networkId",
  "subnetId",
  "groupIds",
  "groupId",
  "peer",
  "keyName",
  "volumeId",
  "serverId",
  "addressId",
];

export function setsReferences(set: object): boolean {
  return referenceFields.some((field) => field in set);
}

export function withTags(tags: Tags, set: Tags, remove: readonly string[]): Tags {
  const all = { ...tags, ...set };
  if (remove.length === 0) return all;
  const gone = new Set(remove);
  return Object.fromEntries(Object.entries(all).filter(([key]) => !gone.has(key)));
}
