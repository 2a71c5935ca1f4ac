/** A shop's life, as any client can drive it: create, describe with filters and pages, modify, tag, attach, delete. */
import assert from "node:assert/strict";
import { at, bytes, list, text } from "./client.ts";
import type { Session } from "./transcript.ts";
import { image } from "./two-ways.ts";

export interface Shop {
  readonly vpc: string;
  readonly subnet: string;
  readonly otherSubnet: string;
  readonly gateway: string;
  readonly table: string;
  readonly group: string;
  /** Running, running, stopped; the first has the volume and the address. */
  readonly servers: readonly [string, string, string];
  readonly volume: string;
  readonly spareVolume: string;
  readonly address: string;
  readonly port: string;
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGf6qCz0zTbNBEaDnNmUkVaTKZVpUn1mWNaFqbAuFIhS ops@shop";

/** Whatever a tag may hold: other scripts, both planes, what XML and forms escape. */
const oddText = 'Käse & <Brot> "日本" 🛒 a+b=c%20;\'/';

const named = (ResourceType: string, Value: string): object => ({
  TagSpecifications: [{ ResourceType, Tags: [{ Key: "Name", Value }] }],
});
const filter = (Name: string, ...Values: string[]): object => ({ Filters: [{ Name, Values }] });

export async function buildShop(session: Session): Promise<Shop> {
  const network = await buildNetwork(session);
  const group = await buildGroup(session, network.vpc);
  const servers = await buildServers(session, network.subnet, group);
  const disks = await buildDisks(session, servers[0]);
  const [address, port] = await buildAddresses(session, network.subnet, group, servers[0]);
  await retag(session, network.vpc, servers);
  return { ...network, group, servers, ...disks, address, port };
}

async function buildNetwork(
  session: Session,
): Promise<Pick<Shop, "vpc" | "subnet" | "otherSubnet" | "gateway" | "table">> {
  const vpc = text(
    await session.done("CreateVpc", { CidrBlock: "10.0.0.0/16", ...named("vpc", oddText) }),
    "Vpc.VpcId",
  );
  await session.wait("VpcAvailable", { VpcIds: [vpc] });
  await session.done("ModifyVpcAttribute", { VpcId: vpc, EnableDnsHostnames: { Value: true } });
  await session.done("DescribeVpcAttribute", { VpcId: vpc, Attribute: "enableDnsHostnames" });
  const subnets: string[] = [];
  for (let index = 0; index < 7; index += 1) {
    const made = await session.done("CreateSubnet", {
      VpcId: vpc,
      CidrBlock: `10.0.${index}.0/24`,
      AvailabilityZone: index % 2 === 0 ? "us-east-1a" : "us-east-1b",
      ...named("subnet", `part-${index}`),
    });
    subnets.push(text(made, "Subnet.SubnetId"));
  }
  const pages = await session.pages("DescribeSubnets", filter("vpc-id", vpc), 5);
  assert.deepEqual(
    pages.map((page) => list(page, "Subnets").length),
    [5, 2],
  );
  const [subnet = "", otherSubnet = "", ...spare] = subnets;
  for (const id of spare) await session.done("DeleteSubnet", { SubnetId: id });
  await session.done("ModifySubnetAttribute", { SubnetId: subnet, MapPublicIpOnLaunch: { Value: true } });
  await session.done("DescribeSubnets", { SubnetIds: [subnet, otherSubnet] });
  const gateway = text(
    await session.done("CreateInternetGateway", named("internet-gateway", "out")),
    "InternetGateway.InternetGatewayId",
  );
  await session.done("AttachInternetGateway", { InternetGatewayId: gateway, VpcId: vpc });
  const table = text(
    await session.done("CreateRouteTable", { VpcId: vpc, ...named("route-table", "public") }),
    "RouteTable.RouteTableId",
  );
  await session.done("CreateRoute", {
    RouteTableId: table,
    DestinationCidrBlock: "0.0.0.0/0",
    GatewayId: gateway,
  });
  await session.done("AssociateRouteTable", { RouteTableId: table, SubnetId: subnet });
  await session.done("DescribeRouteTables", filter("vpc-id", vpc));
  await session.done("DescribeInternetGateways", filter("attachment.vpc-id", vpc));
  return { vpc, subnet, otherSubnet, gateway, table };
}

async function buildGroup(session: Session, vpc: string): Promise<string> {
  const made = await session.done("CreateSecurityGroup", {
    GroupName: "web",
    Description: "what shoppers reach",
    VpcId: vpc,
    ...named("security-group", "web"),
  });
  const group = text(made, "GroupId");
  await session.done("AuthorizeSecurityGroupIngress", {
    GroupId: group,
    IpPermissions: [
      {
        IpProtocol: "tcp",
        FromPort: 80,
        ToPort: 81,
        IpRanges: [{ CidrIp: "0.0.0.0/0", Description: "all" }],
        Ipv6Ranges: [{ CidrIpv6: "::/0" }],
      },
      { IpProtocol: "icmp", FromPort: -1, ToPort: -1, IpRanges: [{ CidrIp: "10.0.0.0/8" }] },
      { IpProtocol: "tcp", FromPort: 22, ToPort: 22, UserIdGroupPairs: [{ GroupId: group }] },
    ],
  });
  await session.done("RevokeSecurityGroupIngress", {
    GroupId: group,
    IpPermissions: [{ IpProtocol: "icmp", FromPort: -1, ToPort: -1, IpRanges: [{ CidrIp: "10.0.0.0/8" }] }],
  });
  await session.done("RevokeSecurityGroupEgress", {
    GroupId: group,
    IpPermissions: [{ IpProtocol: "-1", IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
  });
  await session.done("AuthorizeSecurityGroupEgress", {
    GroupId: group,
    IpPermissions: [{ IpProtocol: "tcp", FromPort: 443, ToPort: 443, IpRanges: [{ CidrIp: "0.0.0.0/0" }] }],
  });
  await session.done("DescribeSecurityGroups", { GroupIds: [group] });
  await session.done("DescribeSecurityGroupRules", filter("group-id", group));
  return group;
}

async function buildServers(session: Session, subnet: string, group: string): Promise<Shop["servers"]> {
  await session.done("ImportKeyPair", { KeyName: "ops", PublicKeyMaterial: bytes(publicKey) });
  await session.done("CreateKeyPair", { KeyName: "made", KeyType: "ed25519", ...named("key-pair", "made") });
  await session.done("DescribeKeyPairs", { KeyNames: ["ops", "made"], IncludePublicKey: true });
  await session.done("DescribeImages", { ImageIds: [image] });
  await session.done("DescribeInstanceTypes", { InstanceTypes: ["t3.micro"] });
  const launch = {
    ImageId: image,
    InstanceType: "t3.micro",
    SubnetId: subnet,
    SecurityGroupIds: [group],
    KeyName: "ops",
  };
  const web = { ...launch, MinCount: 7, MaxCount: 7, ClientToken: "web-1", ...named("instance", "web") };
  // As large as user data may be.
  const script = `#!/bin/sh\n# ${"größer ".repeat(2044)}\n`.slice(0, 12_600);
  const first = await session.done("RunInstances", { ...web, UserData: session.client.userData(script) });
  const idsOf = (answer: typeof first): string[] =>
    list(answer, "Instances").map((each) => text(each, "InstanceId"));
  const ids = idsOf(first);
  await session.wait("InstanceRunning", { InstanceIds: ids });
  // Once they are running: an answer shows the servers as they are.
  const again = await session.done("RunInstances", { ...web, UserData: session.client.userData(script) });
  assert.deepEqual(idsOf(again), ids, "the same token is the same launch");
  await session.refused("IdempotentParameterMismatch", "RunInstances", { ...web, InstanceType: "t3.small" });
  await session.refused("DryRunOperation", "RunInstances", {
    ...launch,
    MinCount: 1,
    MaxCount: 1,
    DryRun: true,
  });
  const pages = await session.pages(
    "DescribeInstances",
    {
      Filters: [
        { Name: "tag:Name", Values: ["w?b*"] },
        { Name: "instance-state-name", Values: ["running", "stopped"] },
      ],
    },
    5,
  );
  assert.deepEqual(
    pages.map((page) => list(page, "Reservations").flatMap((each) => list(each, "Instances")).length),
    [5, 2],
  );
  await session.done("DescribeInstanceStatus", { InstanceIds: ids });
  const [one = "", two = "", three = "", ...spare] = ids;
  await session.done("DescribeInstanceAttribute", { InstanceId: one, Attribute: "userData" });
  await session.done("TerminateInstances", { InstanceIds: spare });
  await session.wait("InstanceTerminated", { InstanceIds: spare });
  await session.done("RebootInstances", { InstanceIds: [two] });
  await session.done("StopInstances", { InstanceIds: [two, three] });
  await session.wait("InstanceStopped", { InstanceIds: [two, three] });
  await session.done("ModifyInstanceAttribute", { InstanceId: two, InstanceType: { Value: "t3.large" } });
  await session.done("ModifyInstanceAttribute", {
    InstanceId: two,
    UserData: { Value: bytes("#!/bin/sh\necho two\n") },
  });
  await session.done("ModifyInstanceAttribute", { InstanceId: two, DisableApiTermination: { Value: true } });
  await session.done("StartInstances", { InstanceIds: [two] });
  await session.wait("InstanceRunning", { InstanceIds: [two] });
  return [one, two, three];
}

async function buildDisks(session: Session, server: string): Promise<Pick<Shop, "volume" | "spareVolume">> {
  const volume = text(
    await session.done("CreateVolume", {
      AvailabilityZone: "us-east-1a",
      Size: 10,
      VolumeType: "gp3",
      ...named("volume", "data"),
    }),
    "VolumeId",
  );
  const spareVolume = text(
    await session.done("CreateVolume", { AvailabilityZone: "us-east-1b", Size: 4 }),
    "VolumeId",
  );
  const lost = text(
    await session.done("CreateVolume", { AvailabilityZone: "us-east-1a", Size: 1 }),
    "VolumeId",
  );
  await session.wait("VolumeAvailable", { VolumeIds: [volume, spareVolume, lost] });
  await session.done("ModifyVolume", { VolumeId: volume, Size: 20 });
  await session.done("DescribeVolumesModifications", { VolumeIds: [volume] });
  await session.done("AttachVolume", { VolumeId: volume, InstanceId: server, Device: "/dev/sdf" });
  await session.wait("VolumeInUse", { VolumeIds: [volume] });
  await session.done("AttachVolume", { VolumeId: lost, InstanceId: server, Device: "/dev/sdg" });
  await session.done("DetachVolume", { VolumeId: lost });
  await session.done("DeleteVolume", { VolumeId: lost });
  await session.wait("VolumeDeleted", { VolumeIds: [lost] });
  await session.done("DescribeVolumes", filter("attachment.instance-id", server));
  return { volume, spareVolume };
}

async function buildAddresses(
  session: Session,
  subnet: string,
  group: string,
  server: string,
): Promise<[address: string, port: string]> {
  const address = text(
    await session.done("AllocateAddress", { Domain: "vpc", ...named("elastic-ip", "front") }),
    "AllocationId",
  );
  const other = text(await session.done("AllocateAddress", {}), "AllocationId");
  await session.done("AssociateAddress", { AllocationId: address, InstanceId: server });
  await session.done("ReleaseAddress", { AllocationId: other });
  await session.done("DescribeAddresses", filter("instance-id", server));
  const port = text(
    await session.done("CreateNetworkInterface", {
      SubnetId: subnet,
      Groups: [group],
      Description: "spare",
      PrivateIpAddress: "10.0.0.77",
    }),
    "NetworkInterface.NetworkInterfaceId",
  );
  await session.done("ModifyNetworkInterfaceAttribute", {
    NetworkInterfaceId: port,
    SourceDestCheck: { Value: false },
  });
  await session.done("DescribeNetworkInterfaces", filter("network-interface-id", port));
  return [address, port];
}

async function retag(session: Session, vpc: string, servers: readonly string[]): Promise<void> {
  await session.done("CreateTags", {
    Resources: [vpc, ...servers],
    Tags: [
      { Key: "tier", Value: "web" },
      { Key: "Straße/№", Value: oddText },
      { Key: "empty", Value: "" },
    ],
  });
  await session.done("DeleteTags", {
    Resources: [vpc],
    Tags: [{ Key: "tier", Value: "web" }, { Key: "empty" }],
  });
  const tags = await session.pages("DescribeTags", filter("resource-id", vpc, ...servers), 5);
  assert.ok(tags.length > 1);
  const found = await session.done("DescribeVpcs", filter("tag:Straße/№", oddText));
  assert.equal(text(found, "Vpcs.0.VpcId"), vpc, "a filter finds what a tag holds, whatever it is");
}

/** Takes all of it down again, the spare things first. */
export async function clearShop(session: Session, shop: Shop): Promise<void> {
  const { vpc, subnet, otherSubnet, gateway, table, group, servers, volume, spareVolume, address, port } =
    shop;
  const addresses = await session.done("DescribeAddresses", { AllocationIds: [address] });
  await session.done("DisassociateAddress", { AssociationId: text(addresses, "Addresses.0.AssociationId") });
  await session.done("ReleaseAddress", { AllocationId: address });
  await session.done("DeleteNetworkInterface", { NetworkInterfaceId: port });
  await session.done("DetachVolume", { VolumeId: volume, InstanceId: servers[0] });
  await session.done("DeleteVolume", { VolumeId: volume });
  await session.done("DeleteVolume", { VolumeId: spareVolume });
  await session.done("ModifyInstanceAttribute", {
    InstanceId: servers[1],
    DisableApiTermination: { Value: false },
  });
  await session.done("TerminateInstances", { InstanceIds: servers });
  await session.wait("InstanceTerminated", { InstanceIds: servers });
  const tables = await session.done("DescribeRouteTables", { RouteTableIds: [table] });
  await session.done("DisassociateRouteTable", {
    AssociationId: at(tables, "RouteTables.0.Associations.0.RouteTableAssociationId"),
  });
  await session.done("DeleteRoute", { RouteTableId: table, DestinationCidrBlock: "0.0.0.0/0" });
  await session.done("DeleteRouteTable", { RouteTableId: table });
  await session.done("DetachInternetGateway", { InternetGatewayId: gateway, VpcId: vpc });
  await session.done("DeleteInternetGateway", { InternetGatewayId: gateway });
  for (const id of [subnet, otherSubnet]) await session.done("DeleteSubnet", { SubnetId: id });
  await session.done("DeleteSecurityGroup", { GroupId: group });
  await session.done("DeleteVpc", { VpcId: vpc });
  await session.done("DeleteKeyPair", { KeyName: "ops" });
  await session.done("DeleteKeyPair", { KeyName: "made" });
  await session.done("GetCallerIdentity", {}, "sts");
}
