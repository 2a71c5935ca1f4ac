/** Volumes: create, list, show, rename, extend, delete, and their metadata. */
import { z } from "zod";
import { checkQuota } from "#devcloud/core/quotas.ts";
import type { Tags, VolumeRecord } from "#devcloud/core/records.ts";
import { createVolume, deleteVolume, heldVolumeGiB } from "#devcloud/core/volumes.ts";
import { parseJson } from "#wire/openstack/openstack-json.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param, parsedBody, projectOf } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import {
  checkedVolumeType,
  defaultVolumeType,
  volumeBody,
  volumeLinks,
  volumeStatus,
} from "./cinder-volume.ts";
import { changedExtra, extraText } from "./dialect-extra.ts";
import { markerPage, nextLinks } from "./marker-page.ts";
import { versionAtLeast } from "./microversion.ts";
import { defaultZone } from "./openstack-catalog.ts";

const MAX_SIZE_GIB = 65_536;

const metadataSchema = z.record(z.string().min(1).max(255), z.string().max(255));

const createSchema = z.object({
  // Cinder lets clients send more than it reads.
  volume: z.object({
    backup_id: z.null().optional(),
    size: z.union([z.number(), z.string().regex(/^[0-9]{1,6}$/)]).nullish(),
    name: z.string().max(255).nullish(),
    display_name: z.string().max(255).nullish(),
    description: z.string().max(255).nullish(),
    volume_type: z.string().nullish(),
    availability_zone: z.string().nullish(),
    snapshot_id: z.string().nullish(),
    source_volid: z.string().nullish(),
    imageRef: z.string().nullish(),
    metadata: metadataSchema.nullish(),
    multiattach: z.literal(false).optional(),
    consistencygroup_id: z.null().optional(),
    project_id: z.string().nullish(),
    user_id: z.string().nullish(),
    status: z.string().nullish(),
    attach_status: z.string().nullish(),
  }),
});

function knownVolume(call: Call): VolumeRecord {
  const volume = call.cloud.data.tables.volume.get(param(call));
  if (volume !== undefined) return volume;
  throw new ApiError(404, `Volume ${quoted(param(call))} could not be found.`);
}

function checkedSize(size: number): number {
  if (Number.isInteger(size) && size >= 1 && size <= MAX_SIZE_GIB) return size;
  throw badRequest(
    `Invalid input for field/attribute size. Value: ${size}. ${size} is less than the minimum of 1`,
  );
}

function postVolume(call: Call): Answer {
  const { volume: asked } = bodyOf(call, createSchema);
  const { cloud } = call;
  if (asked.snapshot_id) throw new ApiError(404, `Snapshot ${quoted(asked.snapshot_id)} could not be found.`);
  const source = asked.source_volid ? cloud.data.tables.volume.get(asked.source_volid) : undefined;
  if (asked.source_volid && source === undefined) {
    throw new ApiError(404, `Volume ${quoted(asked.source_volid)} could not be found.`);
  }
  const image = asked.imageRef ? cloud.catalog.images.find(({ id }) => id === asked.imageRef) : undefined;
  if (asked.imageRef && image === undefined) {
    throw badRequest(`Invalid image identifier or unable to access requested image.`);
  }
  const zone = asked.availability_zone ?? defaultZone;
  if (!cloud.catalog.zones.includes(zone)) {
    throw badRequest(`Availability zone '${quoted(zone)}' is invalid.`);
  }
  const size = checkedSize(Number(asked.size ?? source?.sizeGiB ?? 0));
  if (source !== undefined && size < source.sizeGiB) {
    throw badRequest(
      `Invalid input received: Volume size '${size}'GB cannot be smaller than original volume size ${source.sizeGiB}GB. They must be >= original volume size.`,
    );
  }
  const imageId = image?.id ?? (source === undefined ? "" : extraText(source, "imageId"));
  const volume = createVolume(cloud, {
    name: asked.name ?? asked.display_name ?? "",
    sizeGiB: size,
    type: checkedVolumeType(asked.volume_type || defaultVolumeType),
    zone,
    tags: Object.fromEntries(Object.entries(asked.metadata ?? {})),
    extra: { description: asked.description ?? "", ...(imageId === "" ? {} : { imageId }) },
  });
  return json(202, { volume: volumeBody(call, volume, "creating") });
}

