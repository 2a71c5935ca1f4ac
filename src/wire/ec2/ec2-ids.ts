/** EC2 ids: their prefix tells the kind. https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/resource-ids.html */
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind } from "#model/resource.ts";

const kindByPrefix: ReadonlyMap<string, ResourceKind> = new Map([
  ["i", "server"],
  ["vpc", "network"],
  ["subnet", "subnet"],
  ["sg", "securityGroup"],
  ["sgr", "securityGroupRule"],
  ["vol", "volume"],
  ["eipalloc", "address"],
  ["key", "keyPair"],
]);

/** `undefined`: not one of the model's kinds. */
export function kindOfEc2Id(id: string): ResourceKind | undefined {
  const prefix = /^([a-z]+)-[0-9a-z]+$/.exec(id)?.[1];
  return prefix === undefined ? undefined : kindByPrefix.get(prefix);
}

/**
 * An address has at most one association, so that a new one replaces the old one, as EC2 does. The `eipassoc-...` of
 * each is an alias of it.
 */
export function addressAssociationId(addressId: string): ResourceId {
  return `${addressId}/association` as ResourceId;
}

/** `undefined`: not an id that `addressAssociationId` made. */
export function addressOfAssociation(associationId: string): ResourceId | undefined {
  const suffix = "/association";
  return associationId.endsWith(suffix) ? (associationId.slice(0, -suffix.length) as ResourceId) : undefined;
}
