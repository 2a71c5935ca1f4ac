/** One kind's part of the driver; `openstack-cloud.ts` puts them together. */
import type { CreateRequest, ListFilter, Observed } from "#cloud/contract.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceSpecs, Tags } from "#model/resource.ts";
import type { MappedResource } from "#wire/openstack/openstack-resources.ts";
import { scopeDigestOf } from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";

export interface KindDriver<K extends ResourceKind> {
  create(request: CreateRequest<K>, calls: Calls): Promise<MappedResource<K>>;
  get(id: ResourceId, calls: Calls): Promise<MappedResource<K> | undefined>;
  /** May yield more than the filter asks for: `found` says what each is, and the caller sifts. */
  list(filter: ListFilter, calls: Calls): AsyncIterable<readonly Found<K>[]>;
  update(id: ResourceId, set: Partial<ResourceSpecs[K]>, calls: Calls): Promise<void>;
  setTags(id: ResourceId, set: Tags, remove: readonly string[], calls: Calls): Promise<void>;
  delete(id: ResourceId, calls: Calls): Promise<void>;
}

export interface Found<K extends ResourceKind> {
  readonly mapped: MappedResource<K>;
  /** Digest of the scope that it was made for; `undefined`: not made by us. */
  readonly scopeDigest: string | undefined;
}

export function sift<K extends ResourceKind>(found: readonly Found<K>[], filter: ListFilter): Observed<K>[] {
  const digest = filter.scope === undefined ? undefined : scopeDigestOf(filter.scope);
  const ids = filter.ids === undefined ? undefined : new Set<string>(filter.ids);
  const tags = Object.entries(filter.tags ?? {});
  return found
    .filter(({ mapped, scopeDigest }) => {
      if (digest !== undefined && scopeDigest !== digest) return false;
      if (ids !== undefined && !ids.has(mapped.resource.id)) return false;
      return tags.every(([key, value]) => mapped.resource.tags[key] === value);
    })
    .map(({ mapped }) => mapped as unknown as Observed<K>);
}

export function cannotUpdate(kind: ResourceKind, fields: readonly string[]): OperationalError {
  return new OperationalError(
    "cloud.unsupported",
    `OpenStack cannot change ${fields.join(", ")} of a ${kind}: replace the ${kind}`,
  );
}

/** Throws unless every named field is one of `able`. */
export function onlyUpdates(kind: ResourceKind, set: object, able: readonly string[]): void {
  const others = Object.entries(set)
    .filter(([field, value]) => value !== undefined && !able.includes(field))
    .map(([field]) => field);
  if (others.length > 0) throw cannotUpdate(kind, others);
}

export function noTags(kind: ResourceKind): OperationalError {
  return new OperationalError("cloud.unsupported", `OpenStack has no tags on a ${kind}`);
}
