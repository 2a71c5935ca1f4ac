/** Which service a path is of, and what is left of it below the service's base. */
import type { OpenstackService } from "#wire/openstack/keystone.ts";

export interface ServicePath {
  readonly service: OpenstackService;
  /** `/versions` for the unversioned root, `/` for the versioned one; else below that. Keystone's keeps its `/v3`. */
  readonly path: string;
  readonly query: URLSearchParams;
}

const prefixes: Readonly<Record<string, { service: OpenstackService; version: string }>> = {
  compute: { service: "compute", version: "v2.1" },
  networking: { service: "network", version: "v2.0" },
  image: { service: "image", version: "v2" },
  volume: { service: "volume", version: "v3" },
};

/** Undefined: of no service. */
export function locate(target: string, projectId: string): ServicePath | undefined {
  const mark = target.indexOf("?");
  const query = new URLSearchParams(mark < 0 ? "" : target.slice(mark + 1));
  const segments = (mark < 0 ? target : target.slice(0, mark)).split("/").filter((each) => each !== "");
  const [first, ...rest] = segments;
  const below = (left: readonly string[]): string => `/${left.join("/")}`;
  if (first === undefined || first === "v3") return { service: "identity", path: below(segments), query };
  if (first === "identity") return { service: "identity", path: below(rest), query };
  const prefix = Object.hasOwn(prefixes, first) ? prefixes[first] : undefined;
  if (prefix === undefined) return undefined;
  const { service, version } = prefix;
  const [given, ...left] = rest;
  if (given === undefined) return { service, path: "/versions", query };
  if (given !== version) return undefined;
  // Cinder's endpoint names the project; Nova's may.
  const named = (service === "volume" || service === "compute") && left[0] === projectId;
  return { service, path: below(named ? left.slice(1) : left), query };
}
