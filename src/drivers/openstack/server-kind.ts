/**
 * Servers. Tags, token and scope are metadata; the digests of token and scope are also Nova tags, which is what Nova's lists
 * can be filtered by. Disks beside the image's are asked for in the create itself (block_device_mapping_v2), not made and
 * attached afterwards: one call, nothing half-made to find after a crash, and Nova ends them with their server.
 */
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { BlockDevice, ServerSpec, Tags } from "#model/resource.ts";
import type { CreateRequest } from "#cloud/contract.ts";
import { serverCreatedSchema, serverSchema } from "#wire/openstack/nova.ts";
import type { NovaServer } from "#wire/openstack/nova.ts";
import type { MappedResource } from "#wire/openstack/openstack-resources.ts";
import { noAddresses, serverFromBody, unnamedPrefix } from "#wire/openstack/openstack-resources.ts";
import {
  markerFor,
  metadataFromTags,
  metadataKey,
  metadataScopeKey,
  metadataTokenKey,
  scopeDigestOf,
  serverFilterTags,
} from "#wire/openstack/openstack-tags.ts";
import type { Calls, QueryItems } from "./calls.ts";
import type { CatalogueLookup } from "./catalogue.ts";
import type { Found, KindDriver } from "./kind-driver.ts";
import { onlyUpdates } from "./kind-driver.ts";
import { byId } from "./network-kind.ts";
import { deletePorts, linksOfServers, placeServer, portsOfServers, regroup } from "./server-placement.ts";
import { deleteServer, findServer, resize, setPower } from "./server-steps.ts";

function servers(query: QueryItems, calls: Calls): AsyncGenerator<NovaServer[], void, void> {
  return calls.pages("compute", "/servers/detail", "servers", serverSchema, { ...byId, query });
}

function isDeleted(server: NovaServer): boolean {
  return server.status === "DELETED" || server.status === "SOFT_DELETED";
}

async function byToken(token: string, filterTag: string, calls: Calls): Promise<NovaServer | undefined> {
  for await (const page of servers({ tags: filterTag }, calls)) {
    // Looked at again, since a cloud may ignore a filter that it does not know.
    const found = page.find((server) => server.metadata[metadataTokenKey] === token && !isDeleted(server));
    if (found !== undefined) return found;
  }
  return undefined;
}

function blockDevice(device: BlockDevice): Readonly<Record<string, unknown>> {
  return {
    boot_index: -1,
    source_type: device.snapshotId === undefined ? "blank" : "snapshot",
    destination_type: "volume",
    volume_size: device.sizeGiB,
    delete_on_termination: device.deleteOnTermination,
    ...(device.snapshotId === undefined ? {} : { uuid: device.snapshotId }),
    ...(device.type === undefined ? {} : { volume_type: device.type }),
    ...(device.device === "" ? {} : { device_name: device.device }),
  };
}

function blockDevices(imageId: string, devices: readonly BlockDevice[]): Readonly<Record<string, unknown>> {
  if (devices.length === 0) return {};
  const root = {
    boot_index: 0,
    uuid: imageId,
    source_type: "image",
    destination_type: "local",
    delete_on_termination: true,
  };
  return { block_device_mapping_v2: [root, ...devices.map(blockDevice)] };
}

/** What a create asks for, as it stands in the cloud right after. */
function accepted(id: string, spec: ServerSpec, tags: Tags): MappedResource<"server"> {
  return {
    resource: { kind: "server", id: id as never, spec: { ...spec, publicAddress: false }, tags },
    status: "pending",
    addresses: noAddresses,
  };
}

const noLinks = { ports: [] };

async function observe(server: NovaServer, calls: Calls): Promise<MappedResource<"server">> {
  const links = await linksOfServers([server.id], calls);
  return serverFromBody(server, links.get(server.id) ?? noLinks);
}

