/** Ports: one private address each. */
import { z } from "zod";
import { find } from "#devcloud/core/cloud.ts";
import { createPort, deletePort, setPortGroups } from "#devcloud/core/ports.ts";
import { parseIpv4, parsePrefix } from "#devcloud/core/ipv4.ts";
import type { PortRecord, SubnetRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { deviceOf, portBody } from "./neutron-bodies.ts";
import { defaultGroup } from "./neutron-group-routes.ts";
import { listAnswer, subFilters } from "./neutron-list.ts";
import { ignored, neutronName, neutronText, recordsWithIds, viewOf } from "./neutron-request.ts";

const fixedIps = z
  .array(z.strictObject({ subnet_id: z.string().optional(), ip_address: z.string().optional() }))
  .max(1, "this cloud's ports have one fixed IP");

const portCreate = z.object({
  port: z.strictObject({
    ...ignored,
    network_id: z.string(),
    name: neutronName.optional(),
    description: neutronText.optional(),
    fixed_ips: fixedIps.optional(),
    security_groups: z.array(z.string()).nullable().optional(),
    device_id: z.string().max(255).optional(),
    device_owner: z.string().max(255).optional(),
    port_security_enabled: z.boolean().optional(),
    "binding:vnic_type": z.literal("normal").optional(),
  }),
});

/** Where an address of a network belongs, or where one is free. Throws as Neutron does. */
export function subnetForPort(
  call: Call,
  networkId: string,
  wanted: { readonly subnetId?: string | undefined; readonly ip?: string | undefined },
): SubnetRecord {
  const { cloud } = call;
  if (wanted.subnetId !== undefined) {
    const subnet = find(cloud, "subnet", wanted.subnetId);
    if (subnet.networkId === networkId) return subnet;
    throw badRequest(
      `Invalid input for operation: Failed to create port on network ${networkId}, because fixed_ips included invalid subnet ${subnet.id}.`,
      "InvalidInput",
    );
  }
  const subnets = cloud.data.tables.subnet.by("network", networkId);
  const ip = wanted.ip === undefined ? undefined : parseIpv4(wanted.ip);
  const fits = (subnet: SubnetRecord): boolean => {
    const prefix = parsePrefix(subnet.cidr);
    return ip !== undefined && prefix !== undefined && prefix.first <= ip && ip <= prefix.last;
  };
  const found = wanted.ip === undefined ? subnets[0] : subnets.find(fits);
  if (found !== undefined) return found;
  throw wanted.ip === undefined
    ? badRequest(`Network ${networkId} has no subnet that a port could get an address from.`)
    : badRequest(
        `IP address ${quoted(wanted.ip)} is not a valid IP for any of the subnets on the specified network.`,
        "InvalidIpForNetwork",
      );
}

function postPort(call: Call): Answer {
  const { port } = bodyOf(call, portCreate);
  const network = find(call.cloud, "network", port.network_id);
  if (network.external) {
    throw new ApiError(403, "(rule:create_port) is disallowed by policy", "PolicyNotAuthorized");
  }
  const [fixed] = port.fixed_ips ?? [];
  const subnet = subnetForPort(call, network.id, { subnetId: fixed?.subnet_id, ip: fixed?.ip_address });
  const made = createPort(call.cloud, {
    subnetId: subnet.id,
    name: port.name ?? "",
    groupIds: port.security_groups ?? [defaultGroup(call.cloud).id],
    ...(fixed?.ip_address === undefined ? {} : { privateIp: fixed.ip_address }),
    extra: {
      description: port.description ?? "",
      deviceId: port.device_id ?? "",
      deviceOwner: port.device_owner ?? "",
    },
  });
  return json(201, { port: portBody(viewOf(call), made) });
}

const portUpdate = z.object({
  port: z.strictObject({
    ...ignored,
    name: neutronName.optional(),
    description: neutronText.optional(),
    fixed_ips: fixedIps.optional(),
    security_groups: z.array(z.string()).nullable().optional(),
    port_security_enabled: z.boolean().optional(),
    device_id: z.string().max(255).optional(),
    device_owner: z.string().max(255).optional(),
  }),
});

function putPort(call: Call): Answer {
  const { port: set } = bodyOf(call, portUpdate);
  const port = find(call.cloud, "port", param(call));
  const [fixed] = set.fixed_ips ?? [];
  if (fixed?.ip_address !== undefined && fixed.ip_address !== port.privateIp) {
    throw badRequest("Invalid input for operation: the address of a port stays.", "InvalidInput");
  }
  const device = deviceOf(port);
  if (port.serverId !== null && (set.device_id ?? device.id) !== device.id) {
    throw new ApiError(409, `Port ${port.id} is still in use by instance ${device.id}.`, "PortInUse");
  }
  const grouped =
    set.security_groups === undefined ? port : setPortGroups(call.cloud, port.id, set.security_groups ?? []);
  const changed = call.cloud.data.tables.port.put({
    ...grouped,
    name: set.name ?? port.name,
    extra: changedExtra(port, call.cloud.clock.now(), {
      description: set.description ?? extraText(port, "description"),
      deviceId: set.device_id ?? extraText(port, "deviceId"),
      deviceOwner: set.device_owner ?? extraText(port, "deviceOwner"),
    }),
  });
  return json(200, { port: portBody(viewOf(call), changed) });
}

/** Neutron deletes also a server's port: the server loses it. */
function removePortRoute(call: Call): Answer {
  const { port: ports, server: servers } = call.cloud.data.tables;
  const port = find(call.cloud, "port", param(call));
  const { owner, id } = deviceOf(port);
  if (owner === "network:router_interface") {
    throw new ApiError(
      409,
      `Port ${port.id} cannot be deleted directly via the port API: has device owner ${owner}.`,
      "ServicePortInUse",
    );
  }
  const server = port.serverId === null ? undefined : servers.get(id);
  if (server !== undefined)
    servers.put({ ...server, portIds: server.portIds.filter((each) => each !== port.id) });
  ports.put({ ...port, serverId: null });
  deletePort(call.cloud, port.id);
  return empty(204);
}

const attributes = [
  "id",
  "name",
  "description",
  "tenant_id",
  "project_id",
  "network_id",
  "admin_state_up",
  "status",
  "device_id",
  "device_owner",
  "mac_address",
];

function listPorts(call: Call): Answer {
  const view = viewOf(call);
  const { port: ports } = call.cloud.data.tables;
  const devices = call.query.getAll("device_id");
  // Of servers, which have an index; a router's ports are found by looking at all.
  const ofServers =
    devices.length > 0 && devices.every((id) => call.cloud.data.tables.server.get(id) !== undefined);
  const records = ofServers
    ? recordsWithIds(call, ports, [["device_id", "server"]])
    : recordsWithIds(call, ports, [["network_id", "network"]]);
  return listAnswer<PortRecord>(call, {
    collection: "ports",
    records,
    body: (record) => portBody(view, record),
    attributes,
    special: {
      fixed_ips: (port, values) =>
        subFilters(values).every(([name, value]) =>
          name === "subnet_id" ? port.subnetId === value : name === "ip_address" && port.privateIp === value,
        ),
      security_groups: (port, values) => values.some((value) => port.groupIds.includes(value)),
    },
  });
}

const service = "network" as const;
export const portRoutes: readonly Route[] = [
  { service, method: "GET", path: "/ports", handler: listPorts },
  { service, method: "POST", path: "/ports", handler: postPort },
  {
    service,
    method: "GET",
    path: "/ports/{id}",
    handler: (call) => json(200, { port: portBody(viewOf(call), find(call.cloud, "port", param(call))) }),
  },
  { service, method: "PUT", path: "/ports/{id}", handler: putPort },
  { service, method: "DELETE", path: "/ports/{id}", handler: removePortRoute },
];
