/** Images, types, zones, regions and the account's limits. */
import type * as Api from "@aws-sdk/client-ec2";
import { findImage } from "#devcloud/core/servers.ts";
import type { ImageInfo, ServerTypeInfo } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Answer, type Ec2, type Operation } from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { zoneId } from "./ec2-network-operations.ts";
import { pageOf } from "./ec2-page.ts";

/** Catalogue entries have no tags and one date: as filters and pages want records. */
const listed = <T extends { readonly id: string }>(entry: T) => ({ createdAt: 0, ...entry, tags: {} });

function imageShape(image: ImageInfo): Api.Image {
  return {
    ImageId: image.id,
    Name: image.name,
    Description: image.description,
    Architecture: "x86_64",
    CreationDate: new Date(image.createdAt).toISOString(),
    ImageLocation: `amazon/${image.name}`,
    ImageOwnerAlias: "amazon",
    OwnerId: "137112412989",
    ImageType: "machine",
    Public: true,
    State: "available",
    Hypervisor: "xen",
    VirtualizationType: "hvm",
    EnaSupport: true,
    RootDeviceName: image.rootDevice,
    RootDeviceType: "ebs",
    PlatformDetails: "Linux/UNIX",
    UsageOperation: "RunInstances",
    BlockDeviceMappings: [
      {
        DeviceName: image.rootDevice,
        Ebs: {
          VolumeSize: image.rootSizeGiB,
          VolumeType: "gp3",
          DeleteOnTermination: true,
          Encrypted: false,
        },
      },
    ],
    ProductCodes: [],
    Tags: [],
  };
}

function typeShape(type: ServerTypeInfo): Api.InstanceTypeInfo {
  const burstable = type.id.startsWith("t");
  return {
    InstanceType: type.id as Api._InstanceType,
    CurrentGeneration: !type.id.startsWith("m1"),
    FreeTierEligible: type.id === "t3.micro" || type.id === "t2.micro",
    SupportedUsageClasses: ["on-demand"],
    SupportedRootDeviceTypes: ["ebs"],
    SupportedVirtualizationTypes: ["hvm"],
    BareMetal: false,
    Hypervisor: type.id.startsWith("t2") ? "xen" : "nitro",
    ProcessorInfo: { SupportedArchitectures: ["x86_64"], SustainedClockSpeedInGhz: 2.5 },
    VCpuInfo: {
      DefaultVCpus: type.vcpus,
      DefaultCores: Math.max(1, type.vcpus / 2),
      DefaultThreadsPerCore: type.vcpus > 1 ? 2 : 1,
    },
    MemoryInfo: { SizeInMiB: type.memoryMiB },
    InstanceStorageSupported: false,
    BurstablePerformanceSupported: burstable,
    AutoRecoverySupported: true,
    HibernationSupported: false,
    DedicatedHostsSupported: false,
  };
}

