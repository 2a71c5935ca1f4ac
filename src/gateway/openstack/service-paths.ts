/** Where the services stand: at the gateway (a prefix each, below one address) and at the cloud (an address each). */
import type { OpenstackService } from "#wire/openstack/keystone.ts";

export type ForwardedService = Exclude<OpenstackService, "identity">;

/** The cloud's addresses without version and project, by service. */
export type ServiceRoots = ReadonlyMap<OpenstackService, URL>;

export const forwardedServices = [
  "compute",
  "network",
  "image",
  "volume",
] as const satisfies readonly ForwardedService[];

export const servicePrefixes: Readonly<Record<OpenstackService, string>> = {
  identity: "/identity",
  compute: "/compute",
  network: "/networking",
  image: "/image",
  volume: "/volume",
};

/** Stands in a forwarded path for the cloud's own project id, which `sign` knows. No caller's path may have it. */
export const projectPlace = "{project}";

/** Below which the API's paths begin, as the gateway has them. */
export const serviceBases: Readonly<Record<ForwardedService, string>> = {
  compute: "/compute/v2.1",
  network: "/networking/v2.0",
  image: "/image/v2",
  volume: `/volume/v3/${projectPlace}`,
};

export interface ServedPath {
  readonly service: OpenstackService;
  /** Below the prefix: `/v2.1/servers`. */
  readonly rest: string;
}

/** Which service a path is for, by its prefix; `/v3/auth` is Keystone's too, for clients that are given the bare address. */
export function servedPath(path: string): ServedPath | undefined {
  for (const service of ["identity", ...forwardedServices] as const) {
    const prefix = servicePrefixes[service];
    if (path === prefix) return { service, rest: "" };
    if (path.startsWith(`${prefix}/`)) return { service, rest: path.slice(prefix.length) };
  }
  return path === "/v3" || path.startsWith("/v3/") ? { service: "identity", rest: path } : undefined;
}

/** An endpoint of a catalogue without version and project; undefined if it is no address. */
export function serviceRoot(endpoint: string): URL | undefined {
  const url = URL.canParse(endpoint) ? new URL(endpoint) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) return undefined;
  return new URL(
    url.pathname.replace(/\/v\d+(?:\.\d+)?(?:\/[^/]*)?\/*$/, "").replace(/\/+$/, "") || "/",
    url.origin,
  );
}

/** Path and query of a target. */
export function splitTarget(target: string): { readonly path: string; readonly query: string } {
  const mark = target.indexOf("?");
  return mark < 0 ? { path: target, query: "" } : { path: target.slice(0, mark), query: target.slice(mark) };
}

/**
 * Whether every server reads the path as it stands: WSGI servers decode before they route, and some resolve dots, so that
 * a path with an encoded slash or a dot segment could be another one to the cloud than to this gateway.
 */
export function isPlainPath(path: string): boolean {
  if (!/^\/[\x21-\x7e]*$/.test(path) || /[\\{}#"<>^`|;]|%(?![0-9a-f]{2})|%2f|%5c|%00/i.test(path))
    return false;
  const segments = path.split("/").slice(1);
  return segments.every((segment, index) => {
    if (segment === "") return index === segments.length - 1;
    return !/^(?:\.|%2e){1,2}$/i.test(segment);
  });
}
