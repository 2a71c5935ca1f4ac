/** From what the active side has to what the standby is asked for, still in the active side's ids. Pure. */
import type { Catalogue, CloudFacts } from "#cloud/contract.ts";
import { whyNotEnforced } from "#cloud/rule-forms.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Gap, GapCode } from "#model/gap.ts";
import type {
  AddressAssociationSpec,
  NetworkSpec,
  Resource,
  ResourceKind,
  ResourceOf,
  SecurityGroupRuleSpec,
  SecurityGroupSpec,
  ServerSpec,
  Tags,
  VolumeSpec,
} from "#model/resource.ts";
import { fitType, smallestType } from "./fit-type.ts";
import { coveringPrefix, formatIpv4Prefix, parseIpv4Prefix } from "./ipv4-prefix.ts";
import type { Content } from "./pairings.ts";
import type { Surroundings } from "./survey-environment.ts";
import { surveyEnvironment } from "./survey-environment.ts";

/** Explicit names of the target site for names of the source site; they win over every rule below. */
export interface Mappings {
  readonly types: Readonly<Record<string, string>>;
  readonly images: Readonly<Record<string, string>>;
  readonly zones: Readonly<Record<string, string>>;
}

export const noMappings: Mappings = { types: {}, images: {}, zones: {} };

export interface Translation {
  /** What the target site is able to. */
  readonly facts: CloudFacts;
  readonly source: Catalogue;
  readonly target: Catalogue;
  readonly mappings: Mappings;
  /** `smallest`: reserve servers of the smallest type, resized at takeover. */
  readonly sizing: "fit" | "smallest";
  /** Appended to names that must be unique in an account, so that a drill stands beside what it copies. */
  readonly nameSuffix: string;
}

/** `gap` alone: it has no counterpart at all. */
export type Translated = (Content & { readonly gaps: readonly Gap[] }) | { readonly gap: Gap };

export type Translator = (resource: Resource) => Translated;

/** Marks what has no resource of its own on the active side: the public address that a server was born with. */
const syntheticSuffix = "/public";

export function isSynthetic(id: string): boolean {
  return id.endsWith(syntheticSuffix);
}

/**
 * Adds what the target needs and the source has only as a property: where servers can't be given a public address at
 * their creation, an address and an association of their own.
 */
export function expandForTarget(resources: Iterable<Resource>, facts: CloudFacts): Resource[] {
  const all = [...resources];
  if (facts.publicAddressOnCreate) return all;
  const associated = new Set<string>();
  for (const resource of all) {
    if (resource.kind === "addressAssociation") associated.add(resource.spec.serverId);
  }
  for (const server of all.filter((one) => one.kind === "server")) {
    if (!server.spec.publicAddress || associated.has(server.id)) continue;
    const id = `${server.id}${syntheticSuffix}` as ResourceId;
    const tags: Tags = server.tags["Name"] === undefined ? {} : { Name: server.tags["Name"] };
    const spec: AddressAssociationSpec = { addressId: id, serverId: server.id };
    all.push({ kind: "address", id, spec: {}, tags }, { kind: "addressAssociation", id, spec, tags: {} });
  }
  return all;
}

function gapOf(resource: Resource, code: GapCode, severity: Gap["severity"], message: string): Gap {
  return { code, severity, resource: { kind: resource.kind, id: resource.id }, message };
}

/** Fields whose loss changes nothing that a user of the environment would see. */
const harmlessFields = new Set(["zone", "description", "publicAddresses", "type", "networkId", "cidr"]);

const protocolNames: Readonly<Record<string, string>> = {
  "-1": "all",
  "1": "icmp",
  "6": "tcp",
  "17": "udp",
  "58": "icmpv6",
};

