/** Volumes of servers. */
import { z } from "zod";
import type { ServerRecord, VolumeRecord } from "#devcloud/core/records.ts";
import { attachVolume, detachVolume } from "#devcloud/core/volumes.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { versionAtLeast } from "./microversion.ts";
import { knownServer } from "./nova-server-body.ts";
import { requireState } from "./nova-state.ts";

const attachSchema = z.object({
  volumeAttachment: z.strictObject({
    volumeId: z.string(),
    device: z.string().max(255).nullish(),
    tag: z.string().optional(),
    delete_on_termination: z.boolean().optional(),
  }),
});

function attachmentBody(call: Call, server: ServerRecord, volume: VolumeRecord): object {
  const newer = (version: string, fields: object): object =>
    versionAtLeast(call.microversion, version) ? fields : {};
  return {
    ...(versionAtLeast(call.microversion, "2.89") ? { attachment_id: volume.id } : { id: volume.id }),
    volumeId: volume.id,
    serverId: server.id,
    device: volume.attachment?.device ?? null,
    ...newer("2.70", { tag: null }),
    ...newer("2.79", { delete_on_termination: volume.attachment?.deleteOnTermination ?? false }),
  };
}

/** The one asked for, where it is free; else the next name, as the hypervisor gives them. */
function deviceFor(call: Call, server: ServerRecord, asked: string | null | undefined): string {
  const taken = new Set([server.rootDevice]);
  for (const { attachment } of call.cloud.data.tables.volume.by("server", server.id)) {
    if (attachment !== null) taken.add(attachment.device);
  }
  if (asked && /^\/dev\/[a-z]{1,10}$/.test(asked) && !taken.has(asked)) return asked;
  for (const letter of "bcdefghijklmnopqrstuvwxyz") {
    if (!taken.has(`/dev/vd${letter}`)) return `/dev/vd${letter}`;
  }
  throw new ApiError(403, "Maximum number of volumes per server exceeded: 26");
}

function knownVolume(call: Call, id: string): VolumeRecord {
  const volume = call.cloud.data.tables.volume.get(id);
  if (volume !== undefined) return volume;
  throw new ApiError(404, `Volume ${quoted(id)} could not be found.`);
}

function postAttachment(call: Call): Answer {
  const { volumeAttachment: asked } = bodyOf(call, attachSchema);
  const server = knownServer(call.cloud, param(call));
  const volume = knownVolume(call, asked.volumeId);
  requireState(call.cloud, server, "attach_volume", ["ACTIVE", "SHUTOFF"]);
  if (volume.attachment !== null) {
    throw badRequest(
      `Invalid volume: volume ${volume.id} is already attached to instances: ${volume.attachment.serverId}`,
    );
  }
  const attached = attachVolume(call.cloud, {
    volumeId: volume.id,
    serverId: server.id,
    device: deviceFor(call, server, asked.device),
    deleteOnTermination: asked.delete_on_termination ?? false,
  });
  return json(200, { volumeAttachment: attachmentBody(call, server, attached) });
}

function attachedVolume(call: Call): { server: ServerRecord; volume: VolumeRecord } {
  const server = knownServer(call.cloud, param(call, 0));
  const volume = knownVolume(call, param(call, 1));
  if (volume.attachment?.serverId === server.id) return { server, volume };
  throw new ApiError(404, `Instance ${server.id} is not attached to volume ${volume.id}`);
}

function getAttachment(call: Call): Answer {
  const { server, volume } = attachedVolume(call);
  return json(200, { volumeAttachment: attachmentBody(call, server, volume) });
}

function deleteAttachment(call: Call): Answer {
  const { server, volume } = attachedVolume(call);
  requireState(call.cloud, server, "detach_volume", ["ACTIVE", "SHUTOFF"]);
  if (volume.attachment?.device === server.rootDevice) {
    throw new ApiError(403, "Cannot detach a root device volume");
  }
  detachVolume(call.cloud, volume.id, server.id);
  return empty(202);
}

function listAttachments(call: Call): Answer {
  const server = knownServer(call.cloud, param(call));
  const volumes = call.cloud.data.tables.volume.by("server", server.id);
  return json(200, { volumeAttachments: volumes.map((volume) => attachmentBody(call, server, volume)) });
}

const service = "compute" as const;
const path = "/servers/{id}/os-volume_attachments";
export const attachmentRoutes: readonly Route[] = [
  { service, method: "GET", path, handler: listAttachments },
  { service, method: "POST", path, handler: postAttachment },
  { service, method: "GET", path: `${path}/{volume}`, handler: getAttachment },
  { service, method: "DELETE", path: `${path}/{volume}`, handler: deleteAttachment },
];
