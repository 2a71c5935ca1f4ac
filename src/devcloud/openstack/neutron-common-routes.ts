/** Tags of every kind, quotas, extensions and versions of Neutron. */
import { z } from "zod";
import type { Quotas } from "#devcloud/core/quotas.ts";
import type { BaseRecord, TableName } from "#devcloud/core/records.ts";
import type { Table } from "#devcloud/core/table.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param, projectOf } from "./api-call.ts";
import { ApiError, badRequest, noSuchRoute, quoted } from "./api-error.ts";
import { changedExtra, extraTexts } from "./dialect-extra.ts";

const taggable: Readonly<Record<string, TableName>> = {
  networks: "network",
  subnets: "subnet",
  ports: "port",
  routers: "gateway",
  "security-groups": "group",
  floatingips: "address",
};

/** Zed's limit; it was 60 before. */
const MAX_TAG_LENGTH = 255;

interface Tagged {
  readonly record: BaseRecord;
  readonly tags: readonly string[];
  save(tags: readonly string[]): void;
}

function tagged(call: Call): Tagged {
  const collection = param(call, 0);
  const kind = Object.hasOwn(taggable, collection) ? taggable[collection] : undefined;
  if (kind === undefined) throw noSuchRoute();
  const table = call.cloud.data.tables[kind] as unknown as Table<BaseRecord>;
  const record = table.get(param(call, 1));
  if (record === undefined) {
    throw new ApiError(
      404,
      `Resource ${quoted(collection)} ${quoted(param(call, 1))} could not be found.`,
      "TagResourceNotFound",
    );
  }
  return {
    record,
    tags: extraTexts(record, "tags"),
    save: (tags) => {
      table.put({
        ...record,
        extra: changedExtra(record, call.cloud.clock.now(), { tags: [...new Set(tags)] }),
      });
    },
  };
}

function checkedTags(call: Call, tags: readonly string[]): readonly string[] {
  const wrong = tags.find((tag) => tag === "" || tag.length > MAX_TAG_LENGTH);
  if (wrong !== undefined) {
    throw badRequest(
      `Invalid input for operation: '${quoted(wrong)}' exceeds maximum length of ${MAX_TAG_LENGTH}.`,
      "InvalidInput",
    );
  }
  if (tags.length > call.cloud.quotas.tagsPerResource) {
    throw badRequest(
      `Invalid input for operation: more than ${call.cloud.quotas.tagsPerResource} tags.`,
      "InvalidInput",
    );
  }
  return tags;
}

const tagsBody = z.object({ tags: z.array(z.string()) });

function putTags(call: Call): Answer {
  const held = tagged(call);
  const tags = checkedTags(call, bodyOf(call, tagsBody).tags);
  held.save(tags);
  return json(200, { tags: [...new Set(tags)] });
}

function putTag(call: Call): Answer {
  const held = tagged(call);
  held.save(checkedTags(call, [...held.tags, param(call, 2)]));
  return { status: 201, body: "", headers: {} };
}

function tagMissing(call: Call): ApiError {
  return new ApiError(404, `Tag ${quoted(param(call, 2))} could not be found.`, "TagNotFound");
}

function getTag(call: Call): Answer {
  if (!tagged(call).tags.includes(param(call, 2))) throw tagMissing(call);
  return empty(204);
}

function deleteTag(call: Call): Answer {
  const held = tagged(call);
  if (!held.tags.includes(param(call, 2))) throw tagMissing(call);
  held.save(held.tags.filter((tag) => tag !== param(call, 2)));
  return empty(204);
}

const quotaNames: readonly (readonly [name: string, quota: keyof Quotas, table: TableName])[] = [
  ["network", "networks", "network"],
  ["subnet", "subnetsPerNetwork", "subnet"],
  ["router", "gateways", "gateway"],
  ["security_group", "groups", "group"],
  ["security_group_rule", "rulesPerGroup", "rule"],
  ["floatingip", "addresses", "address"],
];

function checkProject(call: Call): void {
  if (param(call) !== projectOf(call))
    throw new ApiError(403, "Non-admin is not authorized to access quotas", "Forbidden");
}

function getQuota(call: Call): Answer {
  checkProject(call);
  const { quotas } = call.cloud;
  const limits = quotaNames.map(([name, quota]) => [name, quotas[quota]] as const);
  return json(200, { quota: { ...Object.fromEntries(limits), port: -1, subnetpool: -1, rbac_policy: 10 } });
}

function getQuotaDetails(call: Call): Answer {
  checkProject(call);
  const { quotas, data } = call.cloud;
  const details = quotaNames.map(([name, quota, table]) => [
    name,
    { limit: quotas[quota], used: data.tables[table].size, reserved: 0 },
  ]);
  return json(200, {
    quota: { ...Object.fromEntries(details), port: { limit: -1, used: data.tables.port.size, reserved: 0 } },
  });
}

const extensions = [
  ["router", "Neutron L3 Router"],
  ["external-net", "Neutron external network"],
  ["security-group", "security-group"],
  ["standard-attr-description", "standard-attr-description"],
  ["standard-attr-tag", "Tag support for resources with standard attribute"],
  ["standard-attr-timestamp", "Resource timestamps"],
  ["fip-port-details", "Floating IP Port Details Extension"],
  ["pagination", "Pagination support"],
  ["sorting", "Sorting support"],
  ["filter-validation", "Filter parameters validation"],
  ["quotas", "Quota management support"],
  ["quota_details", "Quota details management support"],
].map(([alias = "", name = ""]) => ({
  alias,
  name,
  description: name,
  links: [],
  updated: "2022-10-01T00:00:00-00:00",
}));

function getExtension(call: Call): Answer {
  const extension = extensions.find(({ alias }) => alias === param(call));
  if (extension === undefined) {
    throw new ApiError(404, `Extension with alias ${quoted(param(call))} does not exist`, "HTTPNotFound");
  }
  return json(200, { extension });
}

function version(call: Call): object {
  return { id: "v2.0", status: "CURRENT", links: [{ rel: "self", href: `${call.base}/networking/v2.0/` }] };
}

const service = "network" as const;
export const neutronCommonRoutes: readonly Route[] = [
  {
    service,
    method: "GET",
    path: "/versions",
    access: "open",
    handler: (call) => json(200, { versions: [version(call)] }),
  },
  {
    service,
    method: "GET",
    path: "/",
    access: "open",
    handler: (call) => json(200, { resources: [], versions: [version(call)] }),
  },
  { service, method: "GET", path: "/extensions", handler: () => json(200, { extensions }) },
  { service, method: "GET", path: "/extensions/{alias}", handler: getExtension },
  { service, method: "GET", path: "/quotas/{project}", handler: getQuota },
  { service, method: "GET", path: "/quotas/{project}/details.json", handler: getQuotaDetails },
  { service, method: "GET", path: "/quotas/{project}/details", handler: getQuotaDetails },
  {
    service,
    method: "GET",
    path: "/{resource}/{id}/tags",
    handler: (call) => json(200, { tags: tagged(call).tags }),
  },
  { service, method: "PUT", path: "/{resource}/{id}/tags", handler: putTags },
  {
    service,
    method: "DELETE",
    path: "/{resource}/{id}/tags",
    handler: (call) => {
      tagged(call).save([]);
      return empty(204);
    },
  },
  { service, method: "GET", path: "/{resource}/{id}/tags/{tag}", handler: getTag },
  { service, method: "PUT", path: "/{resource}/{id}/tags/{tag}", handler: putTag },
  { service, method: "DELETE", path: "/{resource}/{id}/tags/{tag}", handler: deleteTag },
];