/** A translator for one environment; `resources` is all of it that is wanted, since some fields follow from others. */
export function createTranslator(translation: Translation, resources: readonly Resource[]): Translator {
  const around = surveyEnvironment(resources);
  return (resource) => {
    if (!translation.facts.kinds[resource.kind]) {
      const message = `the standby site holds no ${resource.kind} resources: ${resource.id} is missing after a takeover`;
      return { gap: gapOf(resource, "kind.unsupported", "lost", message) };
    }
    const unenforced = unenforcedRule(translation, resource);
    if (unenforced !== undefined) return { gap: unenforced };
    const gaps: Gap[] = [];
    const spec = translateSpec(translation, around, resource, gaps);
    if ("gap" in spec) return spec;
    return {
      spec: withoutUnsupported(translation, resource, spec.spec, gaps),
      tags: limitTags(translation, resource, gaps),
      gaps,
    };
  };
}

/** What it lets through does not get through there: said, rather than opened to more than it names. */
function unenforcedRule({ facts }: Translation, resource: Resource): Gap | undefined {
  if (resource.kind !== "securityGroupRule") return undefined;
  const why = whyNotEnforced(facts.enforcedRules, ruleSpec(resource.spec));
  if (why === null) return undefined;
  const message = `the rule ${resource.id} is not held by the standby site: ${why}`;
  return gapOf(resource, "rule.unenforced", "degraded", message);
}

type SpecOrGap = { readonly spec: Resource["spec"] } | { readonly gap: Gap };

function translateSpec(
  translation: Translation,
  around: Surroundings,
  resource: Resource,
  gaps: Gap[],
): SpecOrGap {
  switch (resource.kind) {
    case "network":
      return networkSpec(translation, around, resource);
    case "subnet":
      return { spec: { ...resource.spec, ...zoneField(zoneFor(translation, resource.spec.zone)) } };
    case "securityGroup":
      return { spec: groupSpec(translation, around, resource) };
    case "securityGroupRule":
      return { spec: ruleSpec(resource.spec) };
    case "keyPair":
      return keyPairSpec(translation, resource);
    case "volume":
      return { spec: volumeSpec(translation, around, resource, gaps) };
    case "address":
      return { spec: {} };
    case "server":
      return serverSpec(translation, around, resource, gaps);
    case "volumeAttachment":
      return { spec: resource.spec };
    case "addressAssociation": {
      const { privateIp: _ofTheSource, ...spec } = resource.spec;
      return { spec };
    }
  }
}

function networkSpec(
  { facts }: Translation,
  around: Surroundings,
  resource: ResourceOf<"network">,
): SpecOrGap {
  const { cidr: own, ...rest } = resource.spec;
  if (!facts.networkNeedsCidr) return { spec: own === undefined ? rest : { ...rest, cidr: own } };
  if (own !== undefined) return { spec: resource.spec };
  const prefixes = (around.subnetsOf.get(resource.id) ?? []).flatMap(
    ({ cidr }) => parseIpv4Prefix(cidr) ?? [],
  );
  // Room for later subnets: at least a /16 wherever the subnets allow it.
  const cover = coveringPrefix(prefixes, 16);
  if (cover !== undefined && cover.length >= 16) {
    const spec: NetworkSpec = { ...rest, cidr: formatIpv4Prefix(cover) };
    return { spec };
  }
  const message =
    cover === undefined
      ? `network ${resource.id} has no prefix of its own and no subnet to derive one from: it is made with its first subnet`
      : `the subnets of network ${resource.id} lie too far apart for one /16, which is what the standby site can hold`;
  return { gap: gapOf(resource, "field.untranslated", cover === undefined ? "note" : "lost", message) };
}

function groupSpec(
  { facts, nameSuffix }: Translation,
  around: Surroundings,
  resource: ResourceOf<"securityGroup">,
): SecurityGroupSpec {
  const { networkId: own, ...spec } = resource.spec;
  const placed = !(facts.unsupportedFields.securityGroup ?? []).includes("networkId");
  const networkId =
    own ?? (placed ? (around.networkOfGroup.get(resource.id) ?? around.anyNetwork) : undefined);
  const name = `${around.groupNames.get(resource.id) ?? spec.name}${nameSuffix}`;
  return { ...spec, name, ...(networkId === undefined ? {} : { networkId }) };
}