export const catalogOperations = {
  DescribeImages(ec2: Ec2, input: Api.DescribeImagesCommandInput): Answer<Api.DescribeImagesCommandOutput> {
    const keep = compileFilters<ReturnType<typeof listed<ImageInfo>>>(input.Filters, {
      "image-id": (image) => image.id,
      name: (image) => image.name,
      description: (image) => image.description,
      architecture: (image) => image.architecture,
      state: () => "available",
      "owner-id": () => "137112412989",
      "owner-alias": () => "amazon",
      "is-public": () => true,
      "root-device-type": () => "ebs",
      "root-device-name": (image) => image.rootDevice,
      "virtualization-type": () => "hvm",
      hypervisor: () => "xen",
      "image-type": () => "machine",
    });
    const owned = (input.Owners ?? ["amazon"]).some(
      (owner) => owner === "amazon" || owner === "137112412989",
    );
    const chosen = input.ImageIds?.length
      ? input.ImageIds.map((id) => findImage(ec2.cloud, id))
      : ec2.cloud.catalog.images;
    const page = pageOf(chosen.map(listed), (image) => owned && keep(image), input, { least: 1, most: 1000 });
    return { Images: page.items.map(imageShape), NextToken: page.nextToken };
  },

  DescribeInstanceTypes(
    ec2: Ec2,
    input: Api.DescribeInstanceTypesCommandInput,
  ): Answer<Api.DescribeInstanceTypesCommandOutput> {
    const { types } = ec2.cloud.catalog;
    const wanted: readonly string[] = input.InstanceTypes ?? [];
    const unknown = wanted.filter((name) => !types.some((type) => type.id === name));
    if (unknown.length > 0) {
      throw new AwsProtocolError(
        "InvalidInstanceType",
        `The following supplied instance types do not exist: [${unknown.join(", ").slice(0, 200)}]`,
      );
    }
    const keep = compileFilters<ReturnType<typeof listed<ServerTypeInfo>>>(input.Filters, {
      "instance-type": (type) => type.id,
      "vcpu-info.default-vcpus": (type) => type.vcpus,
      "memory-info.size-in-mib": (type) => type.memoryMiB,
      "current-generation": (type) => !type.id.startsWith("m1"),
      "processor-info.supported-architecture": (type) => type.architecture,
      "burstable-performance-supported": (type) => type.id.startsWith("t"),
      "bare-metal": () => false,
      "supported-usage-class": () => "on-demand",
    });
    const chosen = wanted.length > 0 ? types.filter((type) => wanted.includes(type.id)) : types;
    const page = pageOf(chosen.map(listed), keep, input, { least: 5, most: 100 });
    return { InstanceTypes: page.items.map(typeShape), NextToken: page.nextToken };
  },

  DescribeInstanceTypeOfferings(
    ec2: Ec2,
    input: Api.DescribeInstanceTypeOfferingsCommandInput,
  ): Answer<Api.DescribeInstanceTypeOfferingsCommandOutput> {
    const { types, zones, region } = ec2.cloud.catalog;
    const kind = input.LocationType ?? "region";
    const places = kind === "region" ? [region] : zones;
    const offers = types.flatMap((type) =>
      places.map((place) => ({ id: `${type.id}/${place}`, type: type.id, place })),
    );
    const keep = compileFilters<ReturnType<typeof listed<(typeof offers)[number]>>>(input.Filters, {
      "instance-type": (offer) => offer.type,
      location: (offer) => offer.place,
    });
    const page = pageOf(offers.map(listed), keep, input);
    return {
      InstanceTypeOfferings: page.items.map((offer) => ({
        InstanceType: offer.type as Api._InstanceType,
        LocationType: kind,
        Location: offer.place,
      })),
      NextToken: page.nextToken,
    };
  },

  DescribeAvailabilityZones(
    ec2: Ec2,
    input: Api.DescribeAvailabilityZonesCommandInput,
  ): Answer<Api.DescribeAvailabilityZonesCommandOutput> {
    const { region, zones } = ec2.cloud.catalog;
    const names = input.ZoneNames ?? [];
    const unknown = names.find((name) => !zones.includes(name));
    if (unknown !== undefined) {
      throw new AwsProtocolError(
        "InvalidParameterValue",
        `Invalid availability zone: [${unknown.slice(0, 60)}]`,
      );
    }
    const keep = compileFilters<{ id: string; tags: Record<string, string> }>(input.Filters, {
      "zone-name": (zone) => zone.id,
      "zone-id": (zone) => zoneId(ec2, zone.id),
      "region-name": () => region,
      state: () => "available",
      "zone-type": () => "availability-zone",
      "opt-in-status": () => "opt-in-not-required",
    });
    return {
      AvailabilityZones: (names.length > 0 ? names : zones)
        .filter((zone) => keep({ id: zone, tags: {} }))
        .map((zone) => ({
          ZoneName: zone,
          ZoneId: zoneId(ec2, zone),
          ZoneType: "availability-zone",
          RegionName: region,
          GroupName: region,
          NetworkBorderGroup: region,
          OptInStatus: "opt-in-not-required",
          State: "available",
          Messages: [],
        })),
    };
  },

  DescribeRegions(
    ec2: Ec2,
    input: Api.DescribeRegionsCommandInput,
  ): Answer<Api.DescribeRegionsCommandOutput> {
    const { region } = ec2.cloud.catalog;
    const unknown = (input.RegionNames ?? []).find((name) => name !== region);
    if (unknown !== undefined) {
      throw new AwsProtocolError("InvalidParameterValue", `Region not found: ${unknown.slice(0, 60)}`);
    }
    return {
      Regions: [
        {
          RegionName: region,
          Endpoint: `ec2.${region}.amazonaws.com`,
          OptInStatus: "opt-in-not-required",
        },
      ],
    };
  },

  DescribeAccountAttributes(
    ec2: Ec2,
    input: Api.DescribeAccountAttributesCommandInput,
  ): Answer<Api.DescribeAccountAttributesCommandOutput> {
    const { quotas } = ec2.cloud;
    let standard = "none";
    for (const network of ec2.cloud.data.tables.network.values())
      if (network.isDefault) standard = network.id;
    const all: Readonly<Record<string, string>> = {
      "supported-platforms": "VPC",
      "default-vpc": standard,
      "max-instances": String(quotas.servers),
      "max-elastic-ips": String(quotas.addresses),
      "vpc-max-elastic-ips": String(quotas.addresses),
      "vpc-max-security-groups-per-interface": String(quotas.groupsPerPort),
    };
    const names: readonly string[] = input.AttributeNames ?? Object.keys(all);
    return {
      AccountAttributes: names
        .filter((name) => Object.hasOwn(all, name))
        .map((name) => ({
          AttributeName: name,
          AttributeValues: [{ AttributeValue: all[name] }],
        })),
    };
  },
} satisfies Readonly<Record<string, Operation>>;
