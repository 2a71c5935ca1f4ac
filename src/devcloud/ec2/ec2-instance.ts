/** A server as EC2 shows an instance, and the filters that see it. */
import type * as Api from "@aws-sdk/client-ec2";
import { findServerType } from "#devcloud/core/servers.ts";
import type { PortRecord, ServerRecord, ServerState } from "#devcloud/core/records.ts";
import { type Ec2, tagList } from "./ec2-context.ts";
import type { FilterFields } from "./ec2-filter.ts";
import { zoneId } from "./ec2-network-operations.ts";

const stateCodes: Readonly<Record<ServerState, readonly [code: number, name: Api.InstanceStateName]>> = {
  pending: [0, "pending"],
  running: [16, "running"],
  "shutting-down": [32, "shutting-down"],
  terminated: [48, "terminated"],
  stopping: [64, "stopping"],
  stopped: [80, "stopped"],
  // EC2 has no failed instances: one that cannot be started is stopped, with its reason.
  failed: [80, "stopped"],
};

export function instanceState(state: ServerState): Api.InstanceState {
  const [Code, Name] = stateCodes[state];
  return { Code, Name };
}

const gone = (server: ServerRecord): boolean => server.state === "terminated";

/** What it is reached by: an Elastic IP, else the address it got at launch. */
export function publicIpOf(ec2: Ec2, server: ServerRecord): string | undefined {
  const primary = server.portIds[0];
  const elastic = primary === undefined ? undefined : ec2.cloud.data.tables.address.by("port", primary)[0];
  if (elastic !== undefined) return elastic.ip;
  const on = server.state === "running" || server.state === "stopping" || server.state === "shutting-down";
  return server.publicAddress && on ? server.hostAddress : undefined;
}

function publicName(ec2: Ec2, ip: string | undefined): string {
  return ip === undefined
    ? ""
    : `ec2-${ip.replaceAll(".", "-")}.${ec2.cloud.catalog.region}.compute.understudy.test`;
}

function privateName(ec2: Ec2, ip: string): string {
  return `ip-${ip.replaceAll(".", "-")}.${ec2.cloud.catalog.region}.compute.internal`;
}

function groupsOf(ec2: Ec2, groupIds: readonly string[]): Api.GroupIdentifier[] {
  const { group } = ec2.cloud.data.tables;
  return groupIds.map((id) => ({ GroupId: id, GroupName: group.get(id)?.name ?? "" }));
}

function portsOf(ec2: Ec2, server: ServerRecord): PortRecord[] {
  return server.portIds.flatMap((id) => ec2.cloud.data.tables.port.get(id) ?? []);
}

/** An interface in its own listing; in an instance's it is the same without tags and request facts. */
export function networkInterface(ec2: Ec2, port: PortRecord): Api.NetworkInterface {
  const { server: servers, subnet, address } = ec2.cloud.data.tables;
  const server = port.serverId === null ? undefined : servers.get(port.serverId);
  const elastic = address.by("port", port.id)[0];
  const publicIp = server === undefined ? elastic?.ip : publicIpOf(ec2, server);
  const association =
    publicIp === undefined
      ? {}
      : {
          Association: {
            PublicIp: publicIp,
            PublicDnsName: publicName(ec2, publicIp),
            IpOwnerId: elastic === undefined ? "amazon" : ec2.accountId,
            ...(elastic === undefined
              ? {}
              : { AllocationId: elastic.id, AssociationId: elastic.association?.id }),
          },
        };
  return {
    NetworkInterfaceId: port.id,
    VpcId: port.networkId,
    SubnetId: port.subnetId,
    OwnerId: ec2.accountId,
    AvailabilityZone: subnet.get(port.subnetId)?.zone ?? "",
    Description: port.name,
    MacAddress: port.mac,
    InterfaceType: "interface",
    PrivateIpAddress: port.privateIp,
    PrivateDnsName: privateName(ec2, port.privateIp),
    PrivateIpAddresses: [{ Primary: true, PrivateIpAddress: port.privateIp, ...association }],
    Groups: groupsOf(ec2, port.groupIds),
    SourceDestCheck: port.extra["sourceDestCheck"] !== false,
    RequesterManaged: false,
    Status: server === undefined ? "available" : "in-use",
    TagSet: tagList(port.tags),
    Ipv6Addresses: [],
    ...association,
    ...(server === undefined
      ? {}
      : {
          Attachment: {
            AttachmentId: port.id.replace("eni-", "eni-attach-"),
            AttachTime: new Date(server.createdAt),
            DeleteOnTermination: port.deleteWithServer,
            DeviceIndex: Math.max(0, server.portIds.indexOf(port.id)),
            InstanceId: server.id,
            InstanceOwnerId: ec2.accountId,
            Status: "attached",
          } as const,
        }),
  };
}

