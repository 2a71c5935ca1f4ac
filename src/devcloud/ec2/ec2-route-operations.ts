/** Internet gateways, route tables and their routes. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import { attachGateway, createGateway, deleteGateway, detachGateway } from "#devcloud/core/gateways.ts";
import type { GatewayRecord, Route, RouteTableRecord } from "#devcloud/core/records.ts";
import {
  associateRouteTable,
  createRoute,
  createRouteTable,
  deleteRoute,
  deleteRouteTable,
  disassociateRouteTable,
  replaceRoute,
  replaceRouteTableAssociation,
} from "#devcloud/core/route-tables.ts";
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
import { missing } from "./ec2-error.ts";
import { compileFilters } from "./ec2-filter.ts";
import { pageOf } from "./ec2-page.ts";

function internetGateway(ec2: Ec2, gateway: GatewayRecord): Api.InternetGateway {
  return {
    InternetGatewayId: gateway.id,
    OwnerId: ec2.accountId,
    // EC2 says `available` here, though the attachment's type has no such state.
    Attachments:
      gateway.networkId === null
        ? []
        : [{ VpcId: gateway.networkId, State: "available" as Api.AttachmentStatus }],
    Tags: tagList(gateway.tags),
  };
}

function routeShape(ec2: Ec2, table: RouteTableRecord, route: Route): Api.Route {
  const { gateway, server, port } = ec2.cloud.data.tables;
  const origin = route.target.kind === "local" ? "CreateRouteTable" : "CreateRoute";
  const base = { DestinationCidrBlock: route.destination, Origin: origin } as const;
  switch (route.target.kind) {
    case "local":
      return { ...base, GatewayId: "local", State: "active" };
    case "gateway": {
      const attached = gateway.get(route.target.id)?.networkId === table.networkId;
      return { ...base, GatewayId: route.target.id, State: attached ? "active" : "blackhole" };
    }
    case "server": {
      const alive = server.get(route.target.id)?.state === "running";
      return { ...base, InstanceId: route.target.id, State: alive ? "active" : "blackhole" };
    }
    case "port": {
      const there = port.get(route.target.id) !== undefined;
      return { ...base, NetworkInterfaceId: route.target.id, State: there ? "active" : "blackhole" };
    }
  }
}

function routeTable(ec2: Ec2, table: RouteTableRecord): Api.RouteTable {
  const state = { AssociationState: { State: "associated" } } as const;
  return {
    RouteTableId: table.id,
    VpcId: table.networkId,
    OwnerId: ec2.accountId,
    Associations: [
      ...(table.mainAssociationId === null
        ? []
        : [
            {
              Main: true,
              RouteTableAssociationId: table.mainAssociationId,
              RouteTableId: table.id,
              ...state,
            },
          ]),
      ...table.associations.map((each) => ({
        Main: false,
        RouteTableAssociationId: each.id,
        RouteTableId: table.id,
        SubnetId: each.subnetId,
        ...state,
      })),
    ],
    Routes: table.routes.map((route) => routeShape(ec2, table, route)),
    PropagatingVgws: [],
    Tags: tagList(table.tags),
  };
}

function routeInput(input: Api.CreateRouteCommandInput): Route {
  const destination = required(input.DestinationCidrBlock, "destinationCidrBlock");
  if (input.GatewayId) return { destination, target: { kind: "gateway", id: input.GatewayId } };
  if (input.InstanceId) return { destination, target: { kind: "server", id: input.InstanceId } };
  if (input.NetworkInterfaceId)
    return { destination, target: { kind: "port", id: input.NetworkInterfaceId } };
  const other = Object.keys(input).find((key) => key.endsWith("Id") && key !== "RouteTableId");
  if (other !== undefined) {
    throw new AwsProtocolError("UnsupportedOperation", `A route to ${other} is not supported here.`);
  }
  throw missing("gatewayId, instanceId or networkInterfaceId");
}

export const routeOperations = {
  CreateInternetGateway(
    ec2: Ec2,
    input: Api.CreateInternetGatewayCommandInput,
  ): Answer<Api.CreateInternetGatewayCommandOutput> {
    const tags = specifiedTags(input.TagSpecifications, "internet-gateway");
    return { InternetGateway: internetGateway(ec2, createGateway(ec2.cloud, { tags })) };
  },

  AttachInternetGateway(ec2: Ec2, input: Api.AttachInternetGatewayCommandInput): object {
    const id = required(input.InternetGatewayId, "internetGatewayId");
    attachGateway(ec2.cloud, id, required(input.VpcId, "vpcId"));
    return {};
  },

  DetachInternetGateway(ec2: Ec2, input: Api.DetachInternetGatewayCommandInput): object {
    const id = required(input.InternetGatewayId, "internetGatewayId");
    detachGateway(ec2.cloud, id, required(input.VpcId, "vpcId"));
    return {};
  },

  DeleteInternetGateway(ec2: Ec2, input: Api.DeleteInternetGatewayCommandInput): object {
    deleteGateway(ec2.cloud, required(input.InternetGatewayId, "internetGatewayId"));
    return {};
  },

  DescribeInternetGateways(
    ec2: Ec2,
    input: Api.DescribeInternetGatewaysCommandInput,
  ): Answer<Api.DescribeInternetGatewaysCommandOutput> {
    const { gateway } = ec2.cloud.data.tables;
    const keep = compileFilters<GatewayRecord>(input.Filters, {
      "internet-gateway-id": (each) => each.id,
      "attachment.vpc-id": (each) => each.networkId,
      "attachment.state": (each) => (each.networkId === null ? undefined : "available"),
      "owner-id": () => ec2.accountId,
    });
    const ids = input.InternetGatewayIds;
    const page = pageOf(ids?.length ? findAll(ec2.cloud, "gateway", ids) : gateway.values(), keep, input);
    return {
      InternetGateways: page.items.map((each) => internetGateway(ec2, each)),
      NextToken: page.nextToken,
    };
  },

  CreateRouteTable(
    ec2: Ec2,
    input: Api.CreateRouteTableCommandInput,
  ): Answer<Api.CreateRouteTableCommandOutput> {
    const networkId = required(input.VpcId, "vpcId");
    const tags = specifiedTags(input.TagSpecifications, "route-table");
    const [id = ""] = onceByToken(ec2, "CreateRouteTable", input, () => [
      createRouteTable(ec2.cloud, { networkId, tags }).id,
    ]);
    return { RouteTable: routeTable(ec2, find(ec2.cloud, "routeTable", id)), ClientToken: input.ClientToken };
  },

  DeleteRouteTable(ec2: Ec2, input: Api.DeleteRouteTableCommandInput): object {
    deleteRouteTable(ec2.cloud, required(input.RouteTableId, "routeTableId"));
    return {};
  },

  DescribeRouteTables(
    ec2: Ec2,
    input: Api.DescribeRouteTablesCommandInput,
  ): Answer<Api.DescribeRouteTablesCommandOutput> {
    const keep = compileFilters<RouteTableRecord>(input.Filters, {
      "route-table-id": (each) => each.id,
      "vpc-id": (each) => each.networkId,
      "owner-id": () => ec2.accountId,
      "association.main": (each) => [
        ...(each.main ? [true] : []),
        ...(each.associations.length > 0 || !each.main ? [false] : []),
      ],
      "association.subnet-id": (each) => each.associations.map((association) => association.subnetId),
      "association.route-table-id": (each) => each.id,
      "association.route-table-association-id": (each) => [
        each.mainAssociationId,
        ...each.associations.map((association) => association.id),
      ],
      "route.destination-cidr-block": (each) => each.routes.map((route) => route.destination),
      "route.gateway-id": (each) =>
        each.routes.map((route) =>
          route.target.kind === "gateway" || route.target.kind === "local" ? route.target.id : undefined,
        ),
      "route.state": (each) => each.routes.map((route) => routeShape(ec2, each, route).State),
    });
    const ids = input.RouteTableIds;
    const all = ec2.cloud.data.tables.routeTable.values();
    const page = pageOf(ids?.length ? findAll(ec2.cloud, "routeTable", ids) : all, keep, input);
    return { RouteTables: page.items.map((each) => routeTable(ec2, each)), NextToken: page.nextToken };
  },

  AssociateRouteTable(
    ec2: Ec2,
    input: Api.AssociateRouteTableCommandInput,
  ): Answer<Api.AssociateRouteTableCommandOutput> {
    const id = required(input.RouteTableId, "routeTableId");
    return {
      AssociationId: associateRouteTable(ec2.cloud, id, required(input.SubnetId, "subnetId")),
      AssociationState: { State: "associated" },
    };
  },

  DisassociateRouteTable(ec2: Ec2, input: Api.DisassociateRouteTableCommandInput): object {
    disassociateRouteTable(ec2.cloud, required(input.AssociationId, "associationId"));
    return {};
  },

  ReplaceRouteTableAssociation(
    ec2: Ec2,
    input: Api.ReplaceRouteTableAssociationCommandInput,
  ): Answer<Api.ReplaceRouteTableAssociationCommandOutput> {
    const id = required(input.AssociationId, "associationId");
    const tableId = required(input.RouteTableId, "routeTableId");
    return {
      NewAssociationId: replaceRouteTableAssociation(ec2.cloud, id, tableId),
      AssociationState: { State: "associated" },
    };
  },

  CreateRoute(ec2: Ec2, input: Api.CreateRouteCommandInput): Answer<Api.CreateRouteCommandOutput> {
    createRoute(ec2.cloud, required(input.RouteTableId, "routeTableId"), routeInput(input));
    return { Return: true };
  },

  ReplaceRoute(ec2: Ec2, input: Api.ReplaceRouteCommandInput): object {
    replaceRoute(ec2.cloud, required(input.RouteTableId, "routeTableId"), routeInput(input));
    return {};
  },

  DeleteRoute(ec2: Ec2, input: Api.DeleteRouteCommandInput): object {
    const id = required(input.RouteTableId, "routeTableId");
    deleteRoute(ec2.cloud, id, required(input.DestinationCidrBlock, "destinationCidrBlock"));
    return {};
  },
} satisfies Readonly<Record<string, Operation>>;
