/** Elastic IPs and network interfaces. */
import type * as Api from "@aws-sdk/client-ec2";
import {
  allocateAddress,
  associateAddress,
  disassociateAddress,
  releaseAddress,
} from "#devcloud/core/addresses.ts";
import { find, findAll } from "#devcloud/core/cloud.ts";
import { createPort, deletePort, setPortGroups } from "#devcloud/core/ports.ts";
import type { AddressRecord, PortRecord } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import {
  type Answer,
  type Ec2,
  type Operation,
  onceByToken,
  required,
  specifiedTags,
  tagList,
} from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { networkInterface } from "./ec2-instance.ts";
import { pageOf } from "./ec2-page.ts";

function addressShape(ec2: Ec2, address: AddressRecord): Api.Address {
  const held = address.association;
  return {
    PublicIp: address.ip,
    AllocationId: address.id,
    Domain: "vpc",
    PublicIpv4Pool: "amazon",
    NetworkBorderGroup: ec2.cloud.catalog.region,
    Tags: tagList(address.tags),
    ...(held === null
      ? {}
      : {
          AssociationId: held.id,
          NetworkInterfaceId: held.portId,
          NetworkInterfaceOwnerId: ec2.accountId,
          PrivateIpAddress: held.privateIp,
          ...(held.serverId === null ? {} : { InstanceId: held.serverId }),
        }),
  };
}

function byIp(ec2: Ec2, ip: string): AddressRecord {
  const found = ec2.cloud.data.tables.address.by("ip", ip)[0];
  if (found === undefined)
    throw new AwsProtocolError("InvalidAddress.NotFound", `Address '${ip}' not found.`);
  return found;
}

function named(
  ec2: Ec2,
  input: { readonly AllocationId?: string | undefined; readonly PublicIp?: string | undefined },
): AddressRecord {
  if (input.AllocationId !== undefined) return find(ec2.cloud, "address", input.AllocationId);
  if (input.PublicIp !== undefined) return byIp(ec2, input.PublicIp);
  throw new AwsProtocolError("MissingParameter", "Either public IP or allocation id must be specified");
}

function targetPort(ec2: Ec2, input: Api.AssociateAddressCommandInput): string {
  if (input.NetworkInterfaceId !== undefined) {
    return find(ec2.cloud, "port", input.NetworkInterfaceId).id;
  }
  const server = find(ec2.cloud, "server", required(input.InstanceId, "instanceId or networkInterfaceId"));
  const portId = server.portIds[0];
  if (
    portId === undefined ||
    (server.state !== "running" && server.state !== "stopped" && server.state !== "pending")
  ) {
    throw new AwsProtocolError(
      "InvalidInstanceID",
      `The instance '${server.id}' is not in a valid state for this operation: it is '${server.state}'.`,
    );
  }
  return portId;
}

