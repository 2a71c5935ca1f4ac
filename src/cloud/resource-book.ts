/**
 * What a cloud of our own holds, and the rules that every cloud has about it: references, duplicates, dependants, quotas. The
 * simulated cloud and the site of a bare host keep one; what they do about it (nothing, machines) is theirs.
 */
import type { Catalogue } from "#cloud/contract.ts";
import type { ErrorCode, OperationalErrorOptions } from "#kernel/errors.ts";
import { OperationalError } from "#kernel/errors.ts";
import { unreachable } from "#kernel/invariant.ts";
import type { Resource, ResourceKind, ResourceOf } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import { contains, formatIpv4, holdsAddress, overlaps, parseIpv4Range } from "./ipv4-range.ts";

export interface BookRecord {
  resource: Resource;
  readonly scope: string;
  readonly token: string;
  /** A server's; null when it is inserted: a free one of its subnet. */
  privateIp: string | null;
  publicIp: string | null;
}

export type BookQuotas = Readonly<Partial<Record<ResourceKind | "vcpus", number>>>;

export interface BookOptions {
  /** Begins sentences: `the simulated cloud`. */
  readonly cloud: string;
  readonly catalogue: Catalogue;
  readonly quotas: BookQuotas;
  /** One that nobody has; errors are thrown by the insert. */
  readonly takePublicAddress: () => string;
}

export function refuse(
  code: ErrorCode,
  remoteCode: string,
  message: string,
  options: OperationalErrorOptions = {},
): OperationalError {
  return new OperationalError(code, message, { ...options, remoteCode });
}

/** Kinds that end with what they refer to, rather than keep it from being deleted. */
const linkKinds: ReadonlySet<ResourceKind> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

const keyOf = (kind: ResourceKind, id: string): string => `${kind}:${id}`;

export class ResourceBook<Record extends BookRecord> {
  readonly #records = new Map<string, Record>();
  readonly #byKind = new Map<ResourceKind, Map<string, Record>>();
  /** Key of a resource -> keys of what refers to it. */
  readonly #dependants = new Map<string, Set<string>>();
  readonly #byToken = new Map<string, Record>();
  readonly #usedIps = new Set<string>();
  readonly #nextHost = new Map<string, number>();
  readonly #options: BookOptions;
  #vcpus = 0;

  constructor(options: BookOptions) {
    this.#options = options;
  }

  get(kind: ResourceKind, id: string): Record | undefined {
    return this.#records.get(keyOf(kind, id));
  }

  byToken(token: string): Record | undefined {
    return this.#byToken.get(token);
  }

  *records(kind?: ResourceKind): Iterable<Record> {
    yield* kind === undefined ? this.#records.values() : (this.#byKind.get(kind)?.values() ?? []);
  }

  /** Adds what passed `check`; hands out addresses. */
  insert(record: Record): void {
    const { resource } = record;
    if (resource.kind === "server") {
      record.privateIp ??= this.#allocatePrivate(resource);
      if (resource.spec.publicAddress) record.publicIp ??= this.#options.takePublicAddress();
    }
    if (resource.kind === "address") {
      record.publicIp ??= this.#options.takePublicAddress();
      record.resource = { ...resource, spec: { ...resource.spec, publicIp: record.publicIp } };
    }
    this.restore(record);
  }

  /** Adds what was held before, as it was. */
  restore(record: Record): void {
    const { resource, privateIp } = record;
    const key = keyOf(resource.kind, resource.id);
    this.#records.set(key, record);
    const sameKind = this.#byKind.get(resource.kind) ?? new Map<string, Record>();
    sameKind.set(key, record);
    this.#byKind.set(resource.kind, sameKind);
    this.#byToken.set(record.token, record);
    this.#link(resource, key);
    if (resource.kind !== "server") return;
    this.#vcpus += this.#vcpusOf(resource.spec.type);
    this.#usedIps.add(`${resource.spec.subnetId ?? ""}/${privateIp ?? ""}`);
  }

  replace(record: Record, next: Resource): void {
    const key = keyOf(next.kind, next.id);
    this.#unlink(record.resource, key);
    if (record.resource.kind === "server" && next.kind === "server") {
      this.#vcpus += this.#vcpusOf(next.spec.type) - this.#vcpusOf(record.resource.spec.type);
    }
    record.resource = next;
    this.#link(next, key);
  }

