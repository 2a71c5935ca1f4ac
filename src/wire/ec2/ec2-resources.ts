/** What EC2's `Describe...` answers hold, in the model's terms; shared by command translation and the driver. */
import type {
  Address,
  Instance,
  KeyPairInfo,
  SecurityGroup,
  SecurityGroupRule,
  Subnet,
  Volume,
  Vpc,
} from "@aws-sdk/client-ec2";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceOf } from "#model/resource.ts";
import { securityGroupRuleId, volumeAttachmentId } from "#model/resource.ts";
import { addressAssociationId } from "./ec2-ids.ts";
import { ruleFromEc2 } from "./ec2-rules.ts";
import { tagsFromEc2 } from "./ec2-tags.ts";

const id = (text: string | undefined): ResourceId => (text ?? "") as ResourceId;

/** A member that is absent, or empty as EC2 often sends it, is left away. */
function given<K extends string, T>(key: K, value: T | undefined | null): { [P in K]?: T } {
  return value === undefined || value === null || value === "" ? {} : ({ [key]: value } as { [P in K]: T });
}

export function networkFromVpc(vpc: Vpc, internet: boolean): ResourceOf<"network"> {
  return {
    kind: "network",
    id: id(vpc.VpcId),
    spec: { ...given("cidr", vpc.CidrBlock), internet },
    tags: tagsFromEc2(vpc.Tags),
  };
}

export function subnetFromEc2(subnet: Subnet): ResourceOf<"subnet"> {
  return {
    kind: "subnet",
    id: id(subnet.SubnetId),
    spec: {
      networkId: id(subnet.VpcId),
      cidr: subnet.CidrBlock ?? "",
      ...given("zone", subnet.AvailabilityZone),
      publicAddresses: subnet.MapPublicIpOnLaunch ?? false,
    },
    tags: tagsFromEc2(subnet.Tags),
  };
}

export function groupFromEc2(group: SecurityGroup): ResourceOf<"securityGroup"> {
  return {
    kind: "securityGroup",
    id: id(group.GroupId),
    spec: {
      ...(group.VpcId ? { networkId: id(group.VpcId) } : {}),
      name: group.GroupName ?? "",
      description: group.Description ?? "",
    },
    tags: tagsFromEc2(group.Tags),
  };
}

/** `undefined`: a rule whose peer is a prefix list, which the model cannot say. */
export function ruleResourceFromEc2(rule: SecurityGroupRule): ResourceOf<"securityGroupRule"> | undefined {
  const spec = ruleFromEc2(rule);
  if (spec === undefined) return undefined;
  return { kind: "securityGroupRule", id: securityGroupRuleId(spec), spec, tags: tagsFromEc2(rule.Tags) };
}

/** A key pair's id is its name, since servers name it so; the `key-...` is an alias. */
export function keyPairFromEc2(pair: KeyPairInfo): ResourceOf<"keyPair"> {
  return {
    kind: "keyPair",
    id: id(pair.KeyName),
    spec: { name: pair.KeyName ?? "", ...given("publicKey", pair.PublicKey?.trim()) },
    tags: tagsFromEc2(pair.Tags),
  };
}

export function volumeFromEc2(volume: Volume): ResourceOf<"volume"> {
  return {
    kind: "volume",
    id: id(volume.VolumeId),
    spec: {
      sizeGiB: volume.Size ?? 0,
      ...given("type", volume.VolumeType as string | undefined),
      ...given("zone", volume.AvailabilityZone),
      ...given("iops", volume.Iops),
      ...given("encrypted", volume.Encrypted),
      ...given("snapshotId", volume.SnapshotId as ResourceId | undefined),
    },
    tags: tagsFromEc2(volume.Tags),
  };
}

export function attachmentsFromVolume(volume: Volume): ResourceOf<"volumeAttachment">[] {
  return (volume.Attachments ?? [])
    .filter(
      ({ State, InstanceId }) => InstanceId !== undefined && State !== "detached" && State !== "detaching",
    )
    .map((attachment) => {
      const volumeId = id(attachment.VolumeId ?? volume.VolumeId);
      const serverId = id(attachment.InstanceId);
      return {
        kind: "volumeAttachment",
        id: volumeAttachmentId(volumeId, serverId),
        spec: {
          volumeId,
          serverId,
          device: attachment.Device ?? "",
          deleteOnTermination: attachment.DeleteOnTermination ?? false,
        },
        tags: {},
      };
    });
}

export function addressFromEc2(address: Address): ResourceOf<"address"> {
  return {
    kind: "address",
    id: id(address.AllocationId ?? address.PublicIp),
    spec: given("publicIp", address.PublicIp),
    tags: tagsFromEc2(address.Tags),
  };
}

/** `undefined`: not associated with a server (free, or with an interface of a load balancer or NAT gateway). */
export function associationFromAddress(address: Address): ResourceOf<"addressAssociation"> | undefined {
  if (address.AssociationId === undefined || !address.InstanceId) return undefined;
  const addressId = id(address.AllocationId ?? address.PublicIp);
  return {
    kind: "addressAssociation",
    id: addressAssociationId(addressId),
    spec: {
      addressId,
      serverId: id(address.InstanceId),
      ...given("privateIp", address.PrivateIpAddress),
    },
    tags: {},
  };
}

/** Disks other than the root come as volumes and attachments of their own, so that `blockDevices` is empty here. */
export function serverFromInstance(instance: Instance): ResourceOf<"server"> {
  const first = instance.NetworkInterfaces?.[0];
  const groups = instance.SecurityGroups?.length ? instance.SecurityGroups : first?.Groups;
  const stopped = ["stopping", "stopped"].includes(instance.State?.Name ?? "");
  // An address that AWS itself owns was given at launch; an Elastic IP is a resource of its own.
  const owner = first?.Association?.IpOwnerId;
  const launched = owner === undefined ? Boolean(instance.PublicIpAddress) : owner === "amazon";
  return {
    kind: "server",
    id: id(instance.InstanceId),
    spec: {
      imageId: instance.ImageId ?? "",
      type: instance.InstanceType ?? "",
      ...given("subnetId", instance.SubnetId as ResourceId | undefined),
      groupIds: (groups ?? []).flatMap(({ GroupId }) => (GroupId === undefined ? [] : [id(GroupId)])),
      ...given("keyName", instance.KeyName),
      ...given("zone", instance.Placement?.AvailabilityZone),
      publicAddress: launched,
      power: stopped ? "stopped" : "running",
      blockDevices: [],
    },
    tags: tagsFromEc2(instance.Tags),
  };
}
