/** Commands on VPCs, subnets, gateways and routes. */
import type {
  AttachInternetGatewayRequest,
  CreateDefaultSubnetResult,
  CreateDefaultVpcResult,
  CreateRouteRequest,
  CreateSubnetRequest,
  CreateSubnetResult,
  CreateVpcRequest,
  CreateVpcResult,
  DeleteSubnetRequest,
  DeleteVpcRequest,
  ModifySubnetAttributeRequest,
} from "@aws-sdk/client-ec2";
import type { Ec2Translators } from "./ec2-effect.ts";
import { changed, fieldGaps, id, noEffect, operationGap } from "./ec2-effect.ts";
import { networkFromVpc, subnetFromEc2 } from "./ec2-resources.ts";
import { tagsOfCreated } from "./ec2-tags.ts";

const simplified =
  "routing per subnet is simplified on the standby: every subnet of a network with internet access routes to it";

export const networkTranslators = {
  CreateVpc: (input: CreateVpcRequest, output: CreateVpcResult) => {
    const vpc = output.Vpc ?? {};
    const resource = networkFromVpc({ CidrBlock: input.CidrBlock, ...vpc }, false);
    const tags = tagsOfCreated(vpc.Tags, input.TagSpecifications, "vpc");
    const findings =
      input.AmazonProvidedIpv6CidrBlock === true || input.Ipv6CidrBlock !== undefined
        ? [{ severity: "degraded", message: "the network's IPv6 prefix is not carried over" } as const]
        : [];
    return {
      changes: [{ type: "create", ...resource, tags }],
      gaps: fieldGaps("CreateVpc", resource, findings),
    };
  },
  CreateDefaultVpc: (_input: object, output: CreateDefaultVpcResult) => {
    const resource = networkFromVpc(output.Vpc ?? {}, true);
    return {
      changes: [{ type: "create", ...resource }],
      gaps: [
        {
          code: "reference.missing",
          severity: "degraded",
          resource: { kind: "network", id: resource.id },
          operation: "ec2:CreateDefaultVpc",
          message:
            "the default network's subnets are not in the cloud's answer: read the environment again (understudy env rescan)",
        },
      ],
    };
  },
  DeleteVpc: (input: DeleteVpcRequest) => changed({ type: "delete", kind: "network", id: id(input.VpcId) }),
  ModifyVpcAttribute: () =>
    operationGap("ModifyVpcAttribute", "note", "the network's DNS settings are the standby's own"),
  CreateSubnet: (input: CreateSubnetRequest, output: CreateSubnetResult) => {
    const subnet = output.Subnet ?? {};
    const asked = {
      VpcId: input.VpcId,
      CidrBlock: input.CidrBlock,
      AvailabilityZone: input.AvailabilityZone,
    };
    const resource = subnetFromEc2({ ...asked, ...subnet });
    return changed({
      type: "create",
      ...resource,
      tags: tagsOfCreated(subnet.Tags, input.TagSpecifications, "subnet"),
    });
  },
  CreateDefaultSubnet: (_input: object, output: CreateDefaultSubnetResult) =>
    changed({ type: "create", ...subnetFromEc2(output.Subnet ?? {}) }),
  DeleteSubnet: (input: DeleteSubnetRequest) =>
    changed({ type: "delete", kind: "subnet", id: id(input.SubnetId) }),
  ModifySubnetAttribute: (input: ModifySubnetAttributeRequest) => {
    const publicAddresses = input.MapPublicIpOnLaunch?.Value;
    if (publicAddresses === undefined) {
      return operationGap(
        "ModifySubnetAttribute",
        "note",
        "of a subnet's attributes only MapPublicIpOnLaunch is carried over",
      );
    }
    return changed({ type: "update", kind: "subnet", id: id(input.SubnetId), set: { publicAddresses } });
  },
  // The gateway is part of the network: it counts from the moment that it is attached.
  CreateInternetGateway: () => noEffect,
  DeleteInternetGateway: () => noEffect,
  AttachInternetGateway: (input: AttachInternetGatewayRequest) =>
    changed({ type: "update", kind: "network", id: id(input.VpcId), set: { internet: true } }),
  DetachInternetGateway: (input: AttachInternetGatewayRequest) =>
    changed({ type: "update", kind: "network", id: id(input.VpcId), set: { internet: false } }),
  CreateRoute: (input: CreateRouteRequest) => {
    const everywhere = [input.DestinationCidrBlock, input.DestinationIpv6CidrBlock].some(
      (prefix) => prefix === "0.0.0.0/0" || prefix === "::/0",
    );
    if (everywhere && input.GatewayId?.startsWith("igw-")) return noEffect;
    const to = input.DestinationCidrBlock ?? input.DestinationIpv6CidrBlock ?? input.DestinationPrefixListId;
    return operationGap(
      "CreateRoute",
      "degraded",
      `the route to ${to ?? "?"} has no counterpart: ${simplified}`,
    );
  },
  ReplaceRoute: () => operationGap("ReplaceRoute", "degraded", simplified),
  DeleteRoute: () => operationGap("DeleteRoute", "note", simplified),
  CreateRouteTable: () => operationGap("CreateRouteTable", "note", simplified),
  DeleteRouteTable: () => operationGap("DeleteRouteTable", "note", simplified),
  AssociateRouteTable: () => operationGap("AssociateRouteTable", "note", simplified),
  DisassociateRouteTable: () => operationGap("DisassociateRouteTable", "note", simplified),
  ReplaceRouteTableAssociation: () => operationGap("ReplaceRouteTableAssociation", "note", simplified),
} satisfies Ec2Translators;
