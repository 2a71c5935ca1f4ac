/** Each error that the EC2 dialect can answer, provoked where the shop stands. */
import { readdirSync, readFileSync } from "node:fs";
import { bytes, list, text } from "./client.ts";
import type { Shop } from "./shop-life.ts";
import type { Session } from "./transcript.ts";
import { image } from "./two-ways.ts";

const absent = "0123456789abcdef0";
const one = { MinCount: 1, MaxCount: 1 };
const launch = { ImageId: image, InstanceType: "t3.micro", ...one };
const http = [{ IpProtocol: "tcp", FromPort: 80, ToPort: 80, IpRanges: [{ CidrIp: "10.9.9.9/32" }] }];

type Provoked = readonly [code: string, operation: string, input: object];

export function unknownIds(): Provoked[] {
  return [
    ["InvalidVpcID.NotFound", "DescribeVpcs", { VpcIds: [`vpc-${absent}`] }],
    ["InvalidVpcId.Malformed", "DeleteVpc", { VpcId: "vpc-1" }],
    ["InvalidSubnetID.NotFound", "DeleteSubnet", { SubnetId: `subnet-${absent}` }],
    ["InvalidSubnetID.Malformed", "DescribeSubnets", { SubnetIds: ["subnet-1"] }],
    ["InvalidNetworkInterfaceID.NotFound", "DeleteNetworkInterface", { NetworkInterfaceId: `eni-${absent}` }],
    ["InvalidNetworkInterfaceId.Malformed", "DeleteNetworkInterface", { NetworkInterfaceId: "eni-1" }],
    ["InvalidInternetGatewayID.NotFound", "DeleteInternetGateway", { InternetGatewayId: `igw-${absent}` }],
    ["InvalidInternetGatewayId.Malformed", "DeleteInternetGateway", { InternetGatewayId: "igw-1" }],
    ["InvalidRouteTableID.NotFound", "DeleteRouteTable", { RouteTableId: `rtb-${absent}` }],
    ["InvalidRouteTableId.Malformed", "DeleteRouteTable", { RouteTableId: "rtb-1" }],
    ["InvalidGroup.NotFound", "DeleteSecurityGroup", { GroupId: `sg-${absent}` }],
    ["InvalidGroup.NotFound", "DeleteSecurityGroup", { GroupName: "no such group" }],
    ["InvalidGroupId.Malformed", "DescribeSecurityGroups", { GroupIds: ["sg-1"] }],
    ["InvalidKeyPair.NotFound", "RunInstances", { ...launch, KeyName: "none" }],
    ["InvalidKeyPair.Malformed", "DescribeKeyPairs", { KeyPairIds: ["key-1"] }],
    ["InvalidVolume.NotFound", "DeleteVolume", { VolumeId: `vol-${absent}` }],
    ["InvalidVolumeID.Malformed", "DeleteVolume", { VolumeId: "vol-1" }],
    ["InvalidAllocationID.NotFound", "ReleaseAddress", { AllocationId: `eipalloc-${absent}` }],
    ["InvalidAddress.NotFound", "ReleaseAddress", { PublicIp: "192.0.2.1" }],
    ["InvalidInstanceID.NotFound", "StopInstances", { InstanceIds: [`i-${absent}`] }],
    [
      "InvalidInstanceID.NotFound",
      "DescribeInstances",
      { InstanceIds: [`i-${absent}`, "i-1123456789abcdef0"] },
    ],
    ["InvalidInstanceID.Malformed", "TerminateInstances", { InstanceIds: ["i-1"] }],
    ["InvalidAMIID.NotFound", "RunInstances", { ...launch, ImageId: `ami-${absent}` }],
    ["InvalidAMIID.Malformed", "RunInstances", { ...launch, ImageId: "ami-1" }],
    [
      "InvalidSnapshot.NotFound",
      "CreateVolume",
      { AvailabilityZone: "us-east-1a", SnapshotId: `snap-${absent}` },
    ],
    ["InvalidAssociationID.NotFound", "DisassociateAddress", { AssociationId: `eipassoc-${absent}` }],
    ["InvalidAssociationID.NotFound", "DisassociateRouteTable", { AssociationId: `rtbassoc-${absent}` }],
    ["InvalidAssociationID.Malformed", "DisassociateRouteTable", { AssociationId: "rtbassoc-1" }],
    ["InvalidID", "CreateTags", { Resources: ["zzz-1"], Tags: [{ Key: "a", Value: "b" }] }],
    ["InvalidInstanceType", "DescribeInstanceTypes", { InstanceTypes: ["x1.none"] }],
    ["InvalidNextToken", "DescribeVolumes", { NextToken: "not one of ours" }],
  ];
}

