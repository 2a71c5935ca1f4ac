/** Cinder volumes and their attachments. Token, scope and tags are the volume's metadata, given with its create. */
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { volumeResponseSchema, volumeSchema } from "#wire/openstack/cinder.ts";
import type { CinderVolume } from "#wire/openstack/cinder.ts";
import {
  serverResponseSchema,
  volumeAttachmentResponseSchema,
  volumeAttachmentsResponseSchema,
} from "#wire/openstack/nova.ts";
import { attachmentFromBody, volumeFromBody } from "#wire/openstack/openstack-resources.ts";
import {
  metadataFromTags,
  metadataKey,
  metadataScopeKey,
  metadataTokenKey,
  scopeDigestOf,
} from "#wire/openstack/openstack-tags.ts";
import type { Calls, QueryItems } from "./calls.ts";
import type { Found, KindDriver } from "./kind-driver.ts";
import { noTags, onlyUpdates } from "./kind-driver.ts";
import { byId } from "./network-kind.ts";

/** In-use volumes grow since 3.42. */
const growInUse = { "openstack-api-version": "volume 3.42" };

function volumes(query: QueryItems, calls: Calls): AsyncGenerator<CinderVolume[], void, void> {
  return calls.pages("volume", "/volumes/detail", "volumes", volumeSchema, { ...byId, query });
}

/** Cinder reads its `metadata` filter as a Python literal; tokens and scopes need no escaping beyond JSON's. */
function metadataFilter(key: string, value: string): QueryItems {
  return { metadata: JSON.stringify({ [key]: value }) };
}

async function findVolume(id: string, calls: Calls): Promise<CinderVolume | undefined> {
  return (await calls.find("volume", `/volumes/${id}`, volumeResponseSchema))?.volume;
}

function foundVolume(volume: CinderVolume): Found<"volume"> {
  const scope = volume.metadata[metadataScopeKey];
  return {
    mapped: volumeFromBody(volume),
    scopeDigest: scope === undefined ? undefined : scopeDigestOf(scope),
  };
}

