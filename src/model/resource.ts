/**
 * What an environment is made of, in terms that no single cloud owns. A cloud's driver maps these kinds to
 * its own objects; ids are the cloud's own. Relations with a life of their own (a rule, an attachment, an
 * association) are resources too, so that every change is a create, an update, a tag or a delete.
 */
import type { ResourceId } from "#kernel/ids.ts";

/** IPv4 or IPv6 prefix, e.g. `10.0.0.0/16`. */
export type Cidr = string;
/** Base64 as the APIs carry it. */
export type Base64 = string;

/** An isolated layer-3 network with the router between its subnets (EC2: VPC; OpenStack: network and router). */
export interface NetworkSpec {
  /** Absent where the cloud's networks have no prefix of their own (OpenStack). */
  readonly cidr?: Cidr;
  /** Routed to the internet (EC2: internet gateway attached; OpenStack: router with an external gateway). */
  readonly internet: boolean;
}

export interface SubnetSpec {
  readonly networkId: ResourceId;
  readonly cidr: Cidr;
  readonly zone?: string;
  /** New servers get a public address unless they say otherwise. */
  readonly publicAddresses: boolean;
}

export interface SecurityGroupSpec {
  readonly networkId?: ResourceId;
  readonly name: string;
  readonly description: string;
}

export type RulePeer = { readonly cidr: Cidr } | { readonly groupId: ResourceId };

/** Its id is made from its content (see `securityGroupRuleId`), since clouds let it be revoked by content. */
export interface SecurityGroupRuleSpec {
  readonly groupId: ResourceId;
  readonly direction: "ingress" | "egress";
  /** `all`, `tcp`, `udp`, `icmp`, `icmpv6` or an IP protocol number as text. */
  readonly protocol: string;
  /** Both absent: every port. For icmp: type and code. */
  readonly fromPort?: number;
  readonly toPort?: number;
  readonly peer: RulePeer;
  readonly description?: string;
}

export interface KeyPairSpec {
  readonly name: string;
  /** OpenSSH public key; absent until it was read from the cloud that generated the pair. */
  readonly publicKey?: string;
}

export interface VolumeSpec {
  readonly sizeGiB: number;
  /** The site's own type name, e.g. `gp3`. */
  readonly type?: string;
  readonly zone?: string;
  readonly iops?: number;
  readonly encrypted?: boolean;
  readonly snapshotId?: ResourceId;
}

export interface VolumeAttachmentSpec {
  readonly volumeId: ResourceId;
  readonly serverId: ResourceId;
  readonly device: string;
  readonly deleteOnTermination: boolean;
}

/** A public address that outlives servers (EC2: Elastic IP; OpenStack: floating IP). */
export interface AddressSpec {
  /** The address itself; never carried to another site. */
  readonly publicIp?: string;
}

export interface AddressAssociationSpec {
  readonly addressId: ResourceId;
  readonly serverId: ResourceId;
  readonly privateIp?: string;
}

/** A disk that comes and goes with its server, apart from the image's own. */
export interface BlockDevice {
  readonly device: string;
  readonly sizeGiB: number;
  readonly type?: string;
  readonly snapshotId?: ResourceId;
  readonly deleteOnTermination: boolean;
}

export interface ServerSpec {
  /** The site's own image id or name. */
  readonly imageId: string;
  /** The site's own type or flavor name. */
  readonly type: string;
  readonly subnetId?: ResourceId;
  readonly groupIds: readonly ResourceId[];
  readonly keyName?: string;
  readonly userData?: Base64;
  readonly privateIp?: string;
  readonly zone?: string;
  readonly publicAddress: boolean;
  readonly power: "running" | "stopped";
  readonly blockDevices: readonly BlockDevice[];
}

export interface ResourceSpecs {
  readonly network: NetworkSpec;
  readonly subnet: SubnetSpec;
  readonly securityGroup: SecurityGroupSpec;
  readonly securityGroupRule: SecurityGroupRuleSpec;
  readonly keyPair: KeyPairSpec;
  readonly volume: VolumeSpec;
  readonly address: AddressSpec;
  readonly server: ServerSpec;
  readonly volumeAttachment: VolumeAttachmentSpec;
  readonly addressAssociation: AddressAssociationSpec;
}

export type ResourceKind = keyof ResourceSpecs;

/** In an order in which each kind comes after the kinds it refers to. */
export const resourceKinds = [
  "network",
  "subnet",
  "securityGroup",
  "securityGroupRule",
  "keyPair",
  "volume",
  "address",
  "server",
  "volumeAttachment",
  "addressAssociation",
] as const satisfies readonly ResourceKind[];

export type Tags = Readonly<Record<string, string>>;

export interface ResourceOf<K extends ResourceKind> {
  readonly kind: K;
  readonly id: ResourceId;
  readonly spec: ResourceSpecs[K];
  /** The display name is the tag `Name`, also on clouds that have a field for it. */
  readonly tags: Tags;
}

/** A union over the kinds: `resource.kind` narrows `resource.spec`. */
export type Resource = { [K in ResourceKind]: ResourceOf<K> }[ResourceKind];

export interface Reference {
  readonly kind: ResourceKind;
  readonly id: ResourceId;
}

/** The resources that this one cannot exist without. A rule's own peer group counts; a key pair is named by name. */
export function referencesOf(resource: Resource): readonly Reference[] {
  switch (resource.kind) {
    case "network":
    case "keyPair":
    case "volume":
    case "address":
      return [];
    case "subnet":
      return [{ kind: "network", id: resource.spec.networkId }];
    case "securityGroup":
      return resource.spec.networkId === undefined ? [] : [{ kind: "network", id: resource.spec.networkId }];
    case "securityGroupRule": {
      const own: Reference = { kind: "securityGroup", id: resource.spec.groupId };
      return "groupId" in resource.spec.peer
        ? [own, { kind: "securityGroup", id: resource.spec.peer.groupId }]
        : [own];
    }
    case "server":
      return [
        ...(resource.spec.subnetId === undefined
          ? []
          : [{ kind: "subnet", id: resource.spec.subnetId } as const]),
        ...resource.spec.groupIds.map((id) => ({ kind: "securityGroup", id }) as const),
        ...(resource.spec.keyName === undefined
          ? []
          : [{ kind: "keyPair", id: resource.spec.keyName as ResourceId } as const]),
      ];
    case "volumeAttachment":
      return [
        { kind: "volume", id: resource.spec.volumeId },
        { kind: "server", id: resource.spec.serverId },
      ];
    case "addressAssociation":
      return [
        { kind: "address", id: resource.spec.addressId },
        { kind: "server", id: resource.spec.serverId },
      ];
  }
}

/** The content id of a rule: equal rules have equal ids, whichever cloud call made them. */
export function securityGroupRuleId(spec: SecurityGroupRuleSpec): ResourceId {
  const ports = `${spec.fromPort ?? "*"}-${spec.toPort ?? "*"}`;
  const peer = "cidr" in spec.peer ? spec.peer.cidr : spec.peer.groupId;
  return `${spec.groupId}/${spec.direction}/${spec.protocol}/${ports}/${peer}` as ResourceId;
}

export function volumeAttachmentId(volumeId: string, serverId: string): ResourceId {
  return `${volumeId}@${serverId}` as ResourceId;
}