function instanceInterface(ec2: Ec2, port: PortRecord): Api.InstanceNetworkInterface {
  const shape = networkInterface(ec2, port);
  return {
    NetworkInterfaceId: shape.NetworkInterfaceId,
    VpcId: shape.VpcId,
    SubnetId: shape.SubnetId,
    OwnerId: shape.OwnerId,
    Description: shape.Description,
    MacAddress: shape.MacAddress,
    InterfaceType: "interface",
    PrivateIpAddress: shape.PrivateIpAddress,
    PrivateDnsName: shape.PrivateDnsName,
    Groups: shape.Groups,
    SourceDestCheck: shape.SourceDestCheck,
    Status: "in-use",
    Ipv6Addresses: [],
    PrivateIpAddresses: (shape.PrivateIpAddresses ?? []).map((each) => ({
      Primary: each.Primary,
      PrivateIpAddress: each.PrivateIpAddress,
      ...(each.Association === undefined
        ? {}
        : {
            Association: {
              PublicIp: each.Association.PublicIp,
              PublicDnsName: each.Association.PublicDnsName,
              IpOwnerId: each.Association.IpOwnerId,
            },
          }),
    })),
    ...(shape.Association === undefined
      ? {}
      : {
          Association: {
            PublicIp: shape.Association.PublicIp,
            PublicDnsName: shape.Association.PublicDnsName,
            IpOwnerId: shape.Association.IpOwnerId,
          },
        }),
    Attachment: {
      AttachmentId: shape.Attachment?.AttachmentId,
      AttachTime: shape.Attachment?.AttachTime,
      DeleteOnTermination: shape.Attachment?.DeleteOnTermination,
      DeviceIndex: shape.Attachment?.DeviceIndex,
      NetworkCardIndex: 0,
      Status: "attached",
    },
  };
}

function blockDevices(ec2: Ec2, server: ServerRecord): Api.InstanceBlockDeviceMapping[] {
  return ec2.cloud.data.tables.volume.by("server", server.id).flatMap((volume) =>
    volume.attachment === null
      ? []
      : [
          {
            DeviceName: volume.attachment.device,
            Ebs: {
              VolumeId: volume.id,
              AttachTime: new Date(volume.attachment.attachedAt),
              DeleteOnTermination: volume.attachment.deleteOnTermination,
              Status: "attached" as const,
            },
          },
        ],
  );
}

function transitionReason(server: ServerRecord): string {
  if (server.stateReason === null) return "";
  if (!server.stateReason.code.startsWith("Client.User")) return server.stateReason.message;
  const at = new Date(server.stateSince).toISOString().replace("T", " ").slice(0, 19);
  return `User initiated (${at} GMT)`;
}

export function instance(ec2: Ec2, server: ServerRecord): Api.Instance {
  const ports = portsOf(ec2, server);
  const primary = ports[0];
  const publicIp = publicIpOf(ec2, server);
  const vcpus = findServerType(ec2.cloud, server.type).vcpus;
  return {
    InstanceId: server.id,
    ImageId: server.imageId,
    InstanceType: server.type as Api._InstanceType,
    State: instanceState(server.state),
    StateTransitionReason: transitionReason(server),
    ...(server.stateReason === null
      ? {}
      : { StateReason: { Code: server.stateReason.code, Message: server.stateReason.message } }),
    LaunchTime: new Date(server.launchedAt),
    AmiLaunchIndex: Number(server.extra["launchIndex"] ?? 0),
    Architecture: "x86_64",
    Hypervisor: "xen",
    VirtualizationType: "hvm",
    RootDeviceName: server.rootDevice,
    RootDeviceType: "ebs",
    EbsOptimized: server.extra["ebsOptimized"] === true,
    EnaSupport: true,
    Monitoring: { State: server.extra["monitoring"] === true ? "enabled" : "disabled" },
    Placement: {
      AvailabilityZone: server.zone,
      AvailabilityZoneId: zoneId(ec2, server.zone),
      GroupName: "",
      Tenancy: "default",
    },
    ProductCodes: [],
    PrivateDnsName: primary === undefined ? "" : privateName(ec2, primary.privateIp),
    PublicDnsName: publicName(ec2, publicIp),
    ...(server.keyName === null ? {} : { KeyName: server.keyName }),
    ...(server.token === null ? {} : { ClientToken: server.token }),
    ...(primary === undefined
      ? {}
      : {
          VpcId: primary.networkId,
          SubnetId: primary.subnetId,
          PrivateIpAddress: primary.privateIp,
          SourceDestCheck: primary.extra["sourceDestCheck"] !== false,
        }),
    ...(publicIp === undefined ? {} : { PublicIpAddress: publicIp }),
    SecurityGroups: groupsOf(ec2, primary?.groupIds ?? []),
    NetworkInterfaces: ports.map((port) => instanceInterface(ec2, port)),
    BlockDeviceMappings: blockDevices(ec2, server),
    CpuOptions: { CoreCount: Math.max(1, vcpus / 2), ThreadsPerCore: vcpus > 1 ? 2 : 1 },
    MetadataOptions: {
      State: "applied",
      HttpTokens: "required",
      HttpEndpoint: "enabled",
      HttpPutResponseHopLimit: 1,
      InstanceMetadataTags: "enabled",
    },
    Tags: tagList(server.tags),
  };
}

