/** Glance v2: the public images. */
import type { ImageInfo } from "#devcloud/core/records.ts";
import { type Answer, json } from "./answer.ts";
import { type Call, type Route, isoSeconds, param } from "./api-call.ts";
import { ApiError, quoted } from "./api-error.ts";
import { markerPage } from "./marker-page.ts";
import { keystoneId } from "./openstack-ids.ts";

const GIB = 1024 ** 3;

function imageBody(image: ImageInfo): Readonly<Record<string, unknown>> {
  const at = isoSeconds(image.createdAt);
  return {
    id: image.id,
    name: image.name,
    status: "active",
    visibility: "public",
    protected: true,
    os_hidden: false,
    architecture: image.architecture,
    description: image.description,
    disk_format: "raw",
    container_format: "bare",
    size: GIB,
    virtual_size: image.rootSizeGiB * GIB,
    min_disk: 0,
    min_ram: 0,
    checksum: keystoneId("checksum", image.id),
    owner: keystoneId("project", "provider"),
    created_at: at,
    updated_at: at,
    tags: [],
    self: `/v2/images/${image.id}`,
    file: `/v2/images/${image.id}/file`,
    schema: "/v2/schemas/image",
  };
}

const paging = new Set(["limit", "marker", "sort", "sort_key", "sort_dir", "member_status"]);

function listImages(call: Call): Answer {
  const filters = [...call.query].filter(([name]) => !paging.has(name));
  const keep = (image: ImageInfo): boolean => {
    const body = imageBody(image);
    return filters.every(([name, value]) => {
      if (name === "visibility" && value === "all") return true;
      const wanted = value.startsWith("in:") ? value.slice(3).split(",") : [value];
      return Object.hasOwn(body, name) && wanted.includes(String(body[name]));
    });
  };
  const { items, next } = markerPage(call, call.cloud.catalog.images, keep);
  return json(200, {
    images: items.map(imageBody),
    first: "/v2/images",
    schema: "/v2/schemas/images",
    ...(next === undefined ? {} : { next: `/v2/images?${next}` }),
  });
}

function getImage(call: Call): Answer {
  const image = call.cloud.catalog.images.find(({ id }) => id === param(call));
  if (image === undefined) {
    throw new ApiError(404, `No image found with ID ${quoted(param(call))}`);
  }
  return json(200, imageBody(image));
}

function versions(call: Call): Answer {
  const href = `${call.base}/image/v2/`;
  return json(300, {
    versions: [
      { id: "v2.15", status: "CURRENT", links: [{ rel: "self", href }] },
      { id: "v2.9", status: "SUPPORTED", links: [{ rel: "self", href }] },
      { id: "v2.0", status: "SUPPORTED", links: [{ rel: "self", href }] },
    ],
  });
}

const service = "image" as const;
export const glanceRoutes: readonly Route[] = [
  { service, method: "GET", path: "/versions", access: "open", handler: versions },
  { service, method: "GET", path: "/images", handler: listImages },
  { service, method: "GET", path: "/images/{id}", handler: getImage },
];
