/** Routers, their way out, and their interfaces in subnets (each a port, as in Neutron). */
import { z } from "zod";
import { find, newRecord } from "#devcloud/core/cloud.ts";
import {
  addGatewaySubnet,
  createGateway,
  deleteGateway,
  removeGatewaySubnet,
} from "#devcloud/core/gateways.ts";
import type { GatewayRecord, PortRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param, projectOf } from "./api-call.ts";
import { ApiError, badRequest } from "./api-error.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { deviceOf, routerBody } from "./neutron-bodies.ts";
import { listAnswer } from "./neutron-list.ts";
import { ignored, neutronName, neutronText, recordsWithIds, viewOf } from "./neutron-request.ts";

const gatewayInfo = z
  .strictObject({
    network_id: z.string().optional(),
    enable_snat: z.boolean().optional(),
    external_fixed_ips: z.array(z.unknown()).optional(),
  })
  .nullable();

const routerSet = z.object({
  router: z.strictObject({
    ...ignored,
    name: neutronName.optional(),
    description: neutronText.optional(),
    external_gateway_info: gatewayInfo.optional(),
    distributed: z.literal(false).optional(),
    ha: z.literal(false).optional(),
    availability_zone_hints: z.array(z.string()).optional(),
    routes: z.array(z.unknown()).max(0).optional(),
  }),
});

/** Null, and an empty object too, are no gateway. Undefined: not said. */
function gatewayOf(call: Call, info: z.infer<typeof gatewayInfo> | undefined): string | null | undefined {
  if (info === undefined) return undefined;
  if (info === null || info.network_id === undefined) return null;
  const network = find(call.cloud, "network", info.network_id);
  if (network.external) return network.id;
  throw badRequest(`Bad router request: Network ${network.id} is not an external network.`, "BadRequest");
}

function postRouter(call: Call): Answer {
  const { router } = bodyOf(call, routerSet);
  const made = createGateway(call.cloud, {
    name: router.name ?? "",
    externalNetworkId: gatewayOf(call, router.external_gateway_info) ?? null,
    extra: { description: router.description ?? "" },
  });
  return json(201, { router: routerBody(viewOf(call), made) });
}

/** A gateway that floating IPs go through stays. */
function checkUnused(call: Call, router: GatewayRecord): void {
  const { port, address } = call.cloud.data.tables;
  const held = router.subnetIds
    .flatMap((subnetId) => port.by("subnet", subnetId))
    .some((each) => address.countBy("port", each.id) > 0);
  if (!held) return;
  throw new ApiError(
    409,
    `Gateway cannot be updated for router ${router.id}, since a gateway to external network ${router.externalNetworkId} is required by one or more floating IPs.`,
    "RouterExternalGatewayInUseByFloatingIp",
  );
}

function putRouter(call: Call): Answer {
  const { router: set } = bodyOf(call, routerSet);
  const router = find(call.cloud, "gateway", param(call));
  const externalNetworkId = gatewayOf(call, set.external_gateway_info);
  if (externalNetworkId !== undefined && externalNetworkId !== router.externalNetworkId)
    checkUnused(call, router);
  const changed = call.cloud.data.tables.gateway.put({
    ...router,
    name: set.name ?? router.name,
    externalNetworkId: externalNetworkId === undefined ? router.externalNetworkId : externalNetworkId,
    extra: changedExtra(router, call.cloud.clock.now(), {
      description: set.description ?? extraText(router, "description"),
    }),
  });
  return json(200, { router: routerBody(viewOf(call), changed) });
}

function removeRouter(call: Call): Answer {
  const router = find(call.cloud, "gateway", param(call));
  const held = router.subnetIds.flatMap((subnetId) => interfacePort(call, router.id, subnetId)?.id ?? []);
  if (held.length > 0) {
    throw new ApiError(
      409,
      `Router ${router.id} has ports still attached: ${held.join(", ")}`,
      "RouterInUse",
    );
  }
  deleteGateway(call.cloud, router.id);
  return empty(204);
}

const interfaceSet = z.strictObject({ subnet_id: z.string().optional(), port_id: z.string().optional() });

const INTERFACE_OWNER = "network:router_interface";

function interfacePort(call: Call, routerId: string, subnetId: string): PortRecord | undefined {
  return call.cloud.data.tables.port
    .by("subnet", subnetId)
    .find((port) => extraText(port, "deviceId") === routerId && deviceOf(port).owner === INTERFACE_OWNER);
}