export function wrongValues({ vpc, group, servers: [first, , stopped] }: Shop): Provoked[] {
  const many = Array.from({ length: 201 }, (_, index) => `value-${index}`);
  const twice = { DeviceName: "/dev/sdb", Ebs: { VolumeSize: 1 } };
  return [
    ["InvalidParameterValue", "RunInstances", { ...launch, InstanceType: "x1.none" }],
    ["InvalidParameterValue", "DescribeInstances", { Filters: [{ Name: "nope", Values: ["x"] }] }],
    ["InvalidParameterValue", "CreateTags", { Resources: [vpc], Tags: [{ Key: "aws:mine", Value: "" }] }],
    ["InvalidParameterValue", "CreateVolume", { AvailabilityZone: "us-east-1z", Size: 1 }],
    ["InvalidParameterCombination", "DescribeInstances", { InstanceIds: [first], MaxResults: 5 }],
    ["FilterLimitExceeded", "DescribeVolumes", { Filters: [{ Name: "status", Values: many }] }],
    ["MissingParameter", "AssociateAddress", { InstanceId: first }],
    [
      "InvalidParameterValue",
      "ModifyInstanceAttribute",
      { InstanceId: stopped, UserData: { Value: bytes("x".repeat(16_385)) } },
    ],
    ["InvalidVpc.Range", "CreateVpc", { CidrBlock: "10.0.0.0/8" }],
    ["InvalidSubnet.Range", "CreateSubnet", { VpcId: vpc, CidrBlock: "10.1.0.0/24" }],
    ["InvalidSubnet.Conflict", "CreateSubnet", { VpcId: vpc, CidrBlock: "10.0.1.0/25" }],
    ["InvalidKey.Format", "ImportKeyPair", { KeyName: "bad", PublicKeyMaterial: bytes("not a key") }],
    ["InvalidBlockDeviceMapping", "RunInstances", { ...launch, BlockDeviceMappings: [twice, twice] }],
    [
      "InvalidInstanceAttributeValue",
      "ModifyInstanceAttribute",
      {
        InstanceId: first,
        BlockDeviceMappings: [{ DeviceName: "/dev/sdz", Ebs: { DeleteOnTermination: true } }],
      },
    ],
    [
      "InvalidUserData.Malformed",
      "ModifyInstanceAttribute",
      { InstanceId: stopped, Attribute: "userData", Value: "*** is not base64" },
    ],
    ["InvalidPermission.NotFound", "RevokeSecurityGroupIngress", { GroupId: group, IpPermissions: http }],
    [
      "InvalidSecurityGroupRuleId.NotFound",
      "RevokeSecurityGroupIngress",
      { GroupId: group, SecurityGroupRuleIds: [`sgr-${absent}`] },
    ],
    [
      "InvalidSecurityGroupRuleId.Malformed",
      "RevokeSecurityGroupIngress",
      { GroupId: group, SecurityGroupRuleIds: ["sgr-1"] },
    ],
    ["UnsupportedOperation", "CreateFlowLogs", { ResourceIds: [vpc], ResourceType: "VPC" }],
    ["UnsupportedOperation", "DescribeFlowLogs", {}],
  ];
}

