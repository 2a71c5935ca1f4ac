/** Volumes and their types as Cinder shows them. */
import type { VolumeRecord } from "#devcloud/core/records.ts";
import { type Call, projectOf } from "./api-call.ts";
import { ApiError, quoted } from "./api-error.ts";
import { extraNumber, extraText } from "./dialect-extra.ts";
import { stableUuid } from "./openstack-ids.ts";

export const defaultVolumeType = "__DEFAULT__";

export const volumeTypes = [
  [defaultVolumeType, "Default Volume Type"],
  ["ssd", "Fast"],
  ["hdd", "Large"],
].map(([name = "", description = ""]) => ({
  id: stableUuid("volume type", name),
  name,
  description,
  is_public: true,
  "os-volume-type-access:is_public": true,
  qos_specs_id: null,
  extra_specs: {},
}));

/** By name or id; the name. */
export function checkedVolumeType(asked: string): string {
  const found = volumeTypes.find(({ id, name }) => id === asked || name === asked);
  if (found !== undefined) return found.name;
  throw new ApiError(404, `Volume type with name ${quoted(asked)} could not be found.`);
}

function isoMicros(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, -1)}000`;
}

export function volumeLinks(call: Call, id: string): object[] {
  const path = `${projectOf(call)}/volumes/${id}`;
  return [
    { rel: "self", href: `${call.base}/volume/v3/${path}` },
    { rel: "bookmark", href: `${call.base}/volume/${path}` },
  ];
}

export function volumeStatus(volume: VolumeRecord): string {
  return volume.attachment === null ? "available" : "in-use";
}

export function volumeBody(call: Call, volume: VolumeRecord, status = volumeStatus(volume)): object {
  const { attachment } = volume;
  return {
    id: volume.id,
    name: volume.name,
    description: extraText(volume, "description") || null,
    status,
    size: volume.sizeGiB,
    volume_type: volume.type,
    availability_zone: volume.zone,
    created_at: isoMicros(volume.createdAt),
    updated_at: isoMicros(extraNumber(volume, "updatedAt") ?? volume.createdAt),
    attachments:
      attachment === null
        ? []
        : [
            {
              id: volume.id,
              attachment_id: volume.id,
              volume_id: volume.id,
              server_id: attachment.serverId,
              host_name: null,
              device: attachment.device,
              attached_at: isoMicros(attachment.attachedAt),
            },
          ],
    bootable: String(extraText(volume, "imageId") !== ""),
    encrypted: volume.encrypted,
    metadata: volume.tags,
    snapshot_id: volume.snapshotId,
    source_volid: null,
    multiattach: false,
    replication_status: null,
    consistencygroup_id: null,
    user_id: call.openstack.identity.user.id,
    "os-vol-tenant-attr:tenant_id": projectOf(call),
    links: volumeLinks(call, volume.id),
  };
}
