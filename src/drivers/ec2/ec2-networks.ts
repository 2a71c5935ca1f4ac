/** A network is a VPC with, if it reaches the internet, an internet gateway and a default route to it. */
import type { Filter, InternetGateway, Vpc } from "@aws-sdk/client-ec2";
import {
  AttachInternetGatewayCommand,
  CreateInternetGatewayCommand,
  CreateRouteCommand,
  CreateVpcCommand,
  DeleteInternetGatewayCommand,
  DeleteRouteCommand,
  DeleteVpcCommand,
  DescribeInternetGatewaysCommand,
  DescribeRouteTablesCommand,
  DescribeSecurityGroupsCommand,
  DescribeSubnetsCommand,
  DescribeVpcsCommand,
  DetachInternetGatewayCommand,
} from "@aws-sdk/client-ec2";
import type { CreateRequest, Observed } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { NetworkSpec } from "#model/resource.ts";
import { networkFromVpc } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { firstOf, isRemote, markedTags, missing, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";
import { createOnce } from "./ec2-tokenless.ts";

/** Names the network that a gateway was made for, so that an interrupted create finds it unattached. */
const networkTag = "understudy:network";

const everywhere = "0.0.0.0/0";

export function ec2Networks(ec2: Ec2Connection): Ec2Kind<"network"> {
  async function gateways(select: Filter[], signal: AbortSignal): Promise<InternetGateway[]> {
    const found: InternetGateway[] = [];
    const pages = ec2.pages("DescribeInternetGateways", signal, (client, paging, options) =>
      client.send(new DescribeInternetGatewaysCommand({ Filters: select, ...paging }), options),
    );
    for await (const page of pages) found.push(...(page.InternetGateways ?? []));
    return found;
  }

  async function* pages(
    select: readonly Filter[],
    ids: readonly ResourceId[] | undefined,
    signal: AbortSignal,
  ): AsyncIterable<readonly Observed<"network">[]> {
    const Filters = [...select, ...filters({ "vpc-id": ids })];
    const answers = ec2.pages("DescribeVpcs", signal, (client, paging, options) =>
      client.send(new DescribeVpcsCommand({ Filters, ...paging }), options),
    );
    for await (const { Vpcs = [] } of answers) yield await observeAll(Vpcs, signal);
  }

  async function observeAll(vpcs: readonly Vpc[], signal: AbortSignal): Promise<Observed<"network">[]> {
    const ids = vpcs.flatMap(({ VpcId }) => VpcId ?? []);
    if (ids.length === 0) return [];
    const attached = await gateways(filters({ "attachment.vpc-id": ids }), signal);
    const reaching = new Set(
      attached.flatMap(({ Attachments }) => (Attachments ?? []).map(({ VpcId }) => VpcId)),
    );
    return vpcs.map((vpc) =>
      observed(networkFromVpc(vpc, reaching.has(vpc.VpcId)), vpc.State === "pending" ? "pending" : "ready"),
    );
  }

  async function mainRouteTable(vpcId: string, signal: AbortSignal) {
    const select = filters({ "vpc-id": vpcId, "association.main": "true" });
    const answer = await ec2.read("DescribeRouteTables", signal, (client, options) =>
      client.send(new DescribeRouteTablesCommand({ Filters: select }), options),
    );
    return answer.RouteTables?.[0];
  }

  /** Each step is looked up first: an interrupted one is finished, a finished one costs reads only. */
  async function connectToInternet(
    vpcId: string,
    request: Pick<CreateRequest<"network">, "tags" | "scope" | "token"> | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const [attached] = await gateways(filters({ "attachment.vpc-id": vpcId }), signal);
    let gatewayId = attached?.InternetGatewayId;
    if (gatewayId === undefined) {
      const [unattached] = await gateways(filters({ [`tag:${networkTag}`]: vpcId }), signal);
      gatewayId = unattached?.InternetGatewayId ?? (await createGateway(vpcId, request, signal));
      await ec2
        .change("AttachInternetGateway", signal, (client, options) =>
          client.send(
            new AttachInternetGatewayCommand({ InternetGatewayId: gatewayId, VpcId: vpcId }),
            options,
          ),
        )
        .catch((error: unknown) => {
          if (!isRemote(error, "Resource.AlreadyAssociated")) throw error;
        });
    }
    const table = await mainRouteTable(vpcId, signal);
    if (table?.Routes?.some((route) => route.DestinationCidrBlock === everywhere)) return;
    const route = {
      RouteTableId: table?.RouteTableId,
      DestinationCidrBlock: everywhere,
      GatewayId: gatewayId,
    };
    await ec2
      .change("CreateRoute", signal, (client, options) => client.send(new CreateRouteCommand(route), options))
      .catch((error: unknown) => {
        if (!isRemote(error, "RouteAlreadyExists")) throw error;
      });
  }

  async function createGateway(
    vpcId: string,
    request: Pick<CreateRequest<"network">, "tags" | "scope" | "token"> | undefined,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const mark = { Key: networkTag, Value: vpcId };
    const [specification] =
      request === undefined ? [] : markedTags({ ...request, tags: {} }, "internet-gateway");
    const Tags = [...(specification?.Tags ?? []), mark];
    const made = await ec2.change("CreateInternetGateway", signal, (client, options) =>
      client.send(
        new CreateInternetGatewayCommand({ TagSpecifications: [{ ResourceType: "internet-gateway", Tags }] }),
        options,
      ),
    );
    return made.InternetGateway?.InternetGatewayId;
  }

  async function disconnect(vpcId: string, signal: AbortSignal): Promise<void> {
    const attached = await gateways(filters({ "attachment.vpc-id": vpcId }), signal);
    const left = await gateways(filters({ [`tag:${networkTag}`]: vpcId }), signal);
    const table = attached.length === 0 ? undefined : await mainRouteTable(vpcId, signal);
    if (table?.Routes?.some((route) => route.DestinationCidrBlock === everywhere)) {
      const route = { RouteTableId: table.RouteTableId, DestinationCidrBlock: everywhere };
      await unlessGone(
        ec2.change("DeleteRoute", signal, (client, options) =>
          client.send(new DeleteRouteCommand(route), options),
        ),
      );
    }
    for (const { InternetGatewayId } of attached) {
      await ec2
        .change("DetachInternetGateway", signal, (client, options) =>
          client.send(new DetachInternetGatewayCommand({ InternetGatewayId, VpcId: vpcId }), options),
        )
        .catch((error: unknown) => {
          if (!isRemote(error, "Gateway.NotAttached")) throw error;
        });
    }
    const ids = new Set([...attached, ...left].map(({ InternetGatewayId }) => InternetGatewayId));
    for (const InternetGatewayId of ids) {
      await unlessGone(
        ec2.change("DeleteInternetGateway", signal, (client, options) =>
          client.send(new DeleteInternetGatewayCommand({ InternetGatewayId }), options),
        ),
      );
    }
  }

  /** Looked for before the gateway is taken away, so that a network that stays, stays whole. */
  async function refuseWhileUsed(vpcId: string, signal: AbortSignal): Promise<void> {
    const Filters = filters({ "vpc-id": vpcId });
    const { Subnets } = await ec2.read("DescribeSubnets", signal, (client, options) =>
      client.send(new DescribeSubnetsCommand({ Filters }), options),
    );
    const { SecurityGroups } = await ec2.read("DescribeSecurityGroups", signal, (client, options) =>
      client.send(new DescribeSecurityGroupsCommand({ Filters }), options),
    );
    const group = SecurityGroups?.find(({ GroupName }) => GroupName !== "default");
    const user = Subnets?.[0]?.SubnetId ?? group?.GroupId;
    if (user === undefined) return;
    throw new OperationalError("cloud.conflict", `network ${vpcId} is in use by ${user}: delete that first`, {
      retry: "later",
    });
  }

  async function existing(id: ResourceId, signal: AbortSignal): Promise<Observed<"network"> | undefined> {
    return firstOf(pages([], [id], signal));
  }

  return {
    pages,
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      const vpcId = await createOnce(ec2, request, signal, {
        find: async () =>
          (await firstOf(pages([tokenFilter(request.token)], undefined, signal)))?.resource.id,
        make: async () => {
          const input = {
            CidrBlock: request.spec.cidr ?? "10.0.0.0/16",
            TagSpecifications: markedTags(request, "vpc"),
          };
          const answer = await ec2.change("CreateVpc", signal, (client, options) =>
            client.send(new CreateVpcCommand(input), options),
          );
          return answer.Vpc?.VpcId as ResourceId | undefined;
        },
      });
      if (request.spec.internet) await onceThere(() => connectToInternet(vpcId, request, signal));
      const { kind, spec, tags } = request;
      return observed<"network">({ kind, id: vpcId, spec: { cidr: "10.0.0.0/16", ...spec }, tags });
    },
    update: async (id, set: Partial<NetworkSpec>, signal) => {
      const found = await existing(id, signal);
      if (found === undefined) throw missing("network", id);
      if (set.cidr !== undefined && set.cidr !== found.resource.spec.cidr) {
        throw new OperationalError("cloud.unsupported", `the prefix of network ${id} cannot be changed`);
      }
      if (set.internet === true) await connectToInternet(id, undefined, signal);
      if (set.internet === false) await disconnect(id, signal);
    },
    delete: async (id, signal) => {
      if ((await existing(id, signal)) !== undefined) await refuseWhileUsed(id, signal);
      await disconnect(id, signal);
      await unlessGone(
        ec2.change("DeleteVpc", signal, (client, options) =>
          client.send(new DeleteVpcCommand({ VpcId: id }), options),
        ),
      );
    },
  };
}