  /** Removes it with its links; refuses while something else depends on it. */
  remove(kind: ResourceKind, id: string): void {
    const record = this.get(kind, id);
    if (record === undefined) return;
    const dependants = this.dependants(kind, id);
    const blocker = dependants.find(({ resource }) => !linkKinds.has(resource.kind));
    if (blocker !== undefined) {
      const { resource } = blocker;
      throw refuse(
        "cloud.conflict",
        "DependencyViolation",
        `${kind} ${id} is in use by ${resource.kind} ${resource.id}: delete that first`,
      );
    }
    for (const { resource } of dependants) {
      this.remove(resource.kind, resource.id);
      if (kind === "server" && resource.kind === "volumeAttachment" && resource.spec.deleteOnTermination) {
        this.remove("volume", resource.spec.volumeId);
      }
    }
    this.#drop(record);
  }

  dependants(kind: ResourceKind, id: string): Record[] {
    return [...(this.#dependants.get(keyOf(kind, id)) ?? [])].flatMap((key) => this.#records.get(key) ?? []);
  }

  /** Throws as a cloud refuses: unknown references, duplicates, bad values, quotas. */
  check(resource: Resource): void {
    for (const { kind, id } of referencesOf(resource)) {
      if (this.get(kind, id) !== undefined) continue;
      throw refuse("cloud.not_found", `Invalid.${kind}.NotFound`, `there is no ${kind} ${id}`);
    }
    this.#checkQuota(resource);
    switch (resource.kind) {
      case "network":
        if (resource.spec.cidr !== undefined && parseIpv4Range(resource.spec.cidr) === undefined) {
          throw this.#invalid(`${resource.spec.cidr} is not an IPv4 prefix`);
        }
        return;
      case "subnet":
        return this.#checkSubnet(resource);
      case "securityGroup": {
        const twin = this.#find(
          "securityGroup",
          ({ spec }) => spec.name === resource.spec.name && spec.networkId === resource.spec.networkId,
        );
        if (twin !== undefined)
          throw this.#duplicate(`a security group ${resource.spec.name} in that network`);
        return;
      }
      case "keyPair":
        if (this.get("keyPair", resource.spec.name))
          throw this.#duplicate(`a key pair ${resource.spec.name}`);
        return;
      case "volume":
        if (!(resource.spec.sizeGiB > 0)) throw this.#invalid("a volume needs a size");
        return;
      case "server":
        return this.checkServer(resource);
      case "volumeAttachment":
        return this.#checkAttachment(resource);
      case "addressAssociation": {
        const { addressId } = resource.spec;
        const twin = this.#find("addressAssociation", ({ spec }) => spec.addressId === addressId);
        if (twin !== undefined) throw this.#duplicate(`an association of ${addressId}`);
        return;
      }
      case "securityGroupRule":
      case "address":
        return;
      default:
        unreachable(resource);
    }
  }

  checkServer({ spec }: ResourceOf<"server">): void {
    if (!this.#options.catalogue.images.some(({ id }) => id === spec.imageId)) {
      throw refuse("cloud.not_found", "InvalidImage.NotFound", `there is no image ${spec.imageId}`);
    }
    if (!this.#options.catalogue.types.some(({ name }) => name === spec.type)) {
      throw this.#invalid(`there is no server type ${spec.type}`);
    }
    const subnet = spec.subnetId === undefined ? undefined : this.get("subnet", spec.subnetId)?.resource;
    const networkId = subnet?.kind === "subnet" ? subnet.spec.networkId : undefined;
    for (const id of spec.groupIds) {
      const group = this.get("securityGroup", id)?.resource;
      if (group?.kind !== "securityGroup" || networkId === undefined) continue;
      if (group.spec.networkId !== networkId)
        throw this.#invalid(`security group ${id} is of another network`);
    }
    const range = subnet?.kind === "subnet" ? parseIpv4Range(subnet.spec.cidr) : undefined;
    if (spec.privateIp === undefined || range === undefined) return;
    if (!holdsAddress(range, spec.privateIp)) throw this.#invalid(`${spec.privateIp} is outside the subnet`);
    if (this.#usedIps.has(`${spec.subnetId ?? ""}/${spec.privateIp}`)) {
      throw this.#duplicate(`a server with the address ${spec.privateIp}`);
    }
  }

  #checkSubnet(resource: ResourceOf<"subnet">): void {
    const range = parseIpv4Range(resource.spec.cidr);
    if (range === undefined) throw this.#invalid(`${resource.spec.cidr} is not an IPv4 prefix`);
    const network = this.get("network", resource.spec.networkId)?.resource;
    const outer = network?.kind === "network" && parseIpv4Range(network.spec.cidr ?? "0.0.0.0/0");
    if (outer && !contains(outer, range)) throw this.#invalid(`${resource.spec.cidr} is outside the network`);
    const twin = this.#find("subnet", ({ spec }) => {
      const other = parseIpv4Range(spec.cidr);
      return spec.networkId === resource.spec.networkId && other !== undefined && overlaps(other, range);
    });
    if (twin !== undefined) throw this.#duplicate(`a subnet that overlaps ${resource.spec.cidr}`);
  }

  #checkAttachment({ spec }: ResourceOf<"volumeAttachment">): void {
    const ofVolume = this.dependants("volume", spec.volumeId);
    if (ofVolume.length > 0) throw this.#duplicate(`an attachment of volume ${spec.volumeId}`);
    const sameDevice = this.dependants("server", spec.serverId).some(
      ({ resource }) => resource.kind === "volumeAttachment" && resource.spec.device === spec.device,
    );
    if (sameDevice) throw this.#duplicate(`a volume at ${spec.device} of server ${spec.serverId}`);
  }

  #checkQuota(resource: Resource): void {
    const count = this.#byKind.get(resource.kind)?.size ?? 0;
    const limit = this.#options.quotas[resource.kind];
    const vcpus = resource.kind === "server" ? this.#vcpus + this.#vcpusOf(resource.spec.type) : 0;
    if ((limit === undefined || count < limit) && vcpus <= (this.#options.quotas.vcpus ?? Infinity)) return;
    throw refuse(
      "cloud.quota",
      "QuotaExceeded",
      `${this.#options.cloud}'s quota of ${resource.kind} resources is used up: raise it or delete some`,
    );
  }

  #find<K extends ResourceKind>(kind: K, match: (resource: ResourceOf<K>) => boolean): Record | undefined {
    for (const record of this.records(kind)) {
      if (match(record.resource as unknown as ResourceOf<K>)) return record;
    }
    return undefined;
  }

  #vcpusOf(type: string): number {
    return this.#options.catalogue.types.find(({ name }) => name === type)?.vcpus ?? 0;
  }

  #link(resource: Resource, key: string): void {
    for (const end of referencesOf(resource)) {
      const endKey = keyOf(end.kind, end.id);
      const keys = this.#dependants.get(endKey) ?? new Set();
      keys.add(key);
      this.#dependants.set(endKey, keys);
    }
  }

  #unlink(resource: Resource, key: string): void {
    for (const end of referencesOf(resource)) this.#dependants.get(keyOf(end.kind, end.id))?.delete(key);
  }

  #drop(record: Record): void {
    const { resource } = record;
    const key = keyOf(resource.kind, resource.id);
    this.#unlink(resource, key);
    this.#records.delete(key);
    this.#byKind.get(resource.kind)?.delete(key);
    this.#dependants.delete(key);
    if (this.#byToken.get(record.token) === record) this.#byToken.delete(record.token);
    if (resource.kind !== "server") return;
    this.#vcpus -= this.#vcpusOf(resource.spec.type);
    this.#usedIps.delete(`${resource.spec.subnetId ?? ""}/${record.privateIp ?? ""}`);
  }

  #allocatePrivate({ spec }: ResourceOf<"server">): string {
    const subnetKey = spec.subnetId ?? "";
    const subnet = spec.subnetId === undefined ? undefined : this.get("subnet", spec.subnetId)?.resource;
    const range = parseIpv4Range(subnet?.kind === "subnet" ? subnet.spec.cidr : "172.31.0.0/16");
    // As EC2 does, the first four addresses and the last one of a subnet are the cloud's own.
    const [first, last] = [(range?.first ?? 0) + 4, (range?.last ?? 0) - 1];
    let host = this.#nextHost.get(subnetKey) ?? first;
    let address = spec.privateIp;
    while (address === undefined) {
      if (host > last) throw this.#invalid(`subnet ${subnetKey} has no free address`);
      const candidate = formatIpv4(host);
      host += 1;
      if (!this.#usedIps.has(`${subnetKey}/${candidate}`)) address = candidate;
    }
    this.#nextHost.set(subnetKey, host > last ? first : host);
    return address;
  }

  #duplicate(what: string): OperationalError {
    const message = `${this.#options.cloud} already has ${what}`;
    return refuse("cloud.conflict", "Duplicate", message, { retry: "never" });
  }

  #invalid(what: string): OperationalError {
    return refuse("cloud.refused", "InvalidParameter", `${this.#options.cloud} refused the request: ${what}`);
  }
}