async function byToken(token: string, calls: Calls): Promise<CinderVolume | undefined> {
  for await (const page of volumes(metadataFilter(metadataTokenKey, token), calls)) {
    // Looked at again, since a cloud may ignore a filter that it does not know.
    const found = page.find((volume) => volume.metadata[metadataTokenKey] === token);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Waits while Cinder works on the volume; throws when it fails. */
async function settledVolume(id: string, calls: Calls): Promise<CinderVolume> {
  return calls.until(async () => {
    const volume = await findVolume(id, calls);
    if (volume === undefined) throw new OperationalError("cloud.not_found", `there is no volume ${id}`);
    if (volume.status.startsWith("error")) {
      throw new OperationalError("cloud.refused", `volume ${id} failed: it is in the state ${volume.status}`);
    }
    return volume.status === "available" || volume.status === "in-use" ? volume : undefined;
  });
}

async function grow(id: string, sizeGiB: number, calls: Calls): Promise<void> {
  const volume = await settledVolume(id, calls);
  if (volume.size === sizeGiB) return;
  if (volume.size > sizeGiB) {
    throw new OperationalError("cloud.unsupported", `volume ${id} cannot shrink from ${volume.size} GiB`);
  }
  const body = { "os-extend": { new_size: sizeGiB } };
  const headers = volume.status === "in-use" ? growInUse : {};
  await calls.act("POST", "volume", `/volumes/${id}/action`, body, headers);
  await calls.until(async () => {
    const { size } = await settledVolume(id, calls);
    return size === sizeGiB ? true : undefined;
  });
}

async function retype(id: string, type: string, calls: Calls): Promise<void> {
  const volume = await settledVolume(id, calls);
  if (volume.volume_type === type) return;
  const body = { "os-retype": { new_type: type, migration_policy: "on-demand" } };
  await calls.act("POST", "volume", `/volumes/${id}/action`, body);
  await calls.until(async () => ((await settledVolume(id, calls)).volume_type === type ? true : undefined));
}

export function volumeKind(): KindDriver<"volume"> {
  return {
    async create({ spec, tags, token, scope, mayExist }, calls) {
      const known = mayExist ? await byToken(token, calls) : undefined;
      if (known !== undefined) return volumeFromBody(known);
      const metadata = {
        ...metadataFromTags(tags),
        [metadataTokenKey]: token,
        [metadataScopeKey]: scope,
      };
      const volume = {
        size: spec.sizeGiB,
        name: tags["Name"] ?? "",
        metadata,
        ...(spec.type === undefined ? {} : { volume_type: spec.type }),
        ...(spec.zone === undefined ? {} : { availability_zone: spec.zone }),
        ...(spec.snapshotId === undefined ? {} : { snapshot_id: spec.snapshotId }),
      };
      const answer = await calls.change("POST", "volume", "/volumes", { volume }, volumeResponseSchema);
      return volumeFromBody(answer.volume);
    },

    async get(id, calls) {
      const volume = await findVolume(id, calls);
      return volume === undefined ? undefined : volumeFromBody(volume);
    },

    async *list(filter, calls) {
      const query = filter.scope === undefined ? {} : metadataFilter(metadataScopeKey, filter.scope);
      for await (const page of volumes(query, calls)) yield page.map(foundVolume);
    },

    async update(id, set, calls) {
      onlyUpdates("volume", set, ["sizeGiB", "type"]);
      if (set.sizeGiB !== undefined) await grow(id, set.sizeGiB, calls);
      if (set.type !== undefined) await retype(id, set.type, calls);
    },

    async setTags(id, set, remove, calls) {
      const path = `/volumes/${id}`;
      const name = set["Name"] ?? (remove.includes("Name") ? "" : undefined);
      if (name !== undefined) await calls.act("PUT", "volume", path, { volume: { name } });
      const metadata = metadataFromTags(set);
      if (Object.keys(metadata).length > 0) {
        await calls.act("POST", "volume", `${path}/metadata`, { metadata });
      }
      for (const key of remove.filter((one) => one !== "Name")) {
        await calls.remove("volume", `${path}/metadata/${encodeURIComponent(metadataKey(key))}`);
      }
    },

    async delete(id, calls) {
      const volume = await findVolume(id, calls);
      if (volume === undefined) return;
      if (volume.status === "in-use") {
        const users = volume.attachments.map(({ server_id: server }) => server ?? "?").join(", ");
        throw new OperationalError(
          "cloud.conflict",
          `volume ${id} is attached to ${users}: detach it first`,
          {
            remoteCode: "VolumeInUse",
          },
        );
      }
      if (volume.status !== "deleting" && !(await calls.remove("volume", `/volumes/${id}`))) return;
      await calls.until(async () => {
        const left = await findVolume(id, calls);
        if (left?.status === "error_deleting") {
          throw new OperationalError("cloud.failing", `the cloud could not delete volume ${id}`);
        }
        return left === undefined ? true : undefined;
      });
    },
  };
}

function splitAttachment(id: string): { readonly volumeId: string; readonly serverId: string } {
  const at = id.indexOf("@");
  return { volumeId: id.slice(0, Math.max(0, at)), serverId: id.slice(at + 1) };
}

/** Attaching before the server is built is refused by Nova in several ways; waiting is one. */
async function builtServer(id: string, calls: Calls): Promise<void> {
  await calls.until(async () => {
    const answer = await calls.find("compute", `/servers/${id}`, serverResponseSchema);
    if (answer === undefined) throw new OperationalError("cloud.not_found", `there is no server ${id}`);
    if (answer.server.status === "ERROR") {
      const why = answer.server.fault?.message ?? "no fault told";
      throw new OperationalError("cloud.refused", `server ${id} failed (${why}) and takes no volume`);
    }
    return answer.server.status === "BUILD" ? undefined : true;
  });
}

export function volumeAttachmentKind(): KindDriver<"volumeAttachment"> {
  const path = (serverId: string): string => `/servers/${serverId}/os-volume_attachments`;
  const get: KindDriver<"volumeAttachment">["get"] = async (id, calls) => {
    const { volumeId, serverId } = splitAttachment(id);
    if (volumeId === "") return undefined;
    const one = `${path(serverId)}/${volumeId}`;
    const answer = await calls.find("compute", one, volumeAttachmentResponseSchema);
    return answer === undefined ? undefined : attachmentFromBody(answer.volumeAttachment);
  };
  return {
    async create({ spec, mayExist }, calls) {
      const id = `${spec.volumeId}@${spec.serverId}` as ResourceId;
      const known = mayExist ? await get(id, calls) : undefined;
      if (known !== undefined) return known;
      await Promise.all([settledVolume(spec.volumeId, calls), builtServer(spec.serverId, calls)]);
      const volumeAttachment = {
        volumeId: spec.volumeId,
        ...(spec.device === "" ? {} : { device: spec.device }),
        delete_on_termination: spec.deleteOnTermination,
      };
      try {
        const answer = await calls.change(
          "POST",
          "compute",
          path(spec.serverId),
          { volumeAttachment },
          volumeAttachmentResponseSchema,
        );
        return attachmentFromBody({
          ...answer.volumeAttachment,
          delete_on_termination: spec.deleteOnTermination,
        });
      } catch (error) {
        if (!isOperational(error, "cloud.conflict")) throw error;
        const found = await get(id, calls);
        if (found === undefined) throw error;
        return found;
      }
    },

    get,

    /** An attachment is of the scope that its volume is of. */
    async *list(filter, calls) {
      const query = filter.scope === undefined ? {} : metadataFilter(metadataScopeKey, filter.scope);
      for await (const page of volumes(query, calls)) {
        const scopes = new Map(page.map((volume) => [volume.id, foundVolume(volume).scopeDigest]));
        const servers = new Set(page.flatMap(({ attachments }) => attachments.map((one) => one.server_id)));
        const found: Found<"volumeAttachment">[] = [];
        for (const server of servers) {
          if (!server) continue;
          const answer = await calls.find("compute", path(server), volumeAttachmentsResponseSchema);
          for (const attachment of answer?.volumeAttachments ?? []) {
            // Those of other pages come with their own volume's page.
            if (!scopes.has(attachment.volumeId)) continue;
            found.push({
              mapped: attachmentFromBody(attachment),
              scopeDigest: scopes.get(attachment.volumeId),
            });
          }
        }
        yield found;
      }
    },

    async update(_id, set) {
      onlyUpdates("volumeAttachment", set, []);
    },

    async setTags() {
      throw noTags("volumeAttachment");
    },

    async delete(id, calls) {
      const { volumeId, serverId } = splitAttachment(id);
      if (volumeId === "" || (await get(id, calls)) === undefined) return;
      await calls.remove("compute", `${path(serverId)}/${volumeId}`);
      await calls.until(async () => {
        if ((await get(id, calls)) !== undefined) return undefined;
        const volume = await findVolume(volumeId, calls);
        return volume === undefined || volume.status !== "detaching" ? true : undefined;
      });
    },
  };
}
