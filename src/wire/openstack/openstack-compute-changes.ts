/** Nova's and Cinder's changes of the model. */
import { z } from "zod";
import type { BlockDevice, ServerSpec } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import { volumeCreateSchema, volumeResponseSchema } from "./cinder.ts";
import {
  portResponseSchema,
  portsResponseSchema,
  securityGroupsResponseSchema,
  subnetsResponseSchema,
} from "./neutron.ts";
import type { NovaServerCreate } from "./nova.ts";
import {
  flavorResponseSchema,
  keypairResponseSchema,
  metadataBodySchema,
  metadataItemBodySchema,
  serverCreateSchema,
  serverCreatedSchema,
  serverResponseSchema,
  volumeAttachCreateSchema,
  volumeAttachmentResponseSchema,
} from "./nova.ts";
import {
  changed,
  created,
  deleted,
  fieldGap,
  id,
  joinEffects,
  lookUp,
  noEffect,
  operationGap,
  retagged,
  tagged,
  withBody,
} from "./openstack-effect.ts";
import type {
  OpenstackEffect,
  OpenstackLookup,
  OpenstackTranslator,
  OpenstackTranslators,
  TranslatorInput,
} from "./openstack-effect.ts";
import { attachmentFromBody, keyPairFromBody, volumeFromBody } from "./openstack-resources.ts";
import { tagsFromMetadata } from "./openstack-tags.ts";

const uuid = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
const nothing: OpenstackTranslator = () => noEffect;

async function flavorName(ref: string, lookup: OpenstackLookup): Promise<string> {
  const found = await lookUp(lookup, "compute", `/flavors/${encodeURIComponent(ref)}`, flavorResponseSchema);
  return found?.flavor.name ?? ref;
}

async function groupId(nameOrId: string, lookup: OpenstackLookup): Promise<string | undefined> {
  if (uuid.test(nameOrId)) return nameOrId;
  const path = `/security-groups?name=${encodeURIComponent(nameOrId)}`;
  const found = await lookUp(lookup, "network", path, securityGroupsResponseSchema);
  return found?.security_groups[0]?.id;
}

type Place = Pick<ServerSpec, "subnetId" | "privateIp"> & { readonly portGroups: readonly string[] };

/** Where the first interface stands; the others have no place in the model. */
async function placeOf(server: NovaServerCreate, lookup: OpenstackLookup): Promise<Place> {
  const network = Array.isArray(server.networks) ? server.networks[0] : undefined;
  if (network?.port !== undefined) {
    const found = await lookUp(lookup, "network", `/ports/${network.port}`, portResponseSchema);
    const fixed = found?.port.fixed_ips[0];
    const place = fixed === undefined ? {} : { subnetId: id(fixed.subnet_id), privateIp: fixed.ip_address };
    return { ...place, portGroups: found?.port.security_groups ?? [] };
  }
  const privateIp = network?.fixed_ip === undefined ? {} : { privateIp: network.fixed_ip };
  if (network?.uuid === undefined) return { ...privateIp, portGroups: [] };
  const path = `/subnets?network_id=${encodeURIComponent(network.uuid)}`;
  const found = await lookUp(lookup, "network", path, subnetsResponseSchema);
  const subnet = found?.subnets[0];
  return { ...(subnet === undefined ? {} : { subnetId: id(subnet.id) }), ...privateIp, portGroups: [] };
}

function blockDevicesOf(server: NovaServerCreate): { devices: BlockDevice[]; untranslated: string[] } {
  const devices: BlockDevice[] = [];
  const untranslated: string[] = [];
  for (const mapping of server.block_device_mapping_v2 ?? []) {
    const boots = Number(mapping.boot_index ?? -1) === 0;
    if (boots && mapping.destination_type === "volume") untranslated.push("it boots from a volume");
    if (boots) continue;
    if (mapping.source_type !== "blank" && mapping.source_type !== "snapshot") {
      untranslated.push(`a disk from a ${mapping.source_type}`);
      continue;
    }
    devices.push({
      device: mapping.device_name ?? "",
      sizeGiB: Number(mapping.volume_size ?? 0),
      deleteOnTermination: mapping.delete_on_termination ?? false,
      ...(mapping.volume_type === undefined ? {} : { type: mapping.volume_type }),
      ...(mapping.uuid === undefined ? {} : { snapshotId: id(mapping.uuid) }),
    });
  }
  return { devices, untranslated };
}