export function conflicts(shop: Shop): Provoked[] {
  const { vpc, subnet, gateway, table, group, servers, volume, spareVolume, address, port } = shop;
  const [first, kept, stopped] = servers;
  return [
    ["DependencyViolation", "DeleteVpc", { VpcId: vpc }],
    ["DependencyViolation", "DeleteSubnet", { SubnetId: subnet }],
    ["DependencyViolation", "DeleteSecurityGroup", { GroupId: group }],
    ["DependencyViolation", "DeleteInternetGateway", { InternetGatewayId: gateway }],
    ["DependencyViolation", "DetachInternetGateway", { InternetGatewayId: gateway, VpcId: vpc }],
    ["DependencyViolation", "DeleteRouteTable", { RouteTableId: table }],
    ["VolumeInUse", "DeleteVolume", { VolumeId: volume }],
    ["VolumeInUse", "AttachVolume", { VolumeId: volume, InstanceId: kept, Device: "/dev/sdh" }],
    ["InvalidIPAddress.InUse", "ReleaseAddress", { AllocationId: address }],
    [
      "InvalidIPAddress.InUse",
      "RunInstances",
      { ...launch, SubnetId: subnet, PrivateIpAddress: "10.0.0.77" },
    ],
    ["InvalidGroup.Duplicate", "CreateSecurityGroup", { GroupName: "web", Description: "again", VpcId: vpc }],
    [
      "InvalidPermission.Duplicate",
      "AuthorizeSecurityGroupIngress",
      {
        GroupId: group,
        IpPermissions: [{ IpProtocol: "tcp", FromPort: 80, ToPort: 81, IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
      },
    ],
    ["InvalidKeyPair.Duplicate", "CreateKeyPair", { KeyName: "ops" }],
    [
      "RouteAlreadyExists",
      "CreateRoute",
      { RouteTableId: table, DestinationCidrBlock: "0.0.0.0/0", InstanceId: first },
    ],
    ["InvalidRoute.NotFound", "DeleteRoute", { RouteTableId: table, DestinationCidrBlock: "192.0.2.0/24" }],
    ["IncorrectState", "DetachVolume", { VolumeId: spareVolume }],
    [
      "IncorrectInstanceState",
      "ModifyInstanceAttribute",
      { InstanceId: first, InstanceType: { Value: "m5.large" } },
    ],
    ["IncorrectInstanceState", "RebootInstances", { InstanceIds: [stopped] }],
    ["Resource.AlreadyAssociated", "AttachInternetGateway", { InternetGatewayId: gateway, VpcId: vpc }],
    [
      "Resource.AlreadyAssociated",
      "AssociateAddress",
      { AllocationId: address, NetworkInterfaceId: port, AllowReassociation: false },
    ],
    ["InvalidAttachment.NotFound", "DetachVolume", { VolumeId: volume, InstanceId: kept }],
    [
      "InvalidVolume.ZoneMismatch",
      "AttachVolume",
      { VolumeId: spareVolume, InstanceId: first, Device: "/dev/sdi" },
    ],
    ["OperationNotPermitted", "TerminateInstances", { InstanceIds: [kept] }],
    ["DefaultVpcAlreadyExists", "CreateDefaultVpc", {}],
  ];
}

/** Those that need something of their own first, which goes again. */
export async function provokeWithMore(session: Session, shop: Shop): Promise<void> {
  const { vpc, subnet, servers, address } = shop;
  const [first] = servers;
  const groups = await session.done("DescribeSecurityGroups", {
    Filters: [
      { Name: "vpc-id", Values: [vpc] },
      { Name: "group-name", Values: ["default"] },
    ],
  });
  await session.refused("CannotDelete", "DeleteSecurityGroup", {
    GroupId: text(groups, "SecurityGroups.0.GroupId"),
  });
  const ports = await session.done("DescribeNetworkInterfaces", {
    Filters: [{ Name: "attachment.instance-id", Values: [first] }],
  });
  const NetworkInterfaceId = text(ports, "NetworkInterfaces.0.NetworkInterfaceId");
  await session.refused("InvalidNetworkInterface.InUse", "DeleteNetworkInterface", { NetworkInterfaceId });
  const table = text(await session.done("CreateRouteTable", { VpcId: vpc }), "RouteTable.RouteTableId");
  await session.refused("Resource.AlreadyAssociated", "AssociateRouteTable", {
    RouteTableId: table,
    SubnetId: subnet,
  });
  await session.done("DeleteRouteTable", { RouteTableId: table });
  const other = text(await session.done("CreateVpc", { CidrBlock: "10.7.0.0/16" }), "Vpc.VpcId");
  const foreign = { GroupName: "foreign", Description: "of another network", VpcId: other };
  const group = text(await session.done("CreateSecurityGroup", foreign), "GroupId");
  await session.refused("InvalidParameter", "RunInstances", {
    ...launch,
    SubnetId: subnet,
    SecurityGroupIds: [group],
  });
  const small = text(
    await session.done("CreateSubnet", { VpcId: other, CidrBlock: "10.7.0.0/28" }),
    "Subnet.SubnetId",
  );
  await session.refused("InsufficientFreeAddressesInSubnet", "RunInstances", {
    ...launch,
    SubnetId: small,
    MinCount: 12,
    MaxCount: 12,
  });
  const lone = await session.done("RunInstances", { ...launch, SubnetId: small });
  const ids = list(lone, "Instances").map((each) => text(each, "InstanceId"));
  await session.wait("InstanceRunning", { InstanceIds: ids });
  await session.refused("Gateway.NotAttached", "AssociateAddress", {
    AllocationId: address,
    InstanceId: ids[0],
  });
  await session.done("TerminateInstances", { InstanceIds: ids });
  await session.wait("InstanceTerminated", { InstanceIds: ids });
  await session.refused("IncorrectInstanceState", "StartInstances", { InstanceIds: ids });
  await session.refused("InvalidInstanceID", "AssociateAddress", {
    AllocationId: address,
    InstanceId: ids[0],
  });
  await session.done("DeleteSubnet", { SubnetId: small });
  await session.done("DeleteSecurityGroup", { GroupId: group });
  await session.done("DeleteVpc", { VpcId: other });
}

/** Quotas that are reached by the shop as it stands, and what goes beyond each. */
export function quotasReached(shop: Shop): {
  readonly quotas: Readonly<Record<string, number>>;
  readonly beyond: readonly Provoked[];
  /** With a quota of one vCPU. */
  readonly beyondVcpus: readonly Provoked[];
} {
  const { vpc, subnet, group, servers } = shop;
  return {
    quotas: {
      servers: 1,
      networks: 1,
      subnetsPerNetwork: 1,
      gateways: 1,
      groups: 1,
      rulesPerGroup: 1,
      groupsPerPort: 0,
      keyPairs: 1,
      volumes: 1,
      addresses: 1,
      tagsPerResource: 1,
    },
    beyond: [
      ["InstanceLimitExceeded", "RunInstances", { ...launch, MinCount: 3, MaxCount: 4 }],
      ["VpcLimitExceeded", "CreateVpc", { CidrBlock: "10.8.0.0/16" }],
      ["SubnetLimitExceeded", "CreateSubnet", { VpcId: vpc, CidrBlock: "10.0.9.0/24" }],
      ["InternetGatewayLimitExceeded", "CreateInternetGateway", {}],
      ["SecurityGroupLimitExceeded", "CreateSecurityGroup", { GroupName: "b", Description: "b", VpcId: vpc }],
      [
        "RulesPerSecurityGroupLimitExceeded",
        "AuthorizeSecurityGroupIngress",
        { GroupId: group, IpPermissions: http },
      ],
      [
        "SecurityGroupsPerInterfaceLimitExceeded",
        "CreateNetworkInterface",
        { SubnetId: subnet, Groups: [group] },
      ],
      ["KeyPairLimitExceeded", "CreateKeyPair", { KeyName: "c", KeyType: "ed25519" }],
      ["VolumeLimitExceeded", "CreateVolume", { AvailabilityZone: "us-east-1a", Size: 1 }],
      ["AddressLimitExceeded", "AllocateAddress", {}],
      ["TagLimitExceeded", "CreateTags", { Resources: [servers[0]], Tags: [{ Key: "more", Value: "" }] }],
    ],
    beyondVcpus: [["VcpuLimitExceeded", "RunInstances", launch]],
  };
}

/** At the very end: without a default subnet, then without a default network. */
export async function provokeWithoutDefaults(session: Session): Promise<void> {
  const isDefault = { Filters: [{ Name: "is-default", Values: ["true"] }] };
  const VpcId = text(await session.done("DescribeVpcs", isDefault), "Vpcs.0.VpcId");
  const subnets = await session.done("DescribeSubnets", { Filters: [{ Name: "vpc-id", Values: [VpcId] }] });
  for (const each of list(subnets, "Subnets")) {
    await session.done("DeleteSubnet", { SubnetId: text(each, "SubnetId") });
  }
  await session.refused("MissingInput", "RunInstances", launch);
  const attached = { Filters: [{ Name: "attachment.vpc-id", Values: [VpcId] }] };
  const gateways = await session.done("DescribeInternetGateways", attached);
  const InternetGatewayId = text(gateways, "InternetGateways.0.InternetGatewayId");
  await session.done("DetachInternetGateway", { InternetGatewayId, VpcId });
  await session.done("DeleteInternetGateway", { InternetGatewayId });
  await session.done("DeleteVpc", { VpcId });
  await session.refused("VPCIdNotSpecified", "RunInstances", launch);
}

export async function provoke(session: Session, provoked: readonly Provoked[]): Promise<void> {
  for (const [code, operation, input] of provoked) await session.refused(code, operation, input);
}

/** Codes that no client's request leads to, and why. */
const unreachable: Readonly<Record<string, string>> = {
  "InvalidID.Malformed": "every kind that is looked up by id has words of its own",
  "InvalidID.NotFound": "the same",
  "InvalidAllocationID.Malformed": "a malformed allocation id is answered as one that does not exist",
  "InvalidSnapshotID.Malformed": "snapshots are refused before their id is looked at",
};

/** Every code that stands in the dialect's sources, less those that cannot be reached. */
export function allCodes(): ReadonlySet<string> {
  const folder = new URL("../../../src/devcloud/ec2/", import.meta.url);
  const codes = new Set<string>();
  for (const file of readdirSync(folder).filter((name) => !name.includes(".test."))) {
    const source = readFileSync(new URL(file, folder), "utf8");
    for (const [, code = ""] of source.matchAll(/(?:\berror|AwsProtocolError)\(\s*"([A-Za-z.]+)"/g))
      codes.add(code);
    for (const [, code = ""] of source.matchAll(/\[?"([A-Za-z]+LimitExceeded)"/g)) codes.add(code);
    for (const [, code = ""] of source.matchAll(/notFound: "([A-Za-z]+)"/g)) codes.add(`${code}.NotFound`);
    for (const [, code = ""] of source.matchAll(/malformed: "([A-Za-z]+)"/g)) codes.add(`${code}.Malformed`);
  }
  for (const code of Object.keys(unreachable)) codes.delete(code);
  return codes;
}
