/** VPCs and subnets. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import { attachGateway, createGateway } from "#devcloud/core/gateways.ts";
import { createGroup, createRule } from "#devcloud/core/groups.ts";
import { createNetwork, createSubnet, deleteNetwork, deleteSubnet } from "#devcloud/core/networks.ts";
import { freeAddressCount } from "#devcloud/core/ports.ts";
import type { NetworkRecord, SubnetRecord } from "#devcloud/core/records.ts";
import { createRoute, createRouteTable } from "#devcloud/core/route-tables.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import {
  type Answer,
  type Ec2,
  type Operation,
  arn,
  required,
  specifiedTags,
  tagList,
} from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { pageOf } from "./ec2-page.ts";

const limits = { shortest: 16, longest: 28 };

function vpc(ec2: Ec2, network: NetworkRecord): Api.Vpc {
  const cidr = network.cidr ?? "";
  return {
    VpcId: network.id,
    OwnerId: ec2.accountId,
    InstanceTenancy: "default",
    CidrBlockAssociationSet: [
      {
        AssociationId: network.id.replace("vpc-", "vpc-cidr-assoc-"),
        CidrBlock: cidr,
        CidrBlockState: { State: "associated" },
      },
    ],
    IsDefault: network.isDefault,
    Tags: tagList(network.tags),
    CidrBlock: cidr,
    DhcpOptionsId: "default",
    State: "available",
  };
}

function subnetShape(ec2: Ec2, subnet: SubnetRecord): Api.Subnet {
  return {
    SubnetId: subnet.id,
    VpcId: subnet.networkId,
    OwnerId: ec2.accountId,
    State: "available",
    CidrBlock: subnet.cidr,
    AvailableIpAddressCount: freeAddressCount(ec2.cloud, subnet),
    AvailabilityZone: subnet.zone ?? "",
    AvailabilityZoneId: zoneId(ec2, subnet.zone ?? ""),
    DefaultForAz: subnet.isDefault,
    MapPublicIpOnLaunch: subnet.publicAddresses,
    AssignIpv6AddressOnCreation: false,
    Ipv6CidrBlockAssociationSet: [],
    SubnetArn: arn(ec2, "subnet", subnet.id),
    Tags: tagList(subnet.tags),
  };
}

/** Ids of zones are the same in all accounts, names are not: here the letter's place. */
export function zoneId(ec2: Ec2, zone: string): string {
  return `dev1-az${ec2.cloud.catalog.zones.indexOf(zone) + 1}`;
}

/** A VPC comes with a main route table and a default group: all within the group, everything out. */
function createVpcWithDefaults(ec2: Ec2, cidr: string, isDefault: boolean, tags = {}): NetworkRecord {
  const { cloud } = ec2;
  const network = createNetwork(cloud, {
    cidr,
    limits,
    isDefault,
    tags,
    extra: { dnsSupport: true, dnsHostnames: isDefault },
  });
  createRouteTable(cloud, { networkId: network.id, main: true });
  const group = createGroup(cloud, {
    networkId: network.id,
    name: "default",
    description: "default VPC security group",
    isDefault: true,
  });
  const every = { groupId: group.id, protocol: "all", fromPort: null, toPort: null } as const;
  createRule(cloud, { ...every, direction: "ingress", peer: { kind: "group", groupId: group.id } });
  createRule(cloud, { ...every, direction: "egress", peer: { kind: "cidr4", cidr: "0.0.0.0/0" } });
  return network;
}

/** What every account has from the start: a default VPC with a public subnet per zone. */
export function createDefaultVpc(ec2: Ec2): NetworkRecord {
  const { cloud } = ec2;
  const network = createVpcWithDefaults(ec2, "172.31.0.0/16", true);
  const gateway = createGateway(cloud, {});
  attachGateway(cloud, gateway.id, network.id);
  const main = cloud.data.tables.routeTable.by("network", network.id)[0];
  if (main !== undefined) {
    createRoute(cloud, main.id, {
      destination: "0.0.0.0/0",
      target: { kind: "gateway", id: gateway.id },
    });
  }
  for (const [index, zone] of cloud.catalog.zones.entries()) {
    createSubnet(cloud, {
      networkId: network.id,
      cidr: `172.31.${index * 16}.0/20`,
      zone,
      reservedFirst: 4,
      isDefault: true,
      publicAddresses: true,
    });
  }
  return network;
}

