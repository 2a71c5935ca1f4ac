/** Flavors, zones, limits, quotas and versions of Nova. */
import type { ServerTypeInfo } from "#devcloud/core/records.ts";
import { findServerType } from "#devcloud/core/servers.ts";
import { type Answer, json } from "./answer.ts";
import { type Call, type Route, param, projectOf } from "./api-call.ts";
import { ApiError } from "./api-error.ts";
import { markerPage, nextLinks } from "./marker-page.ts";
import { microversions, versionAtLeast } from "./microversion.ts";
import { computeLinks } from "./nova-server-body.ts";

function flavorBody(call: Call, type: ServerTypeInfo): object {
  const newer = (version: string, fields: object): object =>
    versionAtLeast(call.microversion, version) ? fields : {};
  return {
    id: type.id,
    name: type.name,
    vcpus: type.vcpus,
    ram: type.memoryMiB,
    disk: type.diskGiB,
    swap: versionAtLeast(call.microversion, "2.75") ? 0 : "",
    "OS-FLV-EXT-DATA:ephemeral": 0,
    "OS-FLV-DISABLED:disabled": false,
    "os-flavor-access:is_public": true,
    rxtx_factor: 1,
    links: computeLinks(call, `/flavors/${type.id}`),
    ...newer("2.55", { description: null }),
    ...newer("2.61", { extra_specs: {} }),
  };
}

function listFlavors(detail: boolean): (call: Call) => Answer {
  return (call) => {
    const number = (name: string): number => Number(call.query.get(name) ?? 0) || 0;
    const [minRam, minDisk] = [number("minRam"), number("minDisk")];
    const keep = (type: ServerTypeInfo): boolean => type.memoryMiB >= minRam && type.diskGiB >= minDisk;
    const { items, next } = markerPage(call, call.cloud.catalog.types, keep);
    const path = `/flavors${detail ? "/detail" : ""}`;
    return json(200, {
      flavors: items.map((type) =>
        detail
          ? flavorBody(call, type)
          : { id: type.id, name: type.name, links: computeLinks(call, `/flavors/${type.id}`) },
      ),
      ...nextLinks("flavors", `${call.base}/compute/v2.1${path}`, next),
    });
  };
}

function getFlavor(call: Call): Answer {
  return json(200, { flavor: flavorBody(call, findServerType(call.cloud, param(call))) });
}

interface Usage {
  readonly servers: number;
  readonly cores: number;
  readonly ramMiB: number;
}

function usageOf(call: Call): Usage {
  let [cores, ramMiB] = [0, 0];
  const alive = call.cloud.data.tables.server.by("alive", "yes");
  for (const server of alive) {
    const type = findServerType(call.cloud, server.type);
    cores += type.vcpus;
    ramMiB += type.memoryMiB;
  }
  return { servers: alive.length, cores, ramMiB };
}

function getLimits(call: Call): Answer {
  const { quotas } = call.cloud;
  const used = usageOf(call);
  return json(200, {
    limits: {
      rate: [],
      absolute: {
        maxTotalInstances: quotas.servers,
        maxTotalCores: quotas.vcpus,
        maxTotalRAMSize: -1,
        maxServerMeta: quotas.tagsPerResource,
        maxTotalKeypairs: quotas.keyPairs,
        maxServerGroups: 0,
        maxServerGroupMembers: 0,
        totalInstancesUsed: used.servers,
        totalCoresUsed: used.cores,
        totalRAMUsed: used.ramMiB,
        totalServerGroupsUsed: 0,
      },
    },
  });
}

function getQuotaSet(call: Call): Answer {
  if (param(call) !== projectOf(call)) {
    throw new ApiError(403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed.");
  }
  const { quotas } = call.cloud;
  return json(200, {
    quota_set: {
      id: projectOf(call),
      instances: quotas.servers,
      cores: quotas.vcpus,
      ram: -1,
      key_pairs: quotas.keyPairs,
      metadata_items: quotas.tagsPerResource,
      server_groups: 0,
      server_group_members: 0,
    },
  });
}

function listZones(call: Call): Answer {
  return json(200, {
    availabilityZoneInfo: call.cloud.catalog.zones.map((zoneName) => ({
      zoneName,
      zoneState: { available: true },
      hosts: null,
    })),
  });
}

function version(call: Call): object {
  return {
    id: "v2.1",
    status: "CURRENT",
    version: microversions.compute?.most,
    min_version: microversions.compute?.least,
    updated: "2013-07-23T11:33:21Z",
    links: [{ rel: "self", href: `${call.base}/compute/v2.1/` }],
  };
}

const service = "compute" as const;
export const novaCatalogRoutes: readonly Route[] = [
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
    handler: (call) => json(200, { version: version(call) }),
  },
  { service, method: "GET", path: "/flavors/detail", handler: listFlavors(true) },
  { service, method: "GET", path: "/flavors", handler: listFlavors(false) },
  { service, method: "GET", path: "/flavors/{id}", handler: getFlavor },
  {
    service,
    method: "GET",
    path: "/flavors/{id}/os-extra_specs",
    handler: (call) => {
      findServerType(call.cloud, param(call));
      return json(200, { extra_specs: {} });
    },
  },
  { service, method: "GET", path: "/limits", handler: getLimits },
  { service, method: "GET", path: "/os-quota-sets/{project}", handler: getQuotaSet },
  { service, method: "GET", path: "/os-availability-zone", handler: listZones },
  { service, method: "GET", path: "/extensions", handler: () => json(200, { extensions: [] }) },
];
