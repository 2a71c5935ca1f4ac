/** POST /servers: from a request to servers with ports and disks. Source: nova/api/openstack/compute/schemas/servers.py. */
import { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import { findAll } from "#devcloud/core/cloud.ts";
import type { NetworkRecord, ServerRecord } from "#devcloud/core/records.ts";
import { checkServerQuota, createServer, type ServerInput } from "#devcloud/core/servers.ts";
import { attachVolume } from "#devcloud/core/volumes.ts";
import { blockDeviceMappingSchema } from "#wire/openstack/nova.ts";
import { type Answer, json } from "./answer.ts";
import { type Call, bodyOf, projectOf } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { defaultVolumeType, checkedVolumeType } from "./cinder-volume.ts";
import { extraText } from "./dialect-extra.ts";
import { versionAtLeast } from "./microversion.ts";
import { checkedMetadata, checkedNovaTags, metadataSchema } from "./nova-metadata.ts";
import { computeLinks } from "./nova-server-body.ts";
import { defaultGroup } from "./neutron-group-routes.ts";
import { subnetForPort } from "./neutron-port-routes.ts";
import { defaultZone } from "./openstack-catalog.ts";

const MAX_USER_DATA = 65_535;
const MAX_COUNT = 200;

const count = z.union([z.number(), z.string().regex(/^[0-9]{1,4}$/)]).optional();
const serverSchema = z.strictObject({
  name: z.string().min(1).max(255),
  flavorRef: z.union([z.string(), z.number()]),
  imageRef: z.string().optional(),
  key_name: z.string().nullish(),
  user_data: z.string().max(MAX_USER_DATA).nullish(),
  availability_zone: z.string().nullish(),
  description: z.string().max(255).nullish(),
  metadata: metadataSchema.optional(),
  tags: z.array(z.string()).max(50).optional(),
  security_groups: z.array(z.object({ name: z.string() })).optional(),
  networks: z
    .union([
      z.enum(["auto", "none"]),
      z
        .array(
          z.strictObject({
            uuid: z.string().optional(),
            port: z.string().nullish(),
            fixed_ip: z.string().optional(),
            tag: z.string().optional(),
          }),
        )
        .max(8),
    ])
    .optional(),
  block_device_mapping_v2: z.array(blockDeviceMappingSchema).max(20).optional(),
  min_count: count,
  max_count: count,
  adminPass: z.string().optional(),
  config_drive: z.union([z.boolean(), z.string()]).optional(),
  "OS-DCF:diskConfig": z.enum(["AUTO", "MANUAL"]).optional(),
});
type ServerCreate = z.infer<typeof serverSchema>;
const createSchema = z.object({
  server: serverSchema,
  "os:scheduler_hints": z.looseObject({}).optional(),
  "OS-SCH-HNT:scheduler_hints": z.looseObject({}).optional(),
});

function checkedUserData(text: string | null | undefined): string | null {
  if (text === null || text === undefined || text === "") return null;
  if (/^[A-Za-z0-9+/\r\n]*={0,2}[\r\n]*$/.test(text)) return text;
  throw badRequest("Invalid input for field/attribute user_data. User data needs to be valid base 64.");
}

/** By id, or by a name that only one has. */
function groupIdsOf(cloud: Cloud, asked: readonly { readonly name: string }[]): string[] {
  if (asked.length === 0) return [defaultGroup(cloud).id];
  const { group } = cloud.data.tables;
  return asked.map(({ name }) => {
    const byId = group.get(name);
    if (byId !== undefined) return byId.id;
    const [only, second] = group.by("name", `/${name}`);
    if (second !== undefined) {
      throw new ApiError(
        409,
        `Multiple security_group matches found for name '${quoted(name)}', use an ID to be more specific.`,
      );
    }
    if (only !== undefined) return only.id;
    throw badRequest(`Unable to find security_group with name or id '${quoted(name)}'`);
  });
}

function onlyNetwork(call: Call, asked: "auto" | undefined): NetworkRecord | undefined {
  const own = [...call.cloud.data.tables.network.values()].filter((network) => !network.external);
  const [only, second] = own;
  if (second !== undefined) {
    throw new ApiError(409, "Multiple possible networks found, use a Network ID to be more specific.");
  }
  if (only === undefined && asked === "auto") {
    throw badRequest(`Unable to automatically allocate a network for project ${projectOf(call)}`);
  }
  return only;
}

type Places = Required<Pick<ServerInput, "ports" | "portIds">>;

function placesOf(call: Call, server: ServerCreate): Places {
  const { cloud } = call;
  const groupIds = groupIdsOf(cloud, server.security_groups ?? []);
  if (server.networks === undefined && versionAtLeast(call.microversion, "2.37")) {
    throw badRequest("Invalid input for field/attribute server. 'networks' is a required property");
  }
  if (server.networks === "none") return { ports: [], portIds: [] };
  if (server.networks === undefined || server.networks === "auto" || server.networks.length === 0) {
    const network = onlyNetwork(call, server.networks === "auto" ? "auto" : undefined);
    if (network === undefined) return { ports: [], portIds: [] };
    return { ports: [{ subnetId: subnetOf(call, network.id, undefined), groupIds }], portIds: [] };
  }
  const portIds = server.networks.flatMap(({ port }) => port ?? []);
  findAllPorts(call, portIds);
  const ports = server.networks
    .filter(({ port }) => port === undefined || port === null)
    .map(({ uuid = "", fixed_ip: ip }) => ({
      subnetId: subnetOf(call, uuid, ip),
      groupIds,
      ...(ip === undefined ? {} : { privateIp: ip }),
    }));
  return { ports, portIds };
}

function findAllPorts(call: Call, ids: readonly string[]): void {
  for (const port of findAll(call.cloud, "port", ids)) {
    if (port.serverId === null && extraText(port, "deviceId") === "") continue;
    throw new ApiError(409, `Port ${port.id} is still in use.`);
  }
}

function subnetOf(call: Call, networkId: string, ip: string | undefined): string {
  const network = call.cloud.data.tables.network.get(networkId);
  if (network === undefined) throw badRequest(`Network ${quoted(networkId)} could not be found.`);
  if (network.external) {
    throw new ApiError(403, `It is not allowed to create an interface on external network ${network.id}`);
  }
  if (call.cloud.data.tables.subnet.by("network", networkId).length === 0) {
    throw badRequest(`Network ${network.id} requires a subnet in order to boot instances on.`);
  }
  return subnetForPort(call, networkId, { ip }).id;
}

interface Disks {
  readonly imageId: string;
  readonly bootFromVolume: boolean;
  readonly made: NonNullable<ServerInput["volumes"]>;
  readonly given: readonly { readonly volumeId: string; readonly deleteOnTermination: boolean }[];
}

function sizeOf(value: number | string | undefined): number {
  const size = Number(value ?? 0);
  if (Number.isInteger(size) && size > 0 && size <= 65_536) return size;
  throw badRequest("Block Device Mapping is Invalid: volume_size is needed, in GiB.");
}

function disksOf(call: Call, server: ServerCreate): Disks {
  const { cloud } = call;
  const made: NonNullable<ServerInput["volumes"]>[number][] = [];
  const given: { volumeId: string; deleteOnTermination: boolean }[] = [];
  let imageId = server.imageRef ?? "";
  let bootFromVolume = false;
  let next = "b".charCodeAt(0);
  for (const device of server.block_device_mapping_v2 ?? []) {
    const root = String(device.boot_index ?? "-1") === "0";
    const { source_type: source, uuid = "" } = device;
    const remote = device.destination_type !== "local";
    if (source === "image") imageId = uuid;
    if (root && remote) bootFromVolume = true;
    const deleteOnTermination = device.delete_on_termination ?? false;
    if (source === "volume") {
      const volume = cloud.data.tables.volume.get(uuid);
      if (volume === undefined)
        throw badRequest(`Block Device Mapping is Invalid: failed to get volume ${quoted(uuid)}.`);
      if (root) imageId = extraText(volume, "imageId") || (cloud.catalog.images[0]?.id ?? "");
      given.push({ volumeId: volume.id, deleteOnTermination });
      continue;
    }
    if (!remote) continue;
    if (source === "snapshot") {
      throw badRequest(`Block Device Mapping is Invalid: failed to get snapshot ${quoted(uuid)}.`);
    }
    const name = root ? "/dev/vda" : (device.device_name ?? `/dev/vd${String.fromCharCode(next)}`);
    if (!root) next += 1;
    made.push({
      sizeGiB: sizeOf(device.volume_size),
      type: checkedVolumeType(device.volume_type ?? defaultVolumeType),
      device: name,
      deleteOnTermination,
      ...(root ? { extra: { imageId } } : {}),
    });
  }
  if (imageId === "") throw badRequest("Invalid imageRef provided.");
  if (!cloud.catalog.images.some(({ id }) => id === imageId))
    throw badRequest("Can not find requested image");
  return { imageId, bootFromVolume, made, given };
}

function zoneOf(cloud: Cloud, asked: string | null | undefined): string {
  // `nova:host` names a host too, which only administrators may choose.
  const zone = asked ?? defaultZone;
  if (cloud.catalog.zones.includes(zone)) return zone;
  throw badRequest("The requested availability zone is not available");
}

function checkedFlavor(cloud: Cloud, ref: string | number): string {
  const id = String(ref).split("/").at(-1) ?? "";
  if (cloud.catalog.types.some((type) => type.id === id)) return id;
  throw badRequest(`Flavor ${quoted(id)} could not be found.`);
}

function countOf(server: ServerCreate): number {
  const least = Number(server.min_count ?? 1);
  const most = Number(server.max_count ?? least);
  if (least < 1 || most < least || most > MAX_COUNT) throw badRequest("min_count must be <= max_count");
  return most;
}

function createOne(call: Call, server: ServerCreate, name: string): ServerRecord {
  const { cloud } = call;
  const disks = disksOf(call, server);
  const places = placesOf(call, server);
  const made = createServer(cloud, {
    name,
    imageId: disks.imageId,
    type: checkedFlavor(cloud, server.flavorRef),
    keyName: server.key_name ?? null,
    userData: checkedUserData(server.user_data),
    zone: zoneOf(cloud, server.availability_zone),
    ...places,
    publicAddress: false,
    volumes: disks.made,
    tags: checkedMetadata(cloud, server.metadata ?? {}),
    extra: {
      novaTags: checkedNovaTags(server.tags ?? []),
      description: server.description ?? "",
      bootFromVolume: disks.bootFromVolume,
    },
  });
  disks.given.forEach(({ volumeId, deleteOnTermination }, index) => {
    const device = `/dev/vd${String.fromCharCode("a".charCodeAt(0) + disks.made.length + index + (disks.bootFromVolume ? 0 : 1))}`;
    attachVolume(cloud, { volumeId, serverId: made.id, device, deleteOnTermination });
  });
  return made;
}

export function postServer(call: Call): Answer {
  const { server } = bodyOf(call, createSchema);
  const { cloud } = call;
  const type = checkedFlavor(cloud, server.flavorRef);
  const keyName = server.key_name ?? null;
  if (keyName !== null && cloud.data.tables.keyPair.countBy("name", keyName) === 0) {
    throw badRequest("Invalid key_name provided.");
  }
  const wanted = countOf(server);
  checkServerQuota(cloud, type, wanted);
  const names =
    wanted === 1 ? [server.name] : Array.from({ length: wanted }, (_, n) => `${server.name}-${n + 1}`);
  const made = names.map((name) => createOne(call, server, name));
  const first = made[0] as ServerRecord;
  const links = computeLinks(call, `/servers/${first.id}`);
  return json(
    202,
    {
      server: {
        id: first.id,
        links,
        "OS-DCF:diskConfig": server["OS-DCF:diskConfig"] ?? "MANUAL",
        security_groups: server.security_groups ?? [{ name: "default" }],
        adminPass: server.adminPass ?? cloud.random.hex(6),
      },
    },
    { location: `${call.base}/compute/v2.1/servers/${first.id}` },
  );
}
