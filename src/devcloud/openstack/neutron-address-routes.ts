/** Floating IPs, out of the external network. */
import { z } from "zod";
import {
  allocateAddress,
  associateAddress,
  disassociateAddress,
  releaseAddress,
} from "#devcloud/core/addresses.ts";
import { find } from "#devcloud/core/cloud.ts";
import type { AddressRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { floatingIpBody, routerToOutside } from "./neutron-bodies.ts";
import { listAnswer } from "./neutron-list.ts";
import { ignored, neutronText, recordsWithIds, viewOf } from "./neutron-request.ts";

const fields = {
  tenant_id: ignored.tenant_id,
  project_id: ignored.project_id,
  description: neutronText.optional(),
  port_id: z.string().nullable().optional(),
  fixed_ip_address: z.string().nullable().optional(),
};
const created = z.object({
  floatingip: z.strictObject({
    ...fields,
    floating_network_id: z.string(),
    subnet_id: z.string().nullable().optional(),
    dns_name: z.literal("").optional(),
    dns_domain: z.literal("").optional(),
  }),
});
const updated = z.object({ floatingip: z.strictObject(fields) });

/** Neutron leads an address only where a router joins the port's subnet with the external network. */
function associate(
  call: Call,
  address: AddressRecord,
  portId: string,
  fixedIp: string | null,
): AddressRecord {
  const port = find(call.cloud, "port", portId);
  const networkId = extraText(address, "networkId");
  if (routerToOutside(call.cloud, port.subnetId, networkId) === undefined) {
    throw new ApiError(
      404,
      `External network ${networkId} is not reachable from subnet ${port.subnetId}. Therefore, cannot associate Port ${port.id} with a Floating IP.`,
      "ExternalGatewayForFloatingIPNotFound",
    );
  }
  if (fixedIp !== null && fixedIp !== port.privateIp) {
    throw badRequest(
      `Bad floatingip request: Port ${port.id} does not have fixed ip ${quoted(fixedIp)}.`,
      "BadRequest",
    );
  }
  const other = call.cloud.data.tables.address.by("port", port.id).find(({ id }) => id !== address.id);
  if (other !== undefined) {
    throw new ApiError(
      409,
      `Cannot associate floating IP ${address.ip} (${address.id}) with port ${port.id} using fixed IP ${port.privateIp}, as that fixed IP already has a floating IP on external network ${networkId}.`,
      "FloatingIPPortAlreadyAssociated",
    );
  }
  return associateAddress(call.cloud, { addressId: address.id, portId: port.id });
}

function postAddress(call: Call): Answer {
  const { floatingip: asked } = bodyOf(call, created);
  const network = find(call.cloud, "network", asked.floating_network_id);
  if (!network.external) {
    throw badRequest(
      `Bad floatingip request: Network ${network.id} is not a valid external network.`,
      "BadRequest",
    );
  }
  const made = allocateAddress(call.cloud, {
    extra: { networkId: network.id, description: asked.description ?? "" },
  });
  const portId = asked.port_id ?? null;
  const led = portId === null ? made : associate(call, made, portId, asked.fixed_ip_address ?? null);
  return json(201, { floatingip: floatingIpBody(viewOf(call), led) });
}

function putAddress(call: Call): Answer {
  const { floatingip: set } = bodyOf(call, updated);
  const before = find(call.cloud, "address", param(call));
  const address = call.cloud.data.tables.address.put({
    ...before,
    extra: changedExtra(before, call.cloud.clock.now(), {
      description: set.description ?? extraText(before, "description"),
    }),
  });
  const led =
    set.port_id === undefined
      ? address
      : set.port_id === null
        ? disassociateAddress(call.cloud, address.id)
        : associate(call, address, set.port_id, set.fixed_ip_address ?? null);
  return json(200, { floatingip: floatingIpBody(viewOf(call), led) });
}

/** Also one that is in use, as Neutron does. */
function removeAddress(call: Call): Answer {
  disassociateAddress(call.cloud, param(call));
  releaseAddress(call.cloud, param(call));
  return empty(204);
}

function listAddresses(call: Call): Answer {
  const view = viewOf(call);
  return listAnswer<AddressRecord>(call, {
    collection: "floatingips",
    records: recordsWithIds(call, call.cloud.data.tables.address, [
      ["port_id", "port"],
      ["floating_ip_address", "ip"],
    ]),
    body: (record) => floatingIpBody(view, record),
    attributes: [
      "id",
      "description",
      "tenant_id",
      "project_id",
      "floating_ip_address",
      "floating_network_id",
      "fixed_ip_address",
      "port_id",
      "router_id",
      "status",
    ],
  });
}

const service = "network" as const;
export const addressRoutes: readonly Route[] = [
  { service, method: "GET", path: "/floatingips", handler: listAddresses },
  { service, method: "POST", path: "/floatingips", handler: postAddress },
  {
    service,
    method: "GET",
    path: "/floatingips/{id}",
    handler: (call) =>
      json(200, { floatingip: floatingIpBody(viewOf(call), find(call.cloud, "address", param(call))) }),
  },
  { service, method: "PUT", path: "/floatingips/{id}", handler: putAddress },
  { service, method: "DELETE", path: "/floatingips/{id}", handler: removeAddress },
];