/** Cinder reads this filter as a Python literal; one of texts without quotes in them is JSON but for its quotes. */
function metadataFilter(text: string): Tags {
  const asJson = parseJson(text);
  const parsed = asJson.ok ? asJson : parseJson(text.replaceAll("'", '"'));
  const checked = parsed.ok ? metadataSchema.safeParse(parsed.value) : undefined;
  if (checked?.success === true) return checked.data;
  throw badRequest("Invalid input received: the metadata filter is not a dictionary of texts");
}

type Test = (volume: VolumeRecord) => boolean;

function testOf(name: string, value: string): Test | undefined {
  switch (name) {
    case "name":
      return (volume) => volume.name === value;
    case "name~":
      return (volume) => volume.name.includes(value);
    case "status":
      return (volume) => volumeStatus(volume) === value;
    case "id":
      return (volume) => volume.id === value;
    case "volume_type":
      return (volume) => volume.type === value;
    case "availability_zone":
      return (volume) => volume.zone === value;
    case "bootable":
      return (volume) => String(extraText(volume, "imageId") !== "") === value.toLowerCase();
    case "metadata": {
      const wanted = Object.entries(metadataFilter(value));
      return ({ tags }) => wanted.every(([key, text]) => Object.hasOwn(tags, key) && tags[key] === text);
    }
    default:
      return undefined;
  }
}

function listVolumes(detail: boolean): (call: Call) => Answer {
  return (call) => {
    const tests = [...call.query].flatMap(([name, value]) => testOf(name, value) ?? []);
    // Newest first, as Cinder.
    const all = [...call.cloud.data.tables.volume.values()].reverse();
    const { items, next } = markerPage(call, all, (volume) => tests.every((test) => test(volume)));
    const url = `${call.base}/volume/v3/${projectOf(call)}/volumes${detail ? "/detail" : ""}`;
    return json(200, {
      volumes: items.map((volume) =>
        detail
          ? volumeBody(call, volume)
          : { id: volume.id, name: volume.name, links: volumeLinks(call, volume.id) },
      ),
      ...nextLinks("volumes", url, next),
    });
  };
}

const updateSchema = z.object({
  volume: z.strictObject({
    name: z.string().max(255).nullish(),
    display_name: z.string().max(255).nullish(),
    description: z.string().max(255).nullish(),
    display_description: z.string().max(255).nullish(),
    metadata: metadataSchema.nullish(),
  }),
});

function save(call: Call, volume: VolumeRecord, change: Partial<VolumeRecord>): VolumeRecord {
  const tags = change.tags ?? volume.tags;
  checkQuota(call.cloud.quotas, "tagsPerResource", 0, Object.keys(tags).length);
  return call.cloud.data.tables.volume.put({
    ...volume,
    extra: changedExtra(volume, call.cloud.clock.now()),
    ...change,
  });
}

function putVolume(call: Call): Answer {
  const { volume: set } = bodyOf(call, updateSchema);
  const volume = knownVolume(call);
  const description = set.description ?? set.display_description;
  const changed = save(call, volume, {
    name: set.name ?? set.display_name ?? volume.name,
    tags: set.metadata ? Object.fromEntries(Object.entries(set.metadata)) : volume.tags,
    extra: changedExtra(volume, call.cloud.clock.now(), {
      description: description ?? extraText(volume, "description"),
    }),
  });
  return json(200, { volume: volumeBody(call, changed) });
}

function removeVolume(call: Call): Answer {
  deleteVolume(call.cloud, knownVolume(call).id);
  return empty(202);
}

const extendSchema = z.object({
  "os-extend": z.object({ new_size: z.union([z.number(), z.string().regex(/^[0-9]{1,6}$/)]) }),
});

