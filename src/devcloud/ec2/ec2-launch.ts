/** RunInstances: from a request to servers with their ports and disks. */
import type * as Api from "@aws-sdk/client-ec2";
import { find } from "#devcloud/core/cloud.ts";
import type { Tags } from "#devcloud/core/records.ts";
import { Refusal } from "#devcloud/core/refusal.ts";
import {
  checkCapacity,
  checkServerQuota,
  createServer,
  findImage,
  findServerType,
  type ServerInput,
} from "#devcloud/core/servers.ts";
import { setTags } from "#devcloud/core/tags.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Ec2, defaultNetwork, required, specifiedTags } from "./ec2-context.ts";
import { invalidValue } from "./ec2-error.ts";
import { namedGroup } from "./ec2-permission.ts";
import { checkedVolume } from "./ec2-volume.ts";

const MAX_USER_DATA_BYTES = 16_384;

/** Options that change what is launched in ways that this cloud cannot: better refused than ignored. */
const unsupported: readonly (keyof Api.RunInstancesCommandInput)[] = [
  "LaunchTemplate",
  "InstanceMarketOptions",
  "KernelId",
  "RamdiskId",
  "ElasticGpuSpecification",
  "ElasticInferenceAccelerators",
  "Ipv6AddressCount",
  "Ipv6Addresses",
];

