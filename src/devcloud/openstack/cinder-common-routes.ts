/** Types, limits, zones and versions of Cinder. Snapshots: this cloud has none. */
import { heldVolumeGiB } from "#devcloud/core/volumes.ts";
import { type Answer, json } from "./answer.ts";
import { type Call, type Route, param, projectOf } from "./api-call.ts";
import { ApiError, quoted } from "./api-error.ts";
import { defaultVolumeType, volumeTypes } from "./cinder-volume.ts";
import { microversions } from "./microversion.ts";

function getType(call: Call): Answer {
  const asked = param(call);
  const found = volumeTypes.find(
    ({ id, name }) => id === asked || (asked === "default" && name === defaultVolumeType),
  );
  if (found === undefined) throw new ApiError(404, `Volume type ${quoted(asked)} could not be found.`);
  return json(200, { volume_type: found });
}

function getLimits(call: Call): Answer {
  const { quotas, data } = call.cloud;
  return json(200, {
    limits: {
      rate: [],
      absolute: {
        maxTotalVolumes: quotas.volumes,
        totalVolumesUsed: data.tables.volume.size,
        maxTotalVolumeGigabytes: quotas.volumeGiB,
        totalGigabytesUsed: heldVolumeGiB(call.cloud),
        maxTotalSnapshots: 0,
        totalSnapshotsUsed: 0,
        maxTotalBackups: 0,
        totalBackupsUsed: 0,
        maxTotalBackupGigabytes: 0,
        totalBackupGigabytesUsed: 0,
      },
    },
  });
}

function getQuotaSet(call: Call): Answer {
  if (param(call) !== projectOf(call))
    throw new ApiError(403, "Not authorized to see another project's quotas.");
  const { quotas } = call.cloud;
  const sizes = {
    volumes: quotas.volumes,
    gigabytes: quotas.volumeGiB,
    snapshots: 0,
    backups: 0,
    backup_gigabytes: 0,
  };
  return json(200, { quota_set: { id: projectOf(call), per_volume_gigabytes: -1, groups: 0, ...sizes } });
}

function listZones(call: Call): Answer {
  return json(200, {
    availabilityZoneInfo: call.cloud.catalog.zones.map((zoneName) => ({
      zoneName,
      zoneState: { available: true },
    })),
  });
}

function versions(status: number): (call: Call) => Answer {
  return (call) =>
    json(status, {
      versions: [
        {
          id: "v3.0",
          status: "CURRENT",
          version: microversions.volume?.most,
          min_version: microversions.volume?.least,
          updated: "2022-08-31T00:00:00Z",
          links: [{ rel: "self", href: `${call.base}/volume/v3/` }],
          "media-types": [
            { base: "application/json", type: "application/vnd.openstack.volume+json;version=3" },
          ],
        },
      ],
    });
}

const service = "volume" as const;
export const cinderCommonRoutes: readonly Route[] = [
  { service, method: "GET", path: "/versions", access: "open", handler: versions(300) },
  { service, method: "GET", path: "/", access: "open", handler: versions(200) },
  { service, method: "GET", path: "/types", handler: () => json(200, { volume_types: volumeTypes }) },
  { service, method: "GET", path: "/types/{id}", handler: getType },
  { service, method: "GET", path: "/limits", handler: getLimits },
  { service, method: "GET", path: "/os-quota-sets/{project}", handler: getQuotaSet },
  { service, method: "GET", path: "/os-availability-zone", handler: listZones },
  { service, method: "GET", path: "/snapshots", handler: () => json(200, { snapshots: [] }) },
  { service, method: "GET", path: "/snapshots/detail", handler: () => json(200, { snapshots: [] }) },
  { service, method: "GET", path: "/extensions", handler: () => json(200, { extensions: [] }) },
];
