/** A subnet of the model is a Neutron subnet and its interface on the network's router. */
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import { portSchema, subnetResponseSchema, subnetSchema } from "#wire/openstack/neutron.ts";
import type { NeutronPort, NeutronSubnet } from "#wire/openstack/neutron.ts";
import { isRouterInterface, subnetFromBody } from "#wire/openstack/openstack-resources.ts";
import { markerFor, markerText, splitMarker } from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import type { KindDriver } from "./kind-driver.ts";
import { onlyUpdates } from "./kind-driver.ts";
import { byId, routerOfNetwork } from "./network-kind.ts";
import { addNeutronTags, changeNamedTags, foundByDescription } from "./neutron-tags.ts";

/** Ports with an address of this subnet. */
async function portsIn(subnet: NeutronSubnet, calls: Calls): Promise<NeutronPort[]> {
  const ports = await calls.all("network", "/ports", "ports", portSchema, {
    ...byId,
    query: { network_id: subnet.network_id },
  });
  return ports.filter((port) => port.fixed_ips.some(({ subnet_id: id }) => id === subnet.id));
}

async function ensureInterface(subnet: NeutronSubnet, fresh: boolean, calls: Calls): Promise<void> {
  const router = await routerOfNetwork(subnet.network_id, calls);
  // A network that somebody else made without a router stays without.
  if (router === undefined) return;
  const attached = !fresh && (await portsIn(subnet, calls)).some(isRouterInterface);
  if (attached) return;
  await calls.act("PUT", "network", `/routers/${router.id}/add_router_interface`, { subnet_id: subnet.id });
}

/** A port that we made for a server that was never made, or is gone. */
function isOrphan(port: NeutronPort): boolean {
  return port.device_id === "" && splitMarker(port.description ?? "").marker !== undefined;
}

/** Ports of the cloud's own services (DHCP) end with the subnet. */
function isInfrastructure(port: NeutronPort): boolean {
  return port.device_owner.startsWith("network:") && !isRouterInterface(port);
}

export function subnetKind(): KindDriver<"subnet"> {
  return {
    async create({ spec, tags, token, scope, mayExist }, calls) {
      const mark = markerText(markerFor(scope, token));
      const [known] = mayExist
        ? await calls.all("network", "/subnets", "subnets", subnetSchema, {
            ...byId,
            query: { description: mark },
          })
        : [];
      const body = {
        subnet: {
          network_id: spec.networkId,
          cidr: spec.cidr,
          ip_version: spec.cidr.includes(":") ? 6 : 4,
          name: tags["Name"] ?? "",
          description: mark,
        },
      };
      const subnet =
        known ?? (await calls.change("POST", "network", "/subnets", body, subnetResponseSchema)).subnet;
      const untagged = (subnet.tags ?? []).length === 0;
      await onceThere(async () => {
        await ensureInterface(subnet, known === undefined, calls);
        if (untagged) await addNeutronTags(`/subnets/${subnet.id}`, tags, { nameIsTag: false }, calls);
      });
      const mapped = subnetFromBody(subnet);
      return untagged ? { ...mapped, resource: { ...mapped.resource, tags } } : mapped;
    },

    async get(id, calls) {
      const answer = await calls.find("network", `/subnets/${id}`, subnetResponseSchema);
      return answer === undefined ? undefined : subnetFromBody(answer.subnet);
    },

    async *list(filter, calls) {
      const project_id = await calls.projectId();
      const query = { project_id, ...(filter.ids === undefined ? {} : { id: filter.ids }) };
      for await (const page of calls.pages("network", "/subnets", "subnets", subnetSchema, {
        ...byId,
        query,
      })) {
        yield page.map((subnet) => foundByDescription(subnetFromBody(subnet), subnet.description));
      }
    },

    async update(_id, set) {
      onlyUpdates("subnet", set, ["publicAddresses", "zone"]);
    },

    setTags: (id, set, remove, calls) => changeNamedTags("subnet", `/subnets/${id}`, set, remove, calls),

    async delete(id, calls) {
      const answer = await calls.find("network", `/subnets/${id}`, subnetResponseSchema);
      if (answer === undefined) return;
      const ports = await portsIn(answer.subnet, calls);
      const busy = ports.filter(
        (port) => !isRouterInterface(port) && !isOrphan(port) && !isInfrastructure(port),
      );
      if (busy.length > 0) {
        throw new OperationalError(
          "cloud.conflict",
          `subnet ${id} still has ports in use (${busy.map((port) => port.device_id || port.id).join(", ")}): delete what uses them first`,
          { remoteCode: "SubnetInUse" },
        );
      }
      for (const port of ports.filter(isOrphan)) await calls.remove("network", `/ports/${port.id}`);
      for (const port of ports.filter(isRouterInterface)) {
        await calls.act("PUT", "network", `/routers/${port.device_id}/remove_router_interface`, {
          subnet_id: id,
        });
      }
      await calls.remove("network", `/subnets/${id}`);
    },
  };
}