export const addressOperations = {
  AllocateAddress(
    ec2: Ec2,
    input: Api.AllocateAddressCommandInput,
  ): Answer<Api.AllocateAddressCommandOutput> {
    const address = allocateAddress(ec2.cloud, {
      tags: specifiedTags(input.TagSpecifications, "elastic-ip"),
    });
    const { PublicIp, AllocationId, Domain, PublicIpv4Pool, NetworkBorderGroup } = addressShape(ec2, address);
    return { PublicIp, AllocationId, Domain, PublicIpv4Pool, NetworkBorderGroup };
  },

  ReleaseAddress(ec2: Ec2, input: Api.ReleaseAddressCommandInput): object {
    releaseAddress(ec2.cloud, named(ec2, input).id);
    return {};
  },

  DescribeAddresses(
    ec2: Ec2,
    input: Api.DescribeAddressesCommandInput,
  ): Answer<Api.DescribeAddressesCommandOutput> {
    const keep = compileFilters<AddressRecord>(input.Filters, {
      "allocation-id": (each) => each.id,
      "public-ip": (each) => each.ip,
      "association-id": (each) => each.association?.id,
      "instance-id": (each) => each.association?.serverId,
      "network-interface-id": (each) => each.association?.portId,
      "private-ip-address": (each) => each.association?.privateIp,
      domain: () => "vpc",
    });
    const ids = input.AllocationIds ?? [];
    const ips = input.PublicIps ?? [];
    const chosen =
      ids.length + ips.length > 0
        ? [...findAll(ec2.cloud, "address", ids), ...ips.map((ip) => byIp(ec2, ip))]
        : [...ec2.cloud.data.tables.address.values()];
    return { Addresses: chosen.filter(keep).map((each) => addressShape(ec2, each)) };
  },

  AssociateAddress(
    ec2: Ec2,
    input: Api.AssociateAddressCommandInput,
  ): Answer<Api.AssociateAddressCommandOutput> {
    const addressId = named(ec2, input).id;
    const portId = targetPort(ec2, input);
    const { networkId } = find(ec2.cloud, "port", portId);
    if (ec2.cloud.data.tables.gateway.countBy("network", networkId) === 0) {
      throw new AwsProtocolError(
        "Gateway.NotAttached",
        `Network ${networkId} is not attached to any internet gateway`,
      );
    }
    const address = associateAddress(ec2.cloud, {
      addressId,
      portId,
      ...(input.AllowReassociation === undefined ? {} : { reassociate: input.AllowReassociation }),
    });
    return { AssociationId: address.association?.id };
  },

  DisassociateAddress(ec2: Ec2, input: Api.DisassociateAddressCommandInput): object {
    const id = input.AssociationId;
    const address =
      id === undefined ? named(ec2, input) : ec2.cloud.data.tables.address.by("association", id)[0];
    if (address === undefined) {
      throw new AwsProtocolError(
        "InvalidAssociationID.NotFound",
        `The association ID '${id ?? ""}' does not exist`,
      );
    }
    disassociateAddress(ec2.cloud, address.id);
    return {};
  },

  CreateNetworkInterface(
    ec2: Ec2,
    input: Api.CreateNetworkInterfaceCommandInput,
  ): Answer<Api.CreateNetworkInterfaceCommandOutput> {
    const subnet = find(ec2.cloud, "subnet", required(input.SubnetId, "subnetId"));
    const { group } = ec2.cloud.data.tables;
    const tags = specifiedTags(input.TagSpecifications, "network-interface");
    const [id = ""] = onceByToken(ec2, "CreateNetworkInterface", input, () => [
      createPort(ec2.cloud, {
        name: input.Description ?? "",
        subnetId: subnet.id,
        groupIds: input.Groups?.length
          ? input.Groups
          : group.by("name", `${subnet.networkId}/default`).map((each) => each.id),
        ...(input.PrivateIpAddress === undefined ? {} : { privateIp: input.PrivateIpAddress }),
        tags,
      }).id,
    ]);
    return {
      NetworkInterface: networkInterface(ec2, find(ec2.cloud, "port", id)),
      ClientToken: input.ClientToken,
    };
  },

  DeleteNetworkInterface(ec2: Ec2, input: Api.DeleteNetworkInterfaceCommandInput): object {
    deletePort(ec2.cloud, required(input.NetworkInterfaceId, "networkInterfaceId"));
    return {};
  },

  ModifyNetworkInterfaceAttribute(ec2: Ec2, input: Api.ModifyNetworkInterfaceAttributeCommandInput): object {
    const port = find(ec2.cloud, "port", required(input.NetworkInterfaceId, "networkInterfaceId"));
    if (input.Groups?.length) setPortGroups(ec2.cloud, port.id, input.Groups);
    const now = find(ec2.cloud, "port", port.id);
    ec2.cloud.data.tables.port.put({
      ...now,
      name: input.Description?.Value ?? now.name,
      deleteWithServer: input.Attachment?.DeleteOnTermination ?? now.deleteWithServer,
      extra:
        input.SourceDestCheck?.Value === undefined
          ? now.extra
          : { ...now.extra, sourceDestCheck: input.SourceDestCheck.Value },
    });
    return {};
  },

  DescribeNetworkInterfaces(
    ec2: Ec2,
    input: Api.DescribeNetworkInterfacesCommandInput,
  ): Answer<Api.DescribeNetworkInterfacesCommandOutput> {
    const keep = compileFilters<PortRecord>(input.Filters, {
      "network-interface-id": (each) => each.id,
      "vpc-id": (each) => each.networkId,
      "subnet-id": (each) => each.subnetId,
      "group-id": (each) => each.groupIds,
      "private-ip-address": (each) => each.privateIp,
      "addresses.private-ip-address": (each) => each.privateIp,
      "attachment.instance-id": (each) => each.serverId,
      "mac-address": (each) => each.mac,
      description: (each) => each.name,
      status: (each) => (each.serverId === null ? "available" : "in-use"),
      "owner-id": () => ec2.accountId,
    });
    const ids = input.NetworkInterfaceIds;
    const all = ec2.cloud.data.tables.port.values();
    const page = pageOf(ids?.length ? findAll(ec2.cloud, "port", ids) : all, keep, input);
    return {
      NetworkInterfaces: page.items.map((each) => networkInterface(ec2, each)),
      NextToken: page.nextToken,
    };
  },
} satisfies Readonly<Record<string, Operation>>;