async function post(
  request: CreateRequest<"server">,
  catalogue: CatalogueLookup,
  calls: Calls,
): Promise<string> {
  const { spec, tags, token, scope, mayExist } = request;
  const marker = markerFor(scope, token);
  const [flavor, imageRef, placement] = await Promise.all([
    catalogue.flavor(spec.type, calls),
    catalogue.imageId(spec.imageId, calls),
    placeServer(spec, marker, mayExist, calls),
  ]);
  const filterTags = serverFilterTags(marker);
  const groups = placement.groupsOnServer ? spec.groupIds.map((name) => ({ name })) : [];
  const server = {
    name: tags["Name"] || `${unnamedPrefix}${marker.tokenDigest.slice(0, 8)}`,
    flavorRef: flavor.id,
    imageRef,
    networks: placement.networks,
    metadata: { ...metadataFromTags(tags), [metadataTokenKey]: token, [metadataScopeKey]: scope },
    tags: [filterTags.token, filterTags.scope],
    ...(groups.length === 0 ? {} : { security_groups: groups }),
    ...(spec.keyName === undefined ? {} : { key_name: spec.keyName }),
    ...(spec.userData === undefined || spec.userData === "" ? {} : { user_data: spec.userData }),
    ...(spec.zone === undefined ? {} : { availability_zone: spec.zone }),
    ...blockDevices(imageRef, spec.blockDevices),
  };
  try {
    const answer = await calls.change("POST", "compute", "/servers", { server }, serverCreatedSchema);
    return answer.server.id;
  } catch (error) {
    // A port whose server was refused would keep an address; one that stays after a crash goes with its subnet.
    const refused = isOperational(error) && error.outcome === "not_applied" && !calls.signal.aborted;
    if (refused && placement.portId !== undefined)
      await calls.remove("network", `/ports/${placement.portId}`);
    throw error;
  }
}

async function found(page: readonly NovaServer[], calls: Calls): Promise<Found<"server">[]> {
  const alive = page.filter((server) => !isDeleted(server));
  const links = await linksOfServers(
    alive.map(({ id }) => id),
    calls,
  );
  return alive.map((server) => {
    const scope = server.metadata[metadataScopeKey];
    return {
      mapped: serverFromBody(server, links.get(server.id) ?? noLinks),
      scopeDigest: scope === undefined ? undefined : scopeDigestOf(scope),
    };
  });
}

async function retag(id: string, set: Tags, remove: readonly string[], calls: Calls): Promise<void> {
  const path = `/servers/${id}`;
  const cleared = remove.includes("Name") ? `${unnamedPrefix}${id.slice(0, 8)}` : undefined;
  const name = set["Name"] || cleared;
  if (name !== undefined) await calls.act("PUT", "compute", path, { server: { name } });
  const metadata = metadataFromTags(set);
  if (Object.keys(metadata).length > 0) {
    await calls.act("POST", "compute", `${path}/metadata`, { metadata });
  }
  for (const key of remove.filter((one) => one !== "Name")) {
    await calls.remove("compute", `${path}/metadata/${encodeURIComponent(metadataKey(key))}`);
  }
}

/** Few ids are asked for one by one, many are found in the list. */
const fewIds = 20;

export function serverKind(catalogue: CatalogueLookup): KindDriver<"server"> {
  return {
    async create(request, calls) {
      const { spec, tags, token, scope, mayExist } = request;
      const filterTag = serverFilterTags(markerFor(scope, token)).token;
      const known = mayExist ? await byToken(token, filterTag, calls) : undefined;
      const id = known?.id ?? (await post(request, catalogue, calls));
      // Nova makes running servers only.
      const stillRunning =
        spec.power === "stopped" && known?.status !== "SHUTOFF" && known?.status !== "ERROR";
      if (known === undefined && !stillRunning) return accepted(id, spec, tags);
      return onceThere(async () => {
        if (stillRunning) await setPower(id, "stopped", calls);
        const server = await findServer(id, calls);
        if (server !== undefined) return observe(server, calls);
        throw new OperationalError("cloud.not_found", `server ${id} went away while it was made`);
      });
    },

    async get(id, calls) {
      const server = await findServer(id, calls);
      return server === undefined || isDeleted(server) ? undefined : observe(server, calls);
    },

    async *list(filter, calls) {
      if (filter.ids !== undefined && filter.ids.length <= fewIds) {
        const looked = await Promise.all(filter.ids.map((id) => findServer(id, calls)));
        yield await found(
          looked.filter((server) => server !== undefined),
          calls,
        );
        return;
      }
      const tags =
        filter.scope === undefined ? undefined : serverFilterTags(markerFor(filter.scope, "")).scope;
      for await (const page of servers({ tags }, calls)) yield await found(page, calls);
    },

    async update(id, set, calls) {
      onlyUpdates("server", set, ["power", "type", "groupIds", "publicAddress"]);
      if (set.groupIds !== undefined) await regroup(id, set.groupIds, calls);
      if (set.type !== undefined) await resize(id, await catalogue.flavor(set.type, calls), calls);
      if (set.power !== undefined) await setPower(id, set.power, calls);
    },

    setTags: retag,

    async delete(id, calls) {
      const ports = (await portsOfServers([id], calls)).get(id) ?? [];
      await deleteServer(id, calls);
      await deletePorts(ports, calls);
    },
  };
}
