import type { ResourceKind } from "#model/resource.ts";

const linkKinds: ReadonlySet<ResourceKind> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

/** Links end with either of their ends; everything else has to be let go of first. */
export function isLink(kind: ResourceKind): boolean {
  return linkKinds.has(kind);
}
