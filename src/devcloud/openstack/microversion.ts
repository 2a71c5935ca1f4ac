/** Microversions of Nova and Cinder. Source: API SIG, "Microversion specification". */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { novaVersionAtLeast } from "#wire/openstack/nova.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";

interface Range {
  readonly type: "compute" | "volume";
  readonly least: string;
  readonly most: string;
}

/** Those of Zed. */
export const microversions: Readonly<Partial<Record<OpenstackService, Range>>> = {
  compute: { type: "compute", least: "2.1", most: "2.93" },
  volume: { type: "volume", least: "3.0", most: "3.70" },
};

export const versionAtLeast = novaVersionAtLeast;

/** What the headers ask of this service; the oldest where they ask nothing. Throws 400 and 406. */
export function askedVersion(service: OpenstackService, headers: Readonly<Record<string, string>>): string {
  const range = microversions[service];
  if (range === undefined) return "";
  const asked = (headers["openstack-api-version"] ?? "")
    .split(",")
    .map((item) => item.trim().split(/\s+/, 2))
    .find(([type]) => type === range.type)?.[1];
  const legacy = service === "compute" ? headers["x-openstack-nova-api-version"] : undefined;
  const version = asked ?? legacy?.trim() ?? range.least;
  if (version === "latest") return range.most;
  if (!/^\d{1,4}\.\d{1,4}$/.test(version)) {
    throw badRequest(
      `API Version String ${quoted(version)} is of invalid format. Must be of format MajorNum.MinorNum.`,
    );
  }
  if (versionAtLeast(version, range.least) && versionAtLeast(range.most, version)) return version;
  throw new ApiError(
    406,
    `Version ${quoted(version)} is not supported by the API. Minimum is ${range.least} and maximum is ${range.most}.`,
  );
}

export function versionHeaders(service: OpenstackService, version: string): Record<string, string> {
  const range = microversions[service];
  if (range === undefined || version === "") return {};
  return {
    "openstack-api-version": `${range.type} ${version}`,
    vary: "OpenStack-API-Version",
    ...(service === "compute" ? { "x-openstack-nova-api-version": version } : {}),
  };
}
