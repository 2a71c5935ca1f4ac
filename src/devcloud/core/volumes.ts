import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { VolumeRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

export interface VolumeInput extends Naming {
  readonly sizeGiB: number;
  readonly type: string;
  readonly zone?: string | null;
  readonly iops?: number | null;
  readonly throughput?: number | null;
  readonly encrypted?: boolean;
  readonly snapshotId?: string | null;
}

export function heldVolumeGiB(cloud: Cloud): number {
  let sum = 0;
  for (const volume of cloud.data.tables.volume.values()) sum += volume.sizeGiB;
  return sum;
}

export function createVolume(cloud: Cloud, input: VolumeInput): VolumeRecord {
  const { volume } = cloud.data.tables;
  const zone = input.zone ?? null;
  if (zone !== null && !cloud.catalog.zones.includes(zone)) {
    refuse({ code: "not_found", kind: "zone", ids: [zone] });
  }
  checkQuota(cloud.quotas, "volumes", volume.size);
  checkQuota(cloud.quotas, "volumeGiB", heldVolumeGiB(cloud), input.sizeGiB);
  return volume.put({
    ...newRecord(cloud, "volume", input),
    sizeGiB: input.sizeGiB,
    type: input.type,
    zone,
    iops: input.iops ?? null,
    throughput: input.throughput ?? null,
    encrypted: input.encrypted ?? false,
    snapshotId: input.snapshotId ?? null,
    attachment: null,
  });
}

export interface AttachInput {
  readonly volumeId: string;
  readonly serverId: string;
  readonly device: string;
  readonly deleteOnTermination?: boolean;
}

export function attachVolume(cloud: Cloud, input: AttachInput): VolumeRecord {
  const { volume: volumes } = cloud.data.tables;
  const volume = find(cloud, "volume", input.volumeId);
  const server = find(cloud, "server", input.serverId);
  if (volume.attachment !== null) {
    refuse({
      code: "in_use",
      kind: "volume",
      id: volume.id,
      by: { kind: "server", id: volume.attachment.serverId },
    });
  }
  if (server.state !== "running" && server.state !== "stopped" && server.state !== "pending") {
    refuse({ code: "wrong_state", kind: "server", id: server.id, state: server.state });
  }
  if (volume.zone !== null && volume.zone !== server.zone) {
    refuse({ code: "crosses", boundary: "zone", ids: [volume.id, server.id] });
  }
  if (volumes.by("server", server.id).some((each) => each.attachment?.device === input.device)) {
    refuse({
      code: "invalid",
      field: "device",
      value: input.device,
      message: `Invalid value '${input.device}' for unixDevice. Attachment point ${input.device} is already in use`,
    });
  }
  return volumes.put({
    ...volume,
    attachment: {
      serverId: server.id,
      device: input.device,
      deleteOnTermination: input.deleteOnTermination ?? false,
      attachedAt: cloud.clock.now(),
    },
  });
}

/** The volume as it was, still with its attachment. A running server keeps its root volume. */
export function detachVolume(cloud: Cloud, volumeId: string, serverId?: string): VolumeRecord {
  const volume = find(cloud, "volume", volumeId);
  if (serverId !== undefined) find(cloud, "server", serverId);
  const held = volume.attachment;
  if (held === null) refuse({ code: "wrong_state", kind: "volume", id: volumeId, state: "available" });
  if (serverId !== undefined && held.serverId !== serverId) {
    refuse({ code: "not_associated", kind: "volume", id: volumeId, from: serverId });
  }
  const server = cloud.data.tables.server.get(held.serverId);
  if (server !== undefined && held.device === server.rootDevice && server.state !== "stopped") {
    refuse({
      code: "not_permitted",
      message: `Unable to detach root volume '${volumeId}' from instance '${server.id}'`,
    });
  }
  cloud.data.tables.volume.put({ ...volume, attachment: null });
  return volume;
}

export function deleteVolume(cloud: Cloud, id: string): void {
  const volume = find(cloud, "volume", id);
  if (volume.attachment !== null) {
    refuse({ code: "in_use", kind: "volume", id, by: { kind: "server", id: volume.attachment.serverId } });
  }
  cloud.data.tables.volume.delete(id);
}