function interfaceAnswer(call: Call, routerId: string, port: PortRecord): Answer {
  return json(200, {
    id: routerId,
    tenant_id: projectOf(call),
    project_id: projectOf(call),
    port_id: port.id,
    network_id: port.networkId,
    subnet_id: port.subnetId,
    subnet_ids: [port.subnetId],
    tags: [],
  });
}

function addInterface(call: Call): Answer {
  const { cloud } = call;
  const router = find(cloud, "gateway", param(call));
  const { subnet_id: subnetId, port_id: portId } = bodyOf(call, interfaceSet);
  const ports = cloud.data.tables.port;
  const given = portId === undefined ? undefined : find(cloud, "port", portId);
  const wanted = given?.subnetId ?? subnetId;
  if (wanted === undefined) {
    throw badRequest("Bad router request: Either subnet_id or port_id must be specified.", "BadRequest");
  }
  const subnet = find(cloud, "subnet", wanted);
  if (given !== undefined && deviceOf(given).id !== "") {
    throw new ApiError(
      409,
      `Unable to complete operation on port ${given.id} for network ${given.networkId}. Port already has an attached device ${deviceOf(given).id}.`,
      "PortInUse",
    );
  }
  if (given === undefined && subnet.gatewayIp === null) {
    throw badRequest("Bad router request: Subnet for router interface must have a gateway IP.", "BadRequest");
  }
  addGatewaySubnet(cloud, router.id, subnet.id);
  const device = { deviceId: router.id, deviceOwner: INTERFACE_OWNER };
  const port = ports.put(
    given === undefined
      ? {
          // Not by the core's createPort, which gives the gateway's own address to nobody.
          ...newRecord(cloud, "port", { extra: device }),
          networkId: subnet.networkId,
          subnetId: subnet.id,
          privateIp: subnet.gatewayIp ?? "",
          mac: `02${cloud.random.hex(5).replaceAll(/(..)/g, ":$1")}`,
          groupIds: [],
          serverId: null,
          deleteWithServer: false,
        }
      : { ...given, groupIds: [], extra: changedExtra(given, cloud.clock.now(), device) },
  );
  return interfaceAnswer(call, router.id, port);
}

function removeInterface(call: Call): Answer {
  const { cloud } = call;
  const router = find(cloud, "gateway", param(call));
  const { subnet_id: subnetId, port_id: portId } = bodyOf(call, interfaceSet);
  const wanted = portId === undefined ? subnetId : find(cloud, "port", portId).subnetId;
  if (wanted === undefined) {
    throw badRequest("Bad router request: Either subnet_id or port_id must be specified.", "BadRequest");
  }
  find(cloud, "subnet", wanted);
  removeGatewaySubnet(cloud, router.id, wanted);
  const port = interfacePort(call, router.id, wanted);
  if (port === undefined) {
    throw new ApiError(
      404,
      `Router ${router.id} has no interface on subnet ${wanted}`,
      "RouterInterfaceNotFoundForSubnet",
    );
  }
  cloud.data.tables.port.delete(port.id);
  return interfaceAnswer(call, router.id, port);
}

const attributes = [
  "id",
  "name",
  "description",
  "tenant_id",
  "project_id",
  "admin_state_up",
  "status",
  "distributed",
  "ha",
];

function listRouters(call: Call): Answer {
  const view = viewOf(call);
  return listAnswer<GatewayRecord>(call, {
    collection: "routers",
    records: recordsWithIds(call, call.cloud.data.tables.gateway),
    body: (record) => routerBody(view, record),
    attributes,
  });
}

const service = "network" as const;
export const routerRoutes: readonly Route[] = [
  { service, method: "GET", path: "/routers", handler: listRouters },
  { service, method: "POST", path: "/routers", handler: postRouter },
  {
    service,
    method: "GET",
    path: "/routers/{id}",
    handler: (call) =>
      json(200, { router: routerBody(viewOf(call), find(call.cloud, "gateway", param(call))) }),
  },
  { service, method: "PUT", path: "/routers/{id}", handler: putRouter },
  { service, method: "DELETE", path: "/routers/{id}", handler: removeRouter },
  { service, method: "PUT", path: "/routers/{id}/add_router_interface", handler: addInterface },
  { service, method: "PUT", path: "/routers/{id}/remove_router_interface", handler: removeInterface },
];