async function serverCreated(
  server: NovaServerCreate,
  serverId: string,
  { operation, lookup }: TranslatorInput,
): Promise<OpenstackEffect> {
  const place = await placeOf(server, lookup);
  const asked = await Promise.all((server.security_groups ?? []).map(({ name }) => groupId(name, lookup)));
  const groupIds = [...asked.filter((group) => group !== undefined), ...place.portGroups];
  const { devices, untranslated } = blockDevicesOf(server);
  if (Number(server.min_count ?? 1) > 1 || Number(server.max_count ?? 1) > 1) {
    untranslated.push("it is one of several made by one request, whose others the answer does not name");
  }
  if (Array.isArray(server.networks) && server.networks.length > 1) {
    untranslated.push("its interfaces beside the first");
  }
  if (server.networks === "none") untranslated.push("it has no network");
  const spec: ServerSpec = {
    imageId:
      server.imageRef ??
      server.block_device_mapping_v2?.find(({ source_type: from }) => from === "image")?.uuid ??
      "",
    type: await flavorName(server.flavorRef, lookup),
    ...(place.subnetId === undefined ? {} : { subnetId: place.subnetId }),
    ...(place.privateIp === undefined ? {} : { privateIp: place.privateIp }),
    groupIds: groupIds.map(id),
    ...(server.key_name ? { keyName: server.key_name } : {}),
    ...(server.user_data ? { userData: server.user_data } : {}),
    ...(server.availability_zone ? { zone: server.availability_zone } : {}),
    publicAddress: false,
    power: "running",
    blockDevices: devices,
  };
  const tags = tagsFromMetadata(server.metadata ?? {}, server.name);
  const effect = changed(created({ kind: "server", id: id(serverId), spec, tags }));
  if (untranslated.length === 0) return effect;
  const gap = fieldGap(operation, { kind: "server", id: serverId }, untranslated.join("; "), "lost");
  return joinEffects([effect, gap]);
}

const createServer: OpenstackTranslator = (input) =>
  withBody(serverCreateSchema, input.request, input.operation, ({ server }) =>
    withBody(serverCreatedSchema, input.response, input.operation, (answer) =>
      serverCreated(server, answer.server.id, input),
    ),
  );

const power =
  (value: "running" | "stopped"): OpenstackTranslator =>
  ({ params }) =>
    changed({ type: "update", kind: "server", id: id(params[0]), set: { power: value } });

/** The type changes with the confirmation: until then the resize may still be taken back. */
const confirmResize: OpenstackTranslator = async ({ params, lookup, operation }) => {
  const found = await lookUp(lookup, "compute", `/servers/${params[0]}`, serverResponseSchema);
  const flavor = found?.server.flavor;
  const type =
    flavor?.original_name ?? (flavor?.id === undefined ? undefined : await flavorName(flavor.id, lookup));
  if (type !== undefined)
    return changed({ type: "update", kind: "server", id: id(params[0]), set: { type } });
  return fieldGap(operation, { kind: "server", id: params[0] ?? "" }, "its new type could not be read");
};

const regrouped: OpenstackTranslator = async ({ params, lookup }) => {
  const path = `/ports?device_id=${encodeURIComponent(params[0] ?? "")}`;
  const found = await lookUp(lookup, "network", path, portsResponseSchema);
  const groups = new Set(found?.ports.flatMap(({ security_groups: list }) => list));
  const set = { groupIds: [...groups].map(id) };
  return changed({ type: "update", kind: "server", id: id(params[0]), set });
};

const attach: OpenstackTranslator = ({ operation, request, response }) =>
  withBody(volumeAttachmentResponseSchema, response, operation, ({ volumeAttachment }) => {
    const asked = volumeAttachCreateSchema.safeParse(request);
    const flag = asked.success ? asked.data.volumeAttachment.delete_on_termination : undefined;
    const body = {
      ...volumeAttachment,
      delete_on_termination: volumeAttachment.delete_on_termination ?? flag ?? false,
    };
    return changed(created(attachmentFromBody(body).resource));
  });

const updateAttachment: OpenstackTranslator = ({ operation, params, request }) => {
  const [server, volume] = params;
  const asked = volumeAttachCreateSchema.safeParse(request);
  const body = asked.success ? asked.data.volumeAttachment : undefined;
  if (body?.volumeId !== volume || body?.delete_on_termination === undefined) {
    return operationGap(operation, "degraded", "the volume was swapped for another one");
  }
  const attachment = volumeAttachmentId(volume ?? "", server ?? "");
  const set = { deleteOnTermination: body.delete_on_termination };
  return changed({ type: "update", kind: "volumeAttachment", id: attachment, set });
};

const metadata = (kind: "server" | "volume"): [string, OpenstackTranslator][] => {
  const path = `/${kind}s/{id}/metadata`;
  return [
    [
      `POST ${path}`,
      ({ operation, params, request }) =>
        withBody(metadataBodySchema, request, operation, (body) =>
          tagged(kind, params[0], tagsFromMetadata(body.metadata)),
        ),
    ],
    [
      `PUT ${path}`,
      (input) =>
        withBody(metadataBodySchema, input.request, input.operation, (body) =>
          retagged(kind, input.params[0], tagsFromMetadata(body.metadata), ["Name"], input),
        ),
    ],
    [
      `PUT ${path}/{key}`,
      ({ operation, params, request }) =>
        withBody(metadataItemBodySchema, request, operation, (body) =>
          tagged(kind, params[0], tagsFromMetadata(body.meta)),
        ),
    ],
    [
      `DELETE ${path}/{key}`,
      ({ params }) =>
        tagged(
          kind,
          params[0],
          {},
          Object.keys(tagsFromMetadata(Object.fromEntries([[params[1] ?? "", ""]]))),
        ),
    ],
  ];
};