function reservationOf(server: ServerRecord): string {
  const id = server.extra["reservationId"];
  return typeof id === "string" ? id : server.id.replace("i-", "r-");
}

export function instanceFields(ec2: Ec2): FilterFields<ServerRecord> {
  const { volume } = ec2.cloud.data.tables;
  const primary = (server: ServerRecord): PortRecord | undefined => portsOf(ec2, server)[0];
  const groups =
    (pick: (group: Api.GroupIdentifier) => string | undefined) =>
    (server: ServerRecord): (string | undefined)[] =>
      groupsOf(ec2, primary(server)?.groupIds ?? []).map(pick);
  const publicIp = (server: ServerRecord): string | undefined => publicIpOf(ec2, server);
  return {
    "instance-id": (server) => server.id,
    "image-id": (server) => server.imageId,
    "instance-type": (server) => server.type,
    "instance-state-name": (server) => stateCodes[server.state][1],
    "instance-state-code": (server) => stateCodes[server.state][0],
    "availability-zone": (server) => server.zone,
    "client-token": (server) => server.token,
    "key-name": (server) => server.keyName,
    "vpc-id": (server) => primary(server)?.networkId,
    "network-interface.vpc-id": (server) => primary(server)?.networkId,
    "subnet-id": (server) => primary(server)?.subnetId,
    "network-interface.subnet-id": (server) => primary(server)?.subnetId,
    "network-interface.network-interface-id": (server) => server.portIds,
    "private-ip-address": (server) => primary(server)?.privateIp,
    "network-interface.addresses.private-ip-address": (server) => primary(server)?.privateIp,
    "ip-address": publicIp,
    "network-interface.association.public-ip": publicIp,
    "instance.group-id": groups((group) => group.GroupId),
    "group-id": groups((group) => group.GroupId),
    "network-interface.group-id": groups((group) => group.GroupId),
    "instance.group-name": groups((group) => group.GroupName),
    "group-name": groups((group) => group.GroupName),
    "reservation-id": reservationOf,
    "owner-id": () => ec2.accountId,
    "root-device-name": (server) => server.rootDevice,
    "root-device-type": () => "ebs",
    architecture: () => "x86_64",
    hypervisor: () => "xen",
    "virtualization-type": () => "hvm",
    tenancy: () => "default",
    "launch-index": (server) => Number(server.extra["launchIndex"] ?? 0),
    "launch-time": (server) => new Date(server.launchedAt).toISOString(),
    "monitoring-state": (server) => (server.extra["monitoring"] === true ? "enabled" : "disabled"),
    "state-reason-code": (server) => server.stateReason?.code,
    "private-dns-name": (server) =>
      gone(server) ? undefined : privateName(ec2, primary(server)?.privateIp ?? ""),
    "dns-name": (server) => publicName(ec2, publicIp(server)),
    "block-device-mapping.volume-id": (server) => volume.by("server", server.id).map((each) => each.id),
    "block-device-mapping.device-name": (server) =>
      volume.by("server", server.id).map((each) => each.attachment?.device),
  };
}

/** Instances in a row that came of one launch are one reservation. */
export function reservations(ec2: Ec2, servers: readonly ServerRecord[]): Api.Reservation[] {
  const list: (Api.Reservation & { Instances: Api.Instance[] })[] = [];
  for (const server of servers) {
    const id = reservationOf(server);
    const last = list.at(-1);
    if (last?.ReservationId === id) last.Instances.push(instance(ec2, server));
    else
      list.push({
        ReservationId: id,
        OwnerId: ec2.accountId,
        Groups: [],
        Instances: [instance(ec2, server)],
      });
  }
  return list;
}