function ruleSpec(spec: SecurityGroupRuleSpec): SecurityGroupRuleSpec {
  const named = protocolNames[spec.protocol] ?? spec.protocol;
  const sixth = "cidr" in spec.peer && spec.peer.cidr.includes(":");
  return { ...spec, protocol: named === "icmp" && sixth ? "icmpv6" : named };
}

function keyPairSpec({ nameSuffix }: Translation, resource: ResourceOf<"keyPair">): SpecOrGap {
  const { name, publicKey } = resource.spec;
  if (publicKey !== undefined) return { spec: { name: `${name}${nameSuffix}`, publicKey } };
  const message = `the public key of key pair ${name} is not known: its servers are made without it`;
  return { gap: gapOf(resource, "reference.missing", "degraded", message) };
}

function volumeSpec(
  translation: Translation,
  around: Surroundings,
  resource: ResourceOf<"volume">,
  gaps: Gap[],
): VolumeSpec {
  // A volume type is a name of the source site's own, and no catalogue says what it is.
  const { zone, snapshotId, type: _ofTheSource, ...spec } = resource.spec;
  if (snapshotId !== undefined) gaps.push(notCaptured(resource, `snapshot ${snapshotId}`));
  const server = around.servers.get(around.serverOfVolume.get(resource.id) ?? "");
  const wanted =
    server === undefined ? zoneFor(translation, zone) : (serverZone(translation, around, server) ?? zone);
  return { ...spec, ...zoneField(wanted) };
}

function notCaptured(resource: Resource, what: string): Gap {
  const message = `the content of ${what} is not on the standby site: ${resource.id} gets an empty disk of the same size`;
  return gapOf(resource, "data.not_captured", "degraded", message);
}

/** A volume and its server must be in one zone, and a server is in the zone of its subnet. */
function serverZone(translation: Translation, around: Surroundings, server: ServerSpec): string | undefined {
  const subnet = server.subnetId === undefined ? undefined : around.subnets.get(server.subnetId);
  const subnetsHaveZones = !(translation.facts.unsupportedFields.subnet ?? []).includes("zone");
  if (subnet === undefined || !subnetsHaveZones) return zoneFor(translation, server.zone ?? subnet?.zone);
  return zoneFor(translation, subnet.zone);
}

function serverSpec(
  translation: Translation,
  around: Surroundings,
  resource: ResourceOf<"server">,
  gaps: Gap[],
): SpecOrGap {
  const { spec } = resource;
  const image = mapImage(translation, spec.imageId);
  if (image === undefined) {
    const name = translation.source.images.find(({ id }) => id === spec.imageId)?.name;
    const message = `image ${spec.imageId}${name === undefined ? "" : ` (${name})`} of server ${resource.id} has no counterpart on the standby site: add it under \`images\``;
    return { gap: gapOf(resource, "image.unmapped", "lost", message) };
  }
  const type = mapType(translation, spec.type, image);
  if (type === undefined) {
    const message = `no type of the standby site is as large as ${spec.type} of server ${resource.id}: add it under \`types\``;
    return { gap: gapOf(resource, "type.unmapped", "lost", message) };
  }
  const { zone: _zone, userData, privateIp, ...rest } = spec;
  const fits =
    userData === undefined || Buffer.byteLength(userData, "base64") <= translation.facts.maxUserDataBytes;
  if (!fits) {
    const message = `the user data of server ${resource.id} is larger than the ${translation.facts.maxUserDataBytes} bytes that the standby site takes: the server starts without it`;
    gaps.push(gapOf(resource, "field.untranslated", "degraded", message));
  }
  const blockDevices = spec.blockDevices.map(({ type: _type, snapshotId, ...device }) => {
    if (snapshotId !== undefined) gaps.push(notCaptured(resource, `snapshot ${snapshotId}`));
    return device;
  });
  const server: ServerSpec = {
    ...rest,
    imageId: image,
    type,
    blockDevices,
    publicAddress: spec.publicAddress && translation.facts.publicAddressOnCreate,
    ...zoneField(serverZone(translation, around, spec)),
    ...(userData === undefined || !fits ? {} : { userData }),
    ...(privateIp === undefined ? {} : { privateIp }),
  };
  return { spec: server };
}