export function checkedUserData(text: string | undefined): string | null {
  if (text === undefined || text === "") return null;
  if (!/^[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*$/.test(text)) {
    throw new AwsProtocolError("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.");
  }
  const bytes = Buffer.byteLength(text, "base64");
  if (bytes > MAX_USER_DATA_BYTES) {
    throw new AwsProtocolError("InvalidParameterValue", "User data is limited to 16384 bytes");
  }
  return text;
}

interface Placement {
  readonly subnetId: string;
  readonly groupIds: readonly string[];
  readonly privateIp: string | undefined;
  readonly publicAddress: boolean;
  readonly portId: string | undefined;
}

function placementOf(ec2: Ec2, input: Api.RunInstancesCommandInput): Placement {
  const { subnet, group } = ec2.cloud.data.tables;
  const [own, second] = input.NetworkInterfaces ?? [];
  if (second !== undefined) {
    throw new AwsProtocolError(
      "UnsupportedOperation",
      "One network interface per instance is supported here.",
    );
  }
  if (own !== undefined && (input.SubnetId !== undefined || input.SecurityGroupIds?.length)) {
    throw new AwsProtocolError(
      "InvalidParameterCombination",
      "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request",
    );
  }
  if (own?.NetworkInterfaceId !== undefined) {
    const port = find(ec2.cloud, "port", own.NetworkInterfaceId);
    return {
      subnetId: port.subnetId,
      groupIds: port.groupIds,
      privateIp: undefined,
      publicAddress: false,
      portId: port.id,
    };
  }
  const subnetId = own?.SubnetId ?? input.SubnetId;
  const chosen =
    subnetId === undefined
      ? defaultSubnet(ec2, input.Placement?.AvailabilityZone)
      : find(ec2.cloud, "subnet", subnetId);
  const groups = [
    ...(own?.Groups ?? input.SecurityGroupIds ?? []),
    ...(input.SecurityGroups ?? []).map((GroupName) => namedGroup(ec2, { GroupName })),
  ];
  const standard = group.by("name", `${chosen.networkId}/default`).map((each) => each.id);
  const zone = input.Placement?.AvailabilityZone;
  const subnetZone = subnet.get(chosen.id)?.zone;
  if (zone !== undefined && zone !== subnetZone) {
    throw new AwsProtocolError(
      "InvalidParameterCombination",
      `The availability zone ${zone.slice(0, 60)} is not that of the subnet '${chosen.id}': ${subnetZone ?? ""}`,
    );
  }
  return {
    subnetId: chosen.id,
    groupIds: groups.length > 0 ? groups : standard,
    privateIp: own?.PrivateIpAddress ?? input.PrivateIpAddress,
    publicAddress: own?.AssociatePublicIpAddress ?? chosen.publicAddresses,
    portId: undefined,
  };
}

function defaultSubnet(
  ec2: Ec2,
  zone: string | undefined,
): { id: string; networkId: string; publicAddresses: boolean } {
  const network = defaultNetwork(ec2);
  if (zone !== undefined && !ec2.cloud.catalog.zones.includes(zone)) {
    throw new AwsProtocolError("InvalidParameterValue", `Invalid availability zone: [${zone.slice(0, 60)}]`);
  }
  const found = ec2.cloud.data.tables.subnet
    .by("network", network.id)
    .find((subnet) => subnet.isDefault && (zone === undefined || subnet.zone === zone));
  if (found === undefined) {
    throw new AwsProtocolError(
      "MissingInput",
      `No default subnet for availability zone: '${zone ?? "null"}'.`,
    );
  }
  return found;
}

function disksOf(
  ec2: Ec2,
  input: Api.RunInstancesCommandInput,
  tags: Tags,
): NonNullable<ServerInput["volumes"]> {
  const image = findImage(ec2.cloud, required(input.ImageId, "ImageId"));
  const mappings = input.BlockDeviceMappings ?? [];
  const root = mappings.find((mapping) => mapping.DeviceName === image.rootDevice);
  const others = mappings.filter((mapping) => mapping !== root && mapping.Ebs !== undefined);
  const rootEbs: Api.EbsBlockDevice = { VolumeSize: image.rootSizeGiB, VolumeType: "gp3", ...root?.Ebs };
  const seen = new Set<string>();
  return [{ DeviceName: image.rootDevice, Ebs: rootEbs }, ...others].map((mapping) => {
    const device = required(mapping.DeviceName, "BlockDeviceMapping.DeviceName");
    if (seen.has(device)) {
      throw new AwsProtocolError(
        "InvalidBlockDeviceMapping",
        `The device '${device}' is used in more than one block-device mapping`,
      );
    }
    seen.add(device);
    const { SnapshotId, VolumeSize, VolumeType, Iops, Throughput, Encrypted } = mapping.Ebs ?? {};
    return {
      ...checkedVolume({
        SnapshotId,
        Size: VolumeSize,
        VolumeType: VolumeType ?? "gp2",
        Iops,
        Throughput,
        Encrypted,
      }),
      device,
      deleteOnTermination: mapping.Ebs?.DeleteOnTermination ?? true,
      tags,
    };
  });
}

/** As many as the quotas allow and the hosts bear, if that is at least `least`. */
function allowedCount(ec2: Ec2, type: string, zone: string, least: number, most: number): number {
  for (let count = most; ; count -= 1) {
    try {
      checkServerQuota(ec2.cloud, type, count);
      checkCapacity(ec2.cloud, type, count, zone);
      return count;
    } catch (error) {
      if (!(error instanceof Refusal) || count <= least) throw error;
    }
  }
}

/** The ids of the new servers. */
export function launch(ec2: Ec2, input: Api.RunInstancesCommandInput): string[] {
  const refused = unsupported.find((name) => input[name] !== undefined);
  if (refused !== undefined) {
    throw new AwsProtocolError("UnsupportedOperation", `The parameter ${refused} is not supported here.`);
  }
  const imageId = required(input.ImageId, "ImageId");
  const least = required(input.MinCount, "MinCount");
  const most = required(input.MaxCount, "MaxCount");
  if (!Number.isInteger(least) || least < 1) throw invalidValue(least, "minCount", "Expected 1 or more.");
  if (!Number.isInteger(most) || most < least) {
    throw invalidValue(most, "maxCount", "The maximum must be at least the minimum.");
  }
  const type = input.InstanceType ?? "m1.small";
  findImage(ec2.cloud, imageId);
  findServerType(ec2.cloud, type);
  const { cloud } = ec2;
  const placement = placementOf(ec2, input);
  if (most > 1 && (placement.privateIp !== undefined || placement.portId !== undefined)) {
    throw new AwsProtocolError(
      "InvalidParameterCombination",
      "A private IP address or a network interface may be given only for a single instance",
    );
  }
  const kinds = ["volume", "network-interface", "spot-instances-request"];
  const tags = specifiedTags(input.TagSpecifications, "instance", kinds);
  const all = ["instance", ...kinds];
  const volumes = disksOf(ec2, input, specifiedTags(input.TagSpecifications, "volume", all));
  const portTags = specifiedTags(input.TagSpecifications, "network-interface", all);
  const zone = cloud.data.tables.subnet.get(placement.subnetId)?.zone ?? "";
  const count = allowedCount(ec2, type, zone, least, most);
  const reservationId = `r-${cloud.random.hex(9).slice(0, 17)}`;
  const ids: string[] = [];
  for (let launchIndex = 0; launchIndex < count; launchIndex += 1) {
    const server = createServer(cloud, {
      imageId,
      type,
      keyName: input.KeyName ?? null,
      userData: checkedUserData(input.UserData),
      ...(input.Placement?.AvailabilityZone === undefined ? {} : { zone: input.Placement.AvailabilityZone }),
      ...(placement.portId === undefined
        ? {
            ports: [
              {
                subnetId: placement.subnetId,
                groupIds: placement.groupIds,
                ...(placement.privateIp === undefined ? {} : { privateIp: placement.privateIp }),
                tags: portTags,
              },
            ],
          }
        : { portIds: [placement.portId] }),
      publicAddress: placement.publicAddress,
      volumes,
      token: input.ClientToken ?? null,
      protectedAgainst: [
        ...(input.DisableApiTermination === true ? (["termination"] as const) : []),
        ...(input.DisableApiStop === true ? (["stop"] as const) : []),
      ],
      onShutdown: input.InstanceInitiatedShutdownBehavior ?? "stop",
      extra: {
        reservationId,
        launchIndex,
        ebsOptimized: input.EbsOptimized ?? false,
        monitoring: input.Monitoring?.Enabled ?? false,
      },
    });
    setTags(cloud, "server", server.id, Object.entries(tags));
    ids.push(server.id);
  }
  return ids;
}
