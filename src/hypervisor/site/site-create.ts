/** How a resource of a bare host's site comes to be, in a draft of its records. */
import { isUtf8 } from "node:buffer";
import type { CreateRequest } from "#cloud/contract.ts";
import { refuse } from "#cloud/resource-book.ts";
import { forwardedRules, whyNotEnforced } from "#cloud/rule-forms.ts";
import { hasFreeMemory } from "#hypervisor/guests/host-capacity.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import {
  type Resource,
  type ResourceKind,
  type ResourceSpecs,
  securityGroupRuleId,
  type ServerSpec,
  volumeAttachmentId,
} from "#model/resource.ts";
import { checkCapacity, checkDisksOf, useOf } from "./site-capacity.ts";
import { freeAddress, type SiteSettings } from "./site-settings.ts";
import type { OwnDisk, SiteBook, SiteRecord } from "./site-store.ts";

export interface CreateParts {
  readonly settings: SiteSettings;
  readonly random: Random;
}

const prefixes = {
  network: "net",
  subnet: "sub",
  securityGroup: "grp",
  volume: "vol",
  address: "adr",
  server: "srv",
} as const;

/** Makes it in the draft, or finds what the token made before. Errors: `cloud.*`. */
export function createIn(
  draft: SiteBook,
  request: CreateRequest<ResourceKind>,
  parts: CreateParts,
): ResourceId {
  const { settings } = parts;
  const known = draft.byToken(request.token);
  if (known !== undefined) {
    if (known.resource.kind === request.kind) return known.resource.id;
    const message = `the token ${request.token} was used for a ${known.resource.kind}`;
    throw refuse("cloud.conflict", "TokenMismatch", message, { retry: "never" });
  }
  const resource = resourceOf(request, parts.random);
  const twin = resource.kind === "keyPair" ? undefined : draft.get(resource.kind, resource.id);
  if (twin !== undefined && isSameLink(twin.resource, resource)) return resource.id;
  if (resource.kind === "securityGroupRule") refuseUnlessEnforced(resource.spec, settings.outbound);
  if (resource.kind === "server") refuseUnlessText(resource.spec);
  draft.check(resource);
  const before = useOf(draft, settings);
  const record: SiteRecord = {
    resource,
    scope: request.scope,
    token: request.token,
    boot: 1,
    ownDisks: resource.kind === "server" ? ownDisksOf(resource.spec, parts) : [],
    privateIp: null,
    publicIp: null,
  };
  if (resource.kind === "server") {
    // One address: a host's guests are reached at the host's own, from inside and outside.
    record.privateIp = takeAddress(draft, settings);
    if (resource.spec.publicAddress) record.publicIp = record.privateIp;
    refuseWithoutMemory(resource, settings);
  }
  draft.insert(record);
  checkCapacity(before, draft, settings);
  if (resource.kind === "server") checkDisksOf(draft, resource.id);
  if (resource.kind === "volumeAttachment") checkDisksOf(draft, resource.spec.serverId);
  return resource.id;
}

function resourceOf({ kind, spec, tags }: CreateRequest<ResourceKind>, random: Random): Resource {
  const resource = { kind, id: "" as ResourceId, spec, tags } as Resource;
  const id = (text: string): Resource => ({ ...resource, id: text as ResourceId });
  switch (resource.kind) {
    case "keyPair":
      return id(resource.spec.name);
    case "securityGroupRule":
      return id(securityGroupRuleId(resource.spec));
    case "volumeAttachment":
      return id(volumeAttachmentId(resource.spec.volumeId, resource.spec.serverId));
    case "addressAssociation":
      return id(`${resource.spec.addressId}/association`);
    case "network":
    case "subnet":
    case "securityGroup":
    case "volume":
    case "address":
    case "server":
      return id(`${prefixes[resource.kind]}-${random.hex(8)}`);
  }
}

function ownDisksOf(
  { imageId, blockDevices }: ServerSpec,
  { settings, random }: CreateParts,
): readonly OwnDisk[] {
  const newId = (): string => `vol-${random.hex(8)}`;
  const disk = settings.images[imageId]?.disk;
  const root: OwnDisk[] =
    disk === undefined
      ? []
      : [{ id: newId(), sizeGiB: disk.sizeGiB, device: "root", deleteOnTermination: true }];
  return [
    ...root,
    ...blockDevices.map(({ device, sizeGiB, deleteOnTermination }) => ({
      id: newId(),
      sizeGiB,
      device,
      deleteOnTermination,
    })),
  ];
}

/** What the host has free at this moment, whoever uses the rest. Errors: `cloud.quota`. */
export function refuseWithoutMemory(resource: Resource, { name, types }: SiteSettings): void {
  if (resource.kind !== "server" || resource.spec.power !== "running") return;
  const memoryMiB = types[resource.spec.type]?.memoryMiB ?? 0;
  if (hasFreeMemory(memoryMiB)) return;
  throw refuse(
    "cloud.quota",
    "HostFull",
    `host ${name} has no ${memoryMiB} MiB of memory free now: something else uses it`,
  );
}

/** Errors: `cloud.quota`. */
export function takeAddress(book: SiteBook, { name, addresses }: SiteSettings): string {
  const taken = new Set<string>();
  for (const { privateIp, publicIp } of book.records()) {
    if (privateIp !== null) taken.add(privateIp);
    if (publicIp !== null) taken.add(publicIp);
  }
  const address = freeAddress(addresses, taken);
  if (address !== undefined) return address;
  throw refuse("cloud.quota", "NoFreeAddress", `all addresses of host ${name} are taken: give it more`);
}

/** A rule that would let in more than it says is refused. */
function refuseUnlessEnforced(spec: ResourceSpecs["securityGroupRule"], outbound: boolean): void {
  const why = whyNotEnforced(forwardedRules(outbound), spec);
  if (why === null) return;
  throw refuse(
    "cloud.unsupported",
    "RuleNotEnforced",
    `${securityGroupRuleId(spec)} is not enforced: ${why}`,
  );
}

/** Guests are given text, on a disk that cloud-init reads. */
export function refuseUnlessText({ userData }: ServerSpec): void {
  if (userData === undefined || isUtf8(Buffer.from(userData, "base64"))) return;
  throw refuse(
    "cloud.unsupported",
    "UserDataNotText",
    "user data there is text: compressed or binary data is not taken",
  );
}

/** A link is its content: the same one again is the same one. */
function isSameLink(held: Resource, asked: Resource): boolean {
  if (held.kind !== "addressAssociation" || asked.kind !== "addressAssociation") return true;
  return held.spec.serverId === asked.spec.serverId;
}
