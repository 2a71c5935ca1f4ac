/**
 * The cloud's own model, which no dialect owns. Records are immutable: a change replaces the record. `extra` belongs to
 * the dialect that wrote it; the core keeps it and never reads it. Times are milliseconds since the Unix epoch.
 */
import type { Json } from "#kernel/json.ts";

export type Tags = Readonly<Record<string, string>>;

export interface BaseRecord {
  readonly id: string;
  /** Empty where the dialect names resources by tags alone (EC2). */
  readonly name: string;
  readonly createdAt: number;
  readonly tags: Tags;
  readonly extra: Readonly<Record<string, Json>>;
}

/** EC2: VPC. OpenStack: network. */
export interface NetworkRecord extends BaseRecord {
  /** Null where prefixes belong to subnets alone (OpenStack). */
  readonly cidr: string | null;
  readonly isDefault: boolean;
  /** A network of the provider, from which public addresses come (OpenStack); tenants cannot delete it. */
  readonly external: boolean;
}

export interface SubnetRecord extends BaseRecord {
  readonly networkId: string;
  readonly cidr: string;
  /** First and last address handed to ports. */
  readonly pools: readonly { readonly first: string; readonly last: string }[];
  readonly gatewayIp: string | null;
  readonly zone: string | null;
  readonly isDefault: boolean;
  /** New servers get a public address unless they say otherwise. */
  readonly publicAddresses: boolean;
}

/** EC2: network interface. OpenStack: port. */
export interface PortRecord extends BaseRecord {
  readonly networkId: string;
  readonly subnetId: string;
  readonly privateIp: string;
  readonly mac: string;
  readonly groupIds: readonly string[];
  readonly serverId: string | null;
  /** The port was made with its server and goes with it. */
  readonly deleteWithServer: boolean;
}

/** EC2: internet gateway (attached to one network). OpenStack: router (with subnets as interfaces). */
export interface GatewayRecord extends BaseRecord {
  readonly networkId: string | null;
  readonly subnetIds: readonly string[];
  readonly externalNetworkId: string | null;
}

export interface Route {
  readonly destination: string;
  /** `local`, or the id of a gateway, a server or a port. */
  readonly target: { readonly kind: "local" | "gateway" | "server" | "port"; readonly id: string };
}

export interface RouteTableRecord extends BaseRecord {
  readonly networkId: string;
  readonly main: boolean;
  /** Of the main table itself: the id of its association with the network; else null. */
  readonly mainAssociationId: string | null;
  readonly associations: readonly { readonly id: string; readonly subnetId: string }[];
  readonly routes: readonly Route[];
}

export interface GroupRecord extends BaseRecord {
  /** Null where groups belong to the project (OpenStack). */
  readonly networkId: string | null;
  readonly description: string;
  readonly isDefault: boolean;
}

export type RulePeer =
  | { readonly kind: "cidr4" | "cidr6"; readonly cidr: string }
  /** `family`: of its members' addresses, where a rule is for one only (OpenStack). */
  | { readonly kind: "group"; readonly groupId: string; readonly family?: 4 | 6 };

export interface RuleRecord extends BaseRecord {
  readonly groupId: string;
  readonly direction: "ingress" | "egress";
  /** `all`, `tcp`, `udp`, `icmp`, `icmpv6` or an IP protocol number as text. */
  readonly protocol: string;
  /** Both null: every port. For icmp: type and code. */
  readonly fromPort: number | null;
  readonly toPort: number | null;
  readonly peer: RulePeer;
  readonly description: string | null;
}

export interface KeyPairRecord extends BaseRecord {
  readonly publicKey: string;
  readonly fingerprint: string;
  readonly type: "rsa" | "ed25519" | "ecdsa";
}

export interface Attachment {
  readonly serverId: string;
  readonly device: string;
  readonly deleteOnTermination: boolean;
  readonly attachedAt: number;
}

export type VolumeState = "available" | "in-use";

export interface VolumeRecord extends BaseRecord {
  readonly sizeGiB: number;
  readonly type: string;
  readonly zone: string | null;
  readonly iops: number | null;
  readonly throughput: number | null;
  readonly encrypted: boolean;
  readonly snapshotId: string | null;
  readonly attachment: Attachment | null;
}

export interface SnapshotRecord extends BaseRecord {
  readonly volumeId: string;
  readonly sizeGiB: number;
  readonly encrypted: boolean;
  readonly description: string;
  readonly state: "pending" | "completed" | "error";
  /** The instant that it shows. */
  readonly startedAt: number;
}

/** EC2: Elastic IP. OpenStack: floating IP. Its `ip` is a loopback address that really answers while associated. */
export interface AddressRecord extends BaseRecord {
  readonly ip: string;
  readonly association: {
    readonly id: string;
    readonly portId: string;
    readonly serverId: string | null;
    readonly privateIp: string;
  } | null;
}

export type ServerState =
  | "pending"
  | "running"
  | "stopping"
  | "stopped"
  | "shutting-down"
  | "terminated"
  /** The cloud could not start it (OpenStack: ERROR). */
  | "failed";

export interface ServerRecord extends BaseRecord {
  readonly imageId: string;
  readonly type: string;
  readonly keyName: string | null;
  /** Base64, as the APIs carry it. */
  readonly userData: string | null;
  readonly zone: string;
  readonly state: ServerState;
  readonly stateReason: { readonly code: string; readonly message: string } | null;
  readonly stateSince: number;
  readonly launchedAt: number;
  /** Rises with each start and reboot: the compute driver runs one process per boot. */
  readonly boot: number;
  /** The first one is the primary. */
  readonly portIds: readonly string[];
  /** The loopback address on which the server's own process listens, while it is not terminated. */
  readonly hostAddress: string;
  /** `hostAddress` is shown as its public address. */
  readonly publicAddress: boolean;
  readonly rootDevice: string;
  readonly token: string | null;
  readonly protectedAgainst: readonly ("termination" | "stop")[];
  /** What a shutdown from inside does. */
  readonly onShutdown: "stop" | "terminate";
}

/** What an idempotency token was used for. */
export interface TokenRecord extends BaseRecord {
  readonly parametersHash: string;
  readonly resultIds: readonly string[];
}

export interface ImageInfo {
  readonly id: string;
  readonly name: string;
  readonly description: string;
  readonly architecture: string;
  readonly rootDevice: string;
  readonly rootSizeGiB: number;
  readonly createdAt: number;
}

export interface ServerTypeInfo {
  /** EC2: the type itself (`t3.micro`). OpenStack: the flavor's id. */
  readonly id: string;
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly diskGiB: number;
  readonly architecture: string;
}

export interface RecordTypes {
  network: NetworkRecord;
  subnet: SubnetRecord;
  port: PortRecord;
  gateway: GatewayRecord;
  routeTable: RouteTableRecord;
  group: GroupRecord;
  rule: RuleRecord;
  keyPair: KeyPairRecord;
  volume: VolumeRecord;
  snapshot: SnapshotRecord;
  address: AddressRecord;
  server: ServerRecord;
  token: TokenRecord;
}

export type TableName = keyof RecordTypes;
/** What a refusal can be about: also parts of the catalogue and links, which have no table of their own. */
export type RecordKind =
  | TableName
  | "image"
  | "serverType"
  | "zone"
  | "addressAssociation"
  | "routeTableAssociation"
  | "route";
