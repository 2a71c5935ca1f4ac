/** Servers' metadata and tags. */
import { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import { checkQuota } from "#devcloud/core/quotas.ts";
import type { ServerRecord, Tags } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { changedExtra, extraTexts } from "./dialect-extra.ts";
import { knownServer } from "./nova-server-body.ts";

export const metadataSchema = z.record(
  z.string().regex(/^[a-zA-Z0-9\-_:. ]{1,255}$/, "metadata keys take letters, digits and -_:. up to 255"),
  z.string().max(255, "is too long"),
);
const bodySchema = z.object({ metadata: metadataSchema });
const itemSchema = z.object({ meta: metadataSchema });

/** Built from entries, so that `__proto__` would be a name like others. */
export function checkedMetadata(cloud: Cloud, metadata: Tags): Tags {
  checkQuota(cloud.quotas, "tagsPerResource", 0, Object.keys(metadata).length);
  return Object.fromEntries(Object.entries(metadata));
}

function save(call: Call, server: ServerRecord, tags: Tags): void {
  call.cloud.data.tables.server.put({
    ...server,
    tags: checkedMetadata(call.cloud, tags),
    extra: changedExtra(server, call.cloud.clock.now()),
  });
}

function changeAll(merge: boolean): (call: Call) => Answer {
  return (call) => {
    const server = knownServer(call.cloud, param(call));
    const { metadata } = bodyOf(call, bodySchema);
    const tags = merge
      ? Object.fromEntries([...Object.entries(server.tags), ...Object.entries(metadata)])
      : metadata;
    save(call, server, tags);
    return json(200, { metadata: tags });
  };
}

function missingItem(): ApiError {
  return new ApiError(404, "Metadata item was not found");
}

function getItem(call: Call): Answer {
  const { tags } = knownServer(call.cloud, param(call));
  const key = param(call, 1);
  if (!Object.hasOwn(tags, key)) throw missingItem();
  return json(200, { meta: { [key]: tags[key] } });
}

function putItem(call: Call): Answer {
  const server = knownServer(call.cloud, param(call));
  const { meta } = bodyOf(call, itemSchema);
  const entries = Object.entries(meta);
  if (entries.length !== 1 || entries[0]?.[0] !== param(call, 1)) {
    throw badRequest("Request body and URI mismatch");
  }
  save(call, server, Object.fromEntries([...Object.entries(server.tags), ...entries]));
  return json(200, { meta });
}

function deleteItem(call: Call): Answer {
  const server = knownServer(call.cloud, param(call));
  const key = param(call, 1);
  if (!Object.hasOwn(server.tags, key)) throw missingItem();
  save(call, server, Object.fromEntries(Object.entries(server.tags).filter(([name]) => name !== key)));
  return empty(204);
}

const MAX_TAGS = 50;

/** Nova's own tags: at most 60 characters, without `/` and `,`. */
export function checkedNovaTags(tags: readonly string[]): string[] {
  const unique = [...new Set(tags)];
  const wrong = unique.find((tag) => !/^[^,/]{1,60}$/.test(tag));
  if (wrong !== undefined)
    throw badRequest(`Invalid input for field/attribute tags. Value: ${quoted(wrong)}.`);
  if (unique.length > MAX_TAGS)
    throw badRequest(`The number of tags exceeded the per-server limit ${MAX_TAGS}`);
  return unique;
}

function saveTags(call: Call, server: ServerRecord, tags: readonly string[]): void {
  const extra = changedExtra(server, call.cloud.clock.now(), { novaTags: checkedNovaTags(tags) });
  call.cloud.data.tables.server.put({ ...server, extra });
}

const tagsSchema = z.object({ tags: z.array(z.string()) });

function putTags(call: Call): Answer {
  const { tags } = bodyOf(call, tagsSchema);
  saveTags(call, knownServer(call.cloud, param(call)), tags);
  return json(200, { tags: [...new Set(tags)] });
}

function tagOfServer(call: Call): { server: ServerRecord; tags: readonly string[]; held: boolean } {
  const server = knownServer(call.cloud, param(call));
  const tags = extraTexts(server, "novaTags");
  return { server, tags, held: tags.includes(param(call, 1)) };
}

function requireTag(call: Call): ReturnType<typeof tagOfServer> {
  const found = tagOfServer(call);
  if (found.held) return found;
  throw new ApiError(404, `Server ${found.server.id} has no tag '${quoted(param(call, 1))}'`);
}

const service = "compute" as const;
export const metadataRoutes: readonly Route[] = [
  {
    service,
    method: "GET",
    path: "/servers/{id}/metadata",
    handler: (call) => json(200, { metadata: knownServer(call.cloud, param(call)).tags }),
  },
  { service, method: "POST", path: "/servers/{id}/metadata", handler: changeAll(true) },
  { service, method: "PUT", path: "/servers/{id}/metadata", handler: changeAll(false) },
  { service, method: "GET", path: "/servers/{id}/metadata/{key}", handler: getItem },
  { service, method: "PUT", path: "/servers/{id}/metadata/{key}", handler: putItem },
  { service, method: "DELETE", path: "/servers/{id}/metadata/{key}", handler: deleteItem },
  {
    service,
    method: "GET",
    path: "/servers/{id}/tags",
    handler: (call) => json(200, { tags: extraTexts(knownServer(call.cloud, param(call)), "novaTags") }),
  },
  { service, method: "PUT", path: "/servers/{id}/tags", handler: putTags },
  {
    service,
    method: "DELETE",
    path: "/servers/{id}/tags",
    handler: (call) => {
      saveTags(call, knownServer(call.cloud, param(call)), []);
      return empty(204);
    },
  },
  {
    service,
    method: "GET",
    path: "/servers/{id}/tags/{tag}",
    handler: (call) => {
      requireTag(call);
      return empty(204);
    },
  },
  {
    service,
    method: "PUT",
    path: "/servers/{id}/tags/{tag}",
    handler: (call) => {
      const { server, tags, held } = tagOfServer(call);
      if (!held) saveTags(call, server, [...tags, param(call, 1)]);
      return empty(held ? 204 : 201);
    },
  },
  {
    service,
    method: "DELETE",
    path: "/servers/{id}/tags/{tag}",
    handler: (call) => {
      const { server, tags } = requireTag(call);
      saveTags(
        call,
        server,
        tags.filter((tag) => tag !== param(call, 1)),
      );
      return empty(204);
    },
  },
];