const renamed =
  (kind: "server" | "volume"): OpenstackTranslator =>
  ({ operation, params, request }) =>
    withBody(z.object({ [kind]: z.object({ name: z.string().nullish() }) }), request, operation, (body) => {
      const name = body[kind]?.name;
      return typeof name === "string" ? tagged(kind, params[0], { Name: name }) : noEffect;
    });

const action = (name: string): string => `POST /servers/{id}/action ${name}`;
const volumeAction = (name: string): string => `POST /volumes/{id}/action ${name}`;

/** Actions after which the server is, to the model, what it was before. */
const quietActions = [
  "reboot",
  "resize",
  "revertResize",
  "lock",
  "unlock",
  "rescue",
  "unrescue",
  "os-resetState",
  "os-migrateLive",
  "migrate",
  "evacuate",
  "trigger_crash_dump",
  "resetNetwork",
  "injectNetworkInfo",
];

export const computeTranslators: OpenstackTranslators = new Map<string, OpenstackTranslator>([
  ["POST /servers", createServer],
  ["DELETE /servers/{id}", ({ params }) => changed(deleted("server", params[0]))],
  ["PUT /servers/{id}", renamed("server")],
  ...metadata("server"),
  ["PUT /servers/{id}/tags", nothing],
  ["DELETE /servers/{id}/tags", nothing],
  ["PUT /servers/{id}/tags/{key}", nothing],
  ["DELETE /servers/{id}/tags/{key}", nothing],
  ...quietActions.map((name) => [action(name), nothing] as const),
  ...["os-stop", "pause", "suspend", "shelve", "shelveOffload"].map(
    (name) => [action(name), power("stopped")] as const,
  ),
  ...["os-start", "unpause", "resume", "unshelve"].map((name) => [action(name), power("running")] as const),
  [action("confirmResize"), confirmResize],
  [action("addSecurityGroup"), regrouped],
  [action("removeSecurityGroup"), regrouped],
  [action("forceDelete"), ({ params }) => changed(deleted("server", params[0]))],
  ["POST /servers/{id}/os-volume_attachments", attach],
  ["PUT /servers/{id}/os-volume_attachments/{id}", updateAttachment],
  [
    "DELETE /servers/{id}/os-volume_attachments/{id}",
    ({ params: [server, volume] }) =>
      changed(deleted("volumeAttachment", volumeAttachmentId(volume ?? "", server ?? ""))),
  ],
  [
    "POST /os-keypairs",
    ({ operation, response }) =>
      withBody(keypairResponseSchema, response, operation, ({ keypair }) =>
        changed(created(keyPairFromBody(keypair).resource)),
      ),
  ],
  ["DELETE /os-keypairs/{key}", ({ params }) => changed(deleted("keyPair", params[0]))],
]);

const createVolume: OpenstackTranslator = ({ operation, request, response }) =>
  withBody(volumeResponseSchema, response, operation, ({ volume }) => {
    const effect = changed(created(volumeFromBody(volume).resource));
    const asked = volumeCreateSchema.safeParse(request);
    const source = asked.success ? (asked.data.volume.imageRef ?? asked.data.volume.source_volid) : undefined;
    if (!source) return effect;
    const message = `its content came from ${source}, which the standby does not have`;
    return joinEffects([effect, fieldGap(operation, { kind: "volume", id: volume.id }, message)]);
  });

const extendSchema = z.object({ "os-extend": z.object({ new_size: z.coerce.number() }) });
const retypeSchema = z.object({ "os-retype": z.object({ new_type: z.string() }) });

export const volumeTranslators: OpenstackTranslators = new Map<string, OpenstackTranslator>([
  ["POST /volumes", createVolume],
  ["DELETE /volumes/{id}", ({ params }) => changed(deleted("volume", params[0]))],
  ["PUT /volumes/{id}", renamed("volume")],
  ...metadata("volume"),
  [
    volumeAction("os-extend"),
    ({ operation, params, request }) =>
      withBody(extendSchema, request, operation, (body) =>
        changed({
          type: "update",
          kind: "volume",
          id: id(params[0]),
          set: { sizeGiB: body["os-extend"].new_size },
        }),
      ),
  ],
  [
    volumeAction("os-retype"),
    ({ operation, params, request }) =>
      withBody(retypeSchema, request, operation, (body) =>
        changed({
          type: "update",
          kind: "volume",
          id: id(params[0]),
          set: { type: body["os-retype"].new_type },
        }),
      ),
  ],
  [volumeAction("os-force_delete"), ({ params }) => changed(deleted("volume", params[0]))],
  ...[
    "os-reserve",
    "os-unreserve",
    "os-begin_detaching",
    "os-roll_detaching",
    "os-reset_status",
    "os-set_bootable",
    "os-update_readonly_flag",
  ].map((name) => [volumeAction(name), nothing] as const),
]);
