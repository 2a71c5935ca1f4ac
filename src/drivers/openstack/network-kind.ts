/**
 * A network of the model is a Neutron network and one router of ours, so that its subnets reach each other; `internet`
 * is the router's external gateway. The router is known by its description, which names the network.
 */
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import {
  networkResponseSchema,
  networkSchema,
  portSchema,
  routerInterfaceOwners,
  routerResponseSchema,
  routerSchema,
  subnetSchema,
} from "#wire/openstack/neutron.ts";
import type { NeutronNetwork, NeutronRouter } from "#wire/openstack/neutron.ts";
import { internetNetworks, networkFromBody, routerDescription } from "#wire/openstack/openstack-resources.ts";
import { markerFor, markerText } from "#wire/openstack/openstack-tags.ts";
import type { Calls } from "./calls.ts";
import type { KindDriver } from "./kind-driver.ts";
import { onlyUpdates } from "./kind-driver.ts";
import { addNeutronTags, changeNamedTags, foundByDescription } from "./neutron-tags.ts";

export const byId = { markerOf: ({ id }: { readonly id: string }): string => id };

/** The network's router: ours by description, else any that has an interface in it. */
export async function routerOfNetwork(networkId: string, calls: Calls): Promise<NeutronRouter | undefined> {
  const [ours] = await calls.all("network", "/routers", "routers", routerSchema, {
    ...byId,
    query: { description: routerDescription(networkId) },
  });
  if (ours !== undefined) return ours;
  const [port] = await calls.all("network", "/ports", "ports", portSchema, {
    ...byId,
    query: { network_id: networkId, device_owner: routerInterfaceOwners },
  });
  if (port === undefined || port.device_id === "") return undefined;
  const answer = await calls.find("network", `/routers/${port.device_id}`, routerResponseSchema);
  return answer?.router;
}

/** The network that gateways and floating IPs come from: the one that is configured, or the only external one. */
export async function publicNetworkId(named: string | undefined, calls: Calls): Promise<string> {
  const external = await calls.all("network", "/networks", "networks", networkSchema, {
    ...byId,
    query: { "router:external": "true" },
  });
  const candidates =
    named === undefined ? external : external.filter(({ id, name }) => id === named || name === named);
  const [only, second] = candidates;
  if (only !== undefined && second === undefined) return only.id;
  const names = external.map(({ name, id }) => (name === "" ? id : name)).join(", ") || "none";
  const problem =
    named === undefined
      ? only === undefined
        ? "the cloud has no external network, which internet access and public addresses come from"
        : "the cloud has several external networks: say which one to use as publicNetwork"
      : `publicNetwork ${named} names ${only === undefined ? "no" : "more than one"} external network`;
  throw new OperationalError("config.invalid", `${problem} (external networks: ${names})`);
}

async function isInternet(networkId: string, calls: Calls): Promise<boolean> {
  const router = await routerOfNetwork(networkId, calls);
  return Boolean(router?.external_gateway_info);
}

async function ensureRouter(
  networkId: string,
  name: string,
  gateway: string | undefined,
  fresh: boolean,
  calls: Calls,
): Promise<void> {
  const external_gateway_info = gateway === undefined ? {} : { network_id: gateway };
  const router = fresh ? undefined : await routerOfNetwork(networkId, calls);
  if (router === undefined) {
    const description = routerDescription(networkId);
    const body = gateway === undefined ? { name, description } : { name, description, external_gateway_info };
    await calls.act("POST", "network", "/routers", { router: body });
  } else if (router.external_gateway_info?.network_id !== gateway) {
    await calls.act("PUT", "network", `/routers/${router.id}`, { router: { external_gateway_info } });
  }
}

/** Whether anything but us would be torn down with the network. */
async function refuseWhileSubnets(networkId: string, calls: Calls): Promise<void> {
  const subnets = await calls.all("network", "/subnets", "subnets", subnetSchema, {
    ...byId,
    query: { network_id: networkId },
  });
  if (subnets.length === 0) return;
  throw new OperationalError(
    "cloud.conflict",
    `network ${networkId} still has subnets (${subnets.map(({ id }) => id).join(", ")}): delete them first`,
    { remoteCode: "NetworkInUse" },
  );
}

export function networkKind(publicNetwork: string | undefined): KindDriver<"network"> {
  const byMarker = async (mark: string, calls: Calls): Promise<NeutronNetwork | undefined> => {
    const [found] = await calls.all("network", "/networks", "networks", networkSchema, {
      ...byId,
      query: { description: mark },
    });
    return found;
  };
  return {
    async create({ spec, tags, token, scope, mayExist }, calls) {
      const mark = markerText(markerFor(scope, token));
      const gateway = spec.internet ? await publicNetworkId(publicNetwork, calls) : undefined;
      const name = tags["Name"] ?? "";
      const known = mayExist ? await byMarker(mark, calls) : undefined;
      const network =
        known ??
        (
          await calls.change(
            "POST",
            "network",
            "/networks",
            { network: { name, description: mark } },
            networkResponseSchema,
          )
        ).network;
      const untagged = (network.tags ?? []).length === 0;
      await onceThere(async () => {
        await ensureRouter(network.id, name, gateway, known === undefined, calls);
        if (untagged) await addNeutronTags(`/networks/${network.id}`, tags, { nameIsTag: false }, calls);
      });
      const mapped = networkFromBody(network, spec.internet);
      return untagged ? { ...mapped, resource: { ...mapped.resource, tags } } : mapped;
    },

    async get(id, calls) {
      const answer = await calls.find("network", `/networks/${id}`, networkResponseSchema);
      if (answer === undefined) return undefined;
      return networkFromBody(answer.network, await isInternet(id, calls));
    },

    async *list(filter, calls) {
      const project_id = await calls.projectId();
      const [routers, interfaces] = await Promise.all([
        calls.all("network", "/routers", "routers", routerSchema, { ...byId, query: { project_id } }),
        calls.all("network", "/ports", "ports", portSchema, {
          ...byId,
          query: { project_id, device_owner: routerInterfaceOwners },
        }),
      ]);
      const internet = internetNetworks(routers, interfaces);
      const query = { project_id, ...(filter.ids === undefined ? {} : { id: filter.ids }) };
      const pages = calls.pages("network", "/networks", "networks", networkSchema, { ...byId, query });
      for await (const page of pages) {
        yield page
          .filter((network) => network["router:external"] !== true)
          .map((network) =>
            foundByDescription(networkFromBody(network, internet.has(network.id)), network.description),
          );
      }
    },

    async update(id, set, calls) {
      onlyUpdates("network", set, ["internet", "cidr"]);
      if (set.internet === undefined) return;
      const gateway = set.internet ? await publicNetworkId(publicNetwork, calls) : undefined;
      const { network } = await calls.get("network", `/networks/${id}`, networkResponseSchema);
      const router = await routerOfNetwork(id, calls);
      if (router !== undefined && Boolean(router.external_gateway_info) === set.internet) return;
      await ensureRouter(id, network.name, gateway, false, calls);
    },

    setTags: (id, set, remove, calls) => changeNamedTags("network", `/networks/${id}`, set, remove, calls),

    async delete(id, calls) {
      await refuseWhileSubnets(id, calls);
      const routers = await calls.all("network", "/routers", "routers", routerSchema, {
        ...byId,
        query: { description: routerDescription(id) },
      });
      for (const router of routers) await calls.remove("network", `/routers/${router.id}`);
      await calls.remove("network", `/networks/${id}`);
    },
  };
}