function extend(call: Call, volume: VolumeRecord): Answer {
  const size = checkedSize(Number(bodyOf(call, extendSchema)["os-extend"].new_size));
  if (volume.attachment !== null && !versionAtLeast(call.microversion, "3.42")) {
    throw badRequest(
      `Invalid volume: Volume ${volume.id} status must be available to extend, currently in-use.`,
    );
  }
  if (size <= volume.sizeGiB) {
    throw badRequest(
      `Invalid input received: New size for extend must be greater than current size. (current: ${volume.sizeGiB}, extended: ${size}).`,
    );
  }
  checkQuota(call.cloud.quotas, "volumeGiB", heldVolumeGiB(call.cloud), size - volume.sizeGiB);
  save(call, volume, { sizeGiB: size });
  return empty(202);
}

const retypeSchema = z.object({
  "os-retype": z.object({
    new_type: z.string(),
    migration_policy: z.enum(["never", "on-demand"]).optional(),
  }),
});

function retype(call: Call, volume: VolumeRecord): Answer {
  const type = checkedVolumeType(bodyOf(call, retypeSchema)["os-retype"].new_type);
  if (type === volume.type) {
    throw badRequest(`Invalid input received: New volume_type same as original: ${type}.`);
  }
  save(call, volume, { type });
  return empty(202);
}

const actions: ReadonlyMap<string, (call: Call, volume: VolumeRecord) => Answer> = new Map([
  ["os-extend", extend],
  ["os-retype", retype],
]);

export function volumeActionName(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null) return undefined;
  return Object.keys(body).find((key) => actions.has(key));
}

function postAction(call: Call): Answer {
  const name = volumeActionName(parsedBody(call));
  const action = name === undefined ? undefined : actions.get(name);
  const volume = knownVolume(call);
  if (action === undefined) throw badRequest("There is no such action");
  return action(call, volume);
}

const metadataBody = z.object({ metadata: metadataSchema });

function changeMetadata(merge: boolean): (call: Call) => Answer {
  return (call) => {
    const volume = knownVolume(call);
    const set = Object.entries(bodyOf(call, metadataBody).metadata);
    const tags = Object.fromEntries(merge ? [...Object.entries(volume.tags), ...set] : set);
    save(call, volume, { tags });
    return json(200, { metadata: tags });
  };
}

function deleteMetadata(call: Call): Answer {
  const volume = knownVolume(call);
  const key = param(call, 1);
  if (!Object.hasOwn(volume.tags, key)) {
    throw new ApiError(404, `Volume ${volume.id} has no metadata with key ${quoted(key)}.`);
  }
  save(call, volume, {
    tags: Object.fromEntries(Object.entries(volume.tags).filter(([name]) => name !== key)),
  });
  return empty(200);
}

const service = "volume" as const;
export const volumeRoutes: readonly Route[] = [
  { service, method: "GET", path: "/volumes/detail", handler: listVolumes(true) },
  { service, method: "GET", path: "/volumes", handler: listVolumes(false) },
  { service, method: "POST", path: "/volumes", handler: postVolume },
  {
    service,
    method: "GET",
    path: "/volumes/{id}",
    handler: (call) => json(200, { volume: volumeBody(call, knownVolume(call)) }),
  },
  { service, method: "PUT", path: "/volumes/{id}", handler: putVolume },
  { service, method: "DELETE", path: "/volumes/{id}", handler: removeVolume },
  { service, method: "POST", path: "/volumes/{id}/action", handler: postAction },
  {
    service,
    method: "GET",
    path: "/volumes/{id}/metadata",
    handler: (call) => json(200, { metadata: knownVolume(call).tags }),
  },
  { service, method: "POST", path: "/volumes/{id}/metadata", handler: changeMetadata(true) },
  { service, method: "PUT", path: "/volumes/{id}/metadata", handler: changeMetadata(false) },
  { service, method: "DELETE", path: "/volumes/{id}/metadata/{key}", handler: deleteMetadata },
];
