/** One effect of a command on one resource. A command has any number of them; a refused command has none. */
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceOf, ResourceSpecs, Tags } from "#model/resource.ts";

export type CreateOf<K extends ResourceKind> = ResourceOf<K> & {
  readonly type: "create";
  /** Other ids under which later commands may name it, e.g. a rule's `sgr-...`. */
  readonly aliases?: readonly ResourceId[];
};

export interface UpdateOf<K extends ResourceKind> {
  readonly type: "update";
  readonly kind: K;
  readonly id: ResourceId;
  readonly set: Partial<ResourceSpecs[K]>;
}

export type CreateChange = { [K in ResourceKind]: CreateOf<K> }[ResourceKind];
export type UpdateChange = { [K in ResourceKind]: UpdateOf<K> }[ResourceKind];

export interface TagChange {
  readonly type: "tag";
  readonly kind: ResourceKind;
  readonly id: ResourceId;
  readonly set: Tags;
  readonly remove: readonly string[];
}

/** Links to the deleted resource end with it, and volumes attached with `deleteOnTermination`. */
export interface DeleteChange {
  readonly type: "delete";
  readonly kind: ResourceKind;
  readonly id: ResourceId;
}

export type Change = CreateChange | UpdateChange | TagChange | DeleteChange;
