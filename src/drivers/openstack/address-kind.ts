/** Floating IPs, and what they lead to. */
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import {
  floatingIpResponseSchema,
  floatingIpSchema,
  portResponseSchema,
  portSchema,
} from "#wire/openstack/neutron.ts";
import type { NeutronFloatingIp, NeutronPort } from "#wire/openstack/neutron.ts";
import { serverResponseSchema } from "#wire/openstack/nova.ts";
import type { MappedResource } from "#wire/openstack/openstack-resources.ts";
import {
  addressAssociationFromBody,
  addressFromBody,
  addressOfAssociation,
} from "#wire/openstack/openstack-resources.ts";
import { markerFor, markerText } from "#wire/openstack/openstack-tags.ts";
import type { Calls, QueryItems } from "./calls.ts";
import type { Found, KindDriver } from "./kind-driver.ts";
import { noTags, onlyUpdates } from "./kind-driver.ts";
import { byId, publicNetworkId } from "./network-kind.ts";
import { addNeutronTags, changeNeutronTags, foundByDescription } from "./neutron-tags.ts";

function floatingIps(query: QueryItems, calls: Calls): AsyncGenerator<NeutronFloatingIp[], void, void> {
  return calls.pages("network", "/floatingips", "floatingips", floatingIpSchema, { ...byId, query });
}

export function addressKind(publicNetwork: string | undefined): KindDriver<"address"> {
  return {
    async create({ tags, token, scope, mayExist }, calls) {
      const mark = markerText(markerFor(scope, token));
      let known: NeutronFloatingIp | undefined;
      if (mayExist) for await (const page of floatingIps({ description: mark }, calls)) known ??= page[0];
      let address = known;
      if (address === undefined) {
        const floating_network_id = await publicNetworkId(publicNetwork, calls);
        const body = { floatingip: { floating_network_id, description: mark } };
        const answer = await calls.change("POST", "network", "/floatingips", body, floatingIpResponseSchema);
        address = answer.floatingip;
      }
      const untagged = (address.tags ?? []).length === 0;
      const path = `/floatingips/${address.id}`;
      if (untagged) await onceThere(() => addNeutronTags(path, tags, { nameIsTag: true }, calls));
      const mapped = addressFromBody(address);
      return untagged ? { ...mapped, resource: { ...mapped.resource, tags } } : mapped;
    },

    async get(id, calls) {
      const answer = await calls.find("network", `/floatingips/${id}`, floatingIpResponseSchema);
      return answer === undefined ? undefined : addressFromBody(answer.floatingip);
    },

    async *list(filter, calls) {
      const project_id = await calls.projectId();
      const query = { project_id, ...(filter.ids === undefined ? {} : { id: filter.ids }) };
      for await (const page of floatingIps(query, calls)) {
        yield page.map((address) => foundByDescription(addressFromBody(address), address.description));
      }
    },

    async update(_id, set) {
      onlyUpdates("address", set, []);
    },

    setTags: (id, set, remove, calls) => changeNeutronTags(`/floatingips/${id}`, set, remove, calls),

    async delete(id, calls) {
      await calls.remove("network", `/floatingips/${id}`);
    },
  };
}

async function serverOf(address: NeutronFloatingIp, calls: Calls): Promise<string | undefined> {
  if (!address.port_id) return undefined;
  if (address.port_details?.device_id) return address.port_details.device_id;
  // Clouds without the extension fip-port-details.
  const answer = await calls.find("network", `/ports/${address.port_id}`, portResponseSchema);
  return answer?.port.device_id;
}

/** The server's port with the private address asked for, as soon as the server has one. */
async function portOfServer(
  serverId: string,
  privateIp: string | undefined,
  calls: Calls,
): Promise<NeutronPort> {
  return calls.until(async () => {
    const ports = await calls.all("network", "/ports", "ports", portSchema, {
      ...byId,
      query: { device_id: serverId },
    });
    const addressed = ports.filter(({ fixed_ips: ips }) => ips.length > 0);
    const port =
      privateIp === undefined
        ? addressed[0]
        : addressed.find(({ fixed_ips: ips }) => ips.some(({ ip_address: ip }) => ip === privateIp));
    if (port !== undefined) return port;
    const answer = await calls.find("compute", `/servers/${serverId}`, serverResponseSchema);
    if (answer === undefined) {
      throw new OperationalError("cloud.not_found", `there is no server ${serverId} to lead the address to`);
    }
    const { status, fault } = answer.server;
    if (status === "BUILD") return undefined;
    const problem =
      privateIp === undefined || addressed.length === 0
        ? "has no port"
        : `has no port with the address ${privateIp}`;
    const why = status === "ERROR" ? `: it failed (${fault?.message ?? "no fault told"})` : "";
    throw new OperationalError("cloud.refused", `server ${serverId} ${problem}${why}`);
  });
}

export function addressAssociationKind(): KindDriver<"addressAssociation"> {
  const observe = async (
    address: NeutronFloatingIp,
    calls: Calls,
  ): Promise<MappedResource<"addressAssociation"> | undefined> =>
    addressAssociationFromBody(address, await serverOf(address, calls));
  return {
    async create({ spec }, calls) {
      const port = await portOfServer(spec.serverId, spec.privateIp, calls);
      const body = {
        floatingip: {
          port_id: port.id,
          ...(spec.privateIp === undefined ? {} : { fixed_ip_address: spec.privateIp }),
        },
      };
      const path = `/floatingips/${spec.addressId}`;
      const { floatingip } = await calls.change("PUT", "network", path, body, floatingIpResponseSchema);
      const mapped = addressAssociationFromBody(floatingip, spec.serverId);
      if (mapped !== undefined) return mapped;
      throw new OperationalError(
        "cloud.protocol",
        `address ${spec.addressId} did not take the server's port`,
        {
          outcome: "unknown",
        },
      );
    },

    async get(id, calls) {
      const path = `/floatingips/${addressOfAssociation(id)}`;
      const answer = await calls.find("network", path, floatingIpResponseSchema);
      return answer === undefined ? undefined : observe(answer.floatingip, calls);
    },

    /** An association is of the scope that its address is of. */
    async *list(_filter, calls) {
      const project_id = await calls.projectId();
      for await (const page of floatingIps({ project_id }, calls)) {
        const found: Found<"addressAssociation">[] = [];
        for (const address of page) {
          const mapped = await observe(address, calls);
          if (mapped !== undefined) found.push(foundByDescription(mapped, address.description));
        }
        yield found;
      }
    },

    async update(_id, set) {
      onlyUpdates("addressAssociation", set, []);
    },

    async setTags() {
      throw noTags("addressAssociation");
    },

    async delete(id, calls) {
      const path = `/floatingips/${addressOfAssociation(id)}`;
      const answer = await calls.find("network", path, floatingIpResponseSchema);
      if (answer === undefined || !answer.floatingip.port_id) return;
      await calls.act("PUT", "network", path, { floatingip: { port_id: null } });
    },
  };
}