export const networkOperations = {
  CreateVpc(ec2: Ec2, input: Api.CreateVpcCommandInput): Answer<Api.CreateVpcCommandOutput> {
    const cidr = required(input.CidrBlock, "cidrBlock");
    const network = createVpcWithDefaults(ec2, cidr, false, specifiedTags(input.TagSpecifications, "vpc"));
    return { Vpc: { ...vpc(ec2, network), State: "pending" } };
  },

  CreateDefaultVpc(ec2: Ec2): Answer<Api.CreateDefaultVpcCommandOutput> {
    for (const network of ec2.cloud.data.tables.network.values()) {
      if (network.isDefault) {
        throw new AwsProtocolError(
          "DefaultVpcAlreadyExists",
          "A Default VPC already exists for this account in this region.",
        );
      }
    }
    return { Vpc: vpc(ec2, createDefaultVpc(ec2)) };
  },

  DeleteVpc(ec2: Ec2, input: Api.DeleteVpcCommandInput): object {
    deleteNetwork(ec2.cloud, required(input.VpcId, "vpcId"));
    return {};
  },

  DescribeVpcs(ec2: Ec2, input: Api.DescribeVpcsCommandInput): Answer<Api.DescribeVpcsCommandOutput> {
    const { network } = ec2.cloud.data.tables;
    const keep = compileFilters<NetworkRecord>(input.Filters, {
      "vpc-id": (each) => each.id,
      cidr: (each) => each.cidr,
      "cidr-block-association.cidr-block": (each) => each.cidr,
      "is-default": (each) => each.isDefault,
      isDefault: (each) => each.isDefault,
      "owner-id": () => ec2.accountId,
      state: () => "available",
      "dhcp-options-id": () => "default",
    });
    const chosen = input.VpcIds?.length ? findAll(ec2.cloud, "network", input.VpcIds) : network.values();
    const page = pageOf(chosen, keep, input);
    return { Vpcs: page.items.map((each) => vpc(ec2, each)), NextToken: page.nextToken };
  },

  DescribeVpcAttribute(
    ec2: Ec2,
    input: Api.DescribeVpcAttributeCommandInput,
  ): Answer<Api.DescribeVpcAttributeCommandOutput> {
    const network = find(ec2.cloud, "network", required(input.VpcId, "vpcId"));
    const attribute = required<string>(input.Attribute, "attribute");
    const value = (key: string): Api.AttributeBooleanValue => ({ Value: network.extra[key] === true });
    switch (attribute) {
      case "enableDnsSupport":
        return { VpcId: network.id, EnableDnsSupport: value("dnsSupport") };
      case "enableDnsHostnames":
        return { VpcId: network.id, EnableDnsHostnames: value("dnsHostnames") };
      case "enableNetworkAddressUsageMetrics":
        return { VpcId: network.id, EnableNetworkAddressUsageMetrics: { Value: false } };
      default:
        throw new AwsProtocolError(
          "InvalidParameterValue",
          `Value (${attribute.slice(0, 100)}) for parameter attribute is invalid. Unknown attribute.`,
        );
    }
  },

  ModifyVpcAttribute(ec2: Ec2, input: Api.ModifyVpcAttributeCommandInput): object {
    const network = find(ec2.cloud, "network", required(input.VpcId, "vpcId"));
    ec2.cloud.data.tables.network.put({
      ...network,
      extra: {
        dnsSupport: input.EnableDnsSupport?.Value ?? network.extra["dnsSupport"] ?? true,
        dnsHostnames: input.EnableDnsHostnames?.Value ?? network.extra["dnsHostnames"] ?? false,
      },
    });
    return {};
  },

  CreateSubnet(ec2: Ec2, input: Api.CreateSubnetCommandInput): Answer<Api.CreateSubnetCommandOutput> {
    const networkId = required(input.VpcId, "vpcId");
    const zones = ec2.cloud.catalog.zones;
    const byId = zones.find((zone) => zoneId(ec2, zone) === input.AvailabilityZoneId);
    const subnet = createSubnet(ec2.cloud, {
      networkId,
      cidr: required(input.CidrBlock, "cidrBlock"),
      limits,
      reservedFirst: 4,
      zone: input.AvailabilityZone ?? byId ?? zones[0] ?? null,
      tags: specifiedTags(input.TagSpecifications, "subnet"),
    });
    return { Subnet: subnetShape(ec2, subnet) };
  },

  DeleteSubnet(ec2: Ec2, input: Api.DeleteSubnetCommandInput): object {
    deleteSubnet(ec2.cloud, required(input.SubnetId, "subnetId"));
    return {};
  },

  DescribeSubnets(
    ec2: Ec2,
    input: Api.DescribeSubnetsCommandInput,
  ): Answer<Api.DescribeSubnetsCommandOutput> {
    const { subnet } = ec2.cloud.data.tables;
    const zone = (each: SubnetRecord): string | null => each.zone;
    const cidr = (each: SubnetRecord): string => each.cidr;
    const keep = compileFilters<SubnetRecord>(input.Filters, {
      "subnet-id": (each) => each.id,
      "vpc-id": (each) => each.networkId,
      "availability-zone": zone,
      availabilityZone: zone,
      "availability-zone-id": (each) => zoneId(ec2, each.zone ?? ""),
      "cidr-block": cidr,
      cidr,
      cidrBlock: cidr,
      "default-for-az": (each) => each.isDefault,
      defaultForAz: (each) => each.isDefault,
      "map-public-ip-on-launch": (each) => each.publicAddresses,
      "owner-id": () => ec2.accountId,
      state: () => "available",
      "subnet-arn": (each) => arn(ec2, "subnet", each.id),
      "available-ip-address-count": (each) => freeAddressCount(ec2.cloud, each),
    });
    const chosen = input.SubnetIds?.length ? findAll(ec2.cloud, "subnet", input.SubnetIds) : subnet.values();
    const page = pageOf(chosen, keep, input);
    return { Subnets: page.items.map((each) => subnetShape(ec2, each)), NextToken: page.nextToken };
  },

  ModifySubnetAttribute(ec2: Ec2, input: Api.ModifySubnetAttributeCommandInput): object {
    const subnet = find(ec2.cloud, "subnet", required(input.SubnetId, "subnetId"));
    const map = input.MapPublicIpOnLaunch?.Value;
    if (map !== undefined) ec2.cloud.data.tables.subnet.put({ ...subnet, publicAddresses: map });
    return {};
  },
} satisfies Readonly<Record<string, Operation>>;