function mapImage({ mappings, source, target }: Translation, imageId: string): string | undefined {
  const name = source.images.find(({ id }) => id === imageId)?.name;
  const explicit =
    own(mappings.images, imageId) ?? (name === undefined ? undefined : own(mappings.images, name));
  if (explicit !== undefined) {
    return target.images.find((image) => image.id === explicit || image.name === explicit)?.id ?? explicit;
  }
  if (name === undefined) return undefined;
  return target.images
    .filter((image) => image.name === name)
    .map(({ id }) => id)
    .toSorted()[0];
}

function mapType(translation: Translation, typeName: string, imageId: string): string | undefined {
  const { mappings, source, target, sizing } = translation;
  const known = source.types.find(({ name }) => name === typeName);
  if (sizing === "smallest") {
    const architecture =
      known?.architecture ?? target.images.find(({ id }) => id === imageId)?.architecture ?? "x86_64";
    const smallest = smallestType(architecture, target)?.name;
    if (smallest !== undefined) return smallest;
  }
  const explicit = own(mappings.types, typeName);
  if (explicit !== undefined) return explicit;
  return known === undefined ? undefined : fitType(known, target)?.name;
}

function own(record: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

/** By the table; else the same name; else zones of the source are dealt out over the target's in their order. */
function zoneFor({ mappings, source, target }: Translation, zone: string | undefined): string | undefined {
  if (target.zones.length === 0) return undefined;
  const zones = target.zones.toSorted();
  if (zone === undefined) return zones[0];
  const explicit = own(mappings.zones, zone);
  if (explicit !== undefined) return explicit;
  if (zones.includes(zone)) return zone;
  const known = source.zones.toSorted().indexOf(zone);
  const index = known >= 0 ? known : zone.charCodeAt(zone.length - 1);
  const dealt = zones[index % zones.length];
  invariant(dealt !== undefined, "a remainder is an index");
  return dealt;
}

function zoneField(zone: string | undefined): { readonly zone?: string } {
  return zone === undefined ? {} : { zone };
}

function withoutUnsupported(
  { facts }: Translation,
  resource: Resource,
  spec: Resource["spec"],
  gaps: Gap[],
): Resource["spec"] {
  const unsupported = facts.unsupportedFields[resource.kind];
  if (unsupported === undefined) return spec;
  const kept = new Map(Object.entries(spec));
  for (const field of unsupported) {
    const value: unknown = kept.get(field);
    if (!kept.delete(field) || harmlessFields.has(field)) continue;
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) continue;
    const message = `the standby site has no \`${field}\` for ${resource.kind} ${resource.id}: it is left out`;
    gaps.push(gapOf(resource, "field.untranslated", "degraded", message));
  }
  return Object.fromEntries(kept);
}

const linkKinds: ReadonlySet<ResourceKind> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

/** Two are ours: the scope and, where the cloud needs it, the token. */
const ownTags = 2;

function limitTags({ facts }: Translation, resource: Resource, gaps: Gap[]): Tags {
  const names = Object.keys(resource.tags);
  if (linkKinds.has(resource.kind)) {
    if (names.length > 0) {
      const message = `the tags of ${resource.kind} ${resource.id} stay on the active site: few clouds have tags there`;
      gaps.push(gapOf(resource, "field.untranslated", "note", message));
    }
    return {};
  }
  const limit = facts.maxTagsPerResource - ownTags;
  if (names.length <= limit) return resource.tags;
  const rest = names.filter((name) => name !== "Name").toSorted();
  const kept = [...(names.includes("Name") ? ["Name"] : []), ...rest].slice(0, Math.max(0, limit));
  const message = `${resource.kind} ${resource.id} has ${names.length} tags, the standby site takes ${limit} beside its own: ${names.length - kept.length} are left out`;
  gaps.push(gapOf(resource, "field.untranslated", "note", message));
  return Object.fromEntries(kept.map((name) => [name, resource.tags[name] ?? ""]));
}
