/** Which operation of which service a request is, from its method and path; and which ids it touches. */
import type { OpenstackService } from "./keystone.ts";

export interface OpenstackOperation {
  readonly service: OpenstackService;
  /** `POST /servers`, `POST /servers/{id}/action os-stop`: ids as `{id}`, keys of metadata and tags as `{key}`. */
  readonly operation: string;
  /** In doubt, false. */
  readonly readOnly: boolean;
  /** In order: what stood at `{id}` and `{key}`, decoded. */
  readonly params: readonly string[];
}

/** Routes below the version (and the project id, where older endpoints have one), apart from `/{collection}/{id}`. */
const routes: Readonly<Record<OpenstackService, readonly string[]>> = {
  compute: [
    "servers/detail",
    "servers/{id}/action",
    "servers/{id}/metadata",
    "servers/{id}/metadata/{key}",
    "servers/{id}/tags",
    "servers/{id}/tags/{key}",
    "servers/{id}/os-volume_attachments",
    "servers/{id}/os-volume_attachments/{id}",
    "servers/{id}/os-interface",
    "servers/{id}/os-interface/{id}",
    "servers/{id}/remote-consoles",
    "flavors/detail",
    "os-keypairs/{key}",
    "os-availability-zone/detail",
  ],
  network: [
    "routers/{id}/add_router_interface",
    "routers/{id}/remove_router_interface",
    ...["networks", "subnets", "routers", "ports", "security-groups", "floatingips"].flatMap((name) => [
      `${name}/{id}/tags`,
      `${name}/{id}/tags/{key}`,
    ]),
    "quotas/{id}/details.json",
  ],
  volume: [
    "volumes/detail",
    "volumes/summary",
    "volumes/{id}/action",
    "volumes/{id}/metadata",
    "volumes/{id}/metadata/{key}",
    "snapshots/detail",
    "types/default",
    "attachments/detail",
    "backups/detail",
  ],
  image: ["images/{id}/file", "images/{id}/tags/{key}", "images/{id}/actions/deactivate"],
  identity: ["auth/tokens", "auth/projects", "auth/catalog"],
};

const split = (route: string): readonly string[] => route.split("/");
const routeTable = new Map(
  Object.entries(routes).map(([service, list]) => [service, list.map(split)] as const),
);

const identityNouns = new Set([
  "auth",
  "projects",
  "users",
  "domains",
  "groups",
  "roles",
  "role_assignments",
  "regions",
  "services",
  "endpoints",
  "credentials",
  "policies",
  "OS-FEDERATION",
  "OS-TRUST",
  "OS-EC2",
  "OS-OAUTH1",
  "limits",
  "registered_limits",
]);

const idPattern = /^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i;
/** Names of services in front of the version, where several are served from one address. */
const prefixes: ReadonlyMap<string, OpenstackService> = new Map([
  ["compute", "compute"],
  ["network", "network"],
  ["networking", "network"],
  ["image", "image"],
  ["volume", "volume"],
  ["block-storage", "volume"],
  ["identity", "identity"],
]);

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    return segment;
  }
}

interface Located {
  readonly service: OpenstackService;
  readonly segments: readonly string[];
}

function locate(path: string): Located {
  const all = (path.split("?", 1)[0] ?? "").split("/").filter((segment) => segment !== "");
  const named = prefixes.get(all[0] ?? "");
  const rest = named === undefined ? all : all.slice(1);
  const version = /^v(\d)(\.\d{1,3})?$/.exec(rest[0] ?? "");
  const below = version === null ? rest : rest.slice(1);
  const service = named ?? serviceOf(version, below);
  const withProject = service === "compute" || service === "volume";
  const owned = withProject && idPattern.test(below[0] ?? "");
  return { service, segments: owned ? below.slice(1) : below };
}

function serviceOf(version: RegExpExecArray | null, below: readonly string[]): OpenstackService {
  const first = below[0] ?? "";
  if (version?.[1] === "3") return first === "" || identityNouns.has(first) ? "identity" : "volume";
  if (version?.[0] === "v2.0") return "network";
  if (version?.[0] === "v2" && ["images", "tasks", "schemas", "metadefs"].includes(first)) return "image";
  return "compute";
}

interface Matched {
  readonly text: string;
  readonly params: readonly string[];
}

function match(route: readonly string[], segments: readonly string[]): Matched | undefined {
  if (route.length !== segments.length) return undefined;
  const params: string[] = [];
  for (const [index, part] of route.entries()) {
    const segment = segments[index] ?? "";
    if (part.startsWith("{")) params.push(decode(segment));
    else if (part !== segment) return undefined;
  }
  return { text: `/${route.join("/")}`, params };
}

/** `/{collection}/{id}`, and whatever else: what looks like an id is one, so that an operation's name stays finite. */
function generic(method: string, segments: readonly string[]): Matched {
  const params: string[] = [];
  const parts = segments.slice(0, 8).map((segment, index) => {
    const isId = idPattern.test(segment) || (method !== "POST" && index === 1 && segments.length === 2);
    if (!isId) return segment.slice(0, 60);
    params.push(decode(segment));
    return "{id}";
  });
  return { text: `/${parts.join("/")}`, params };
}

/** Actions that only read. */
const readingActions = new Set([
  "os-getConsoleOutput",
  "os-getVNCConsole",
  "os-getSPICEConsole",
  "os-getRDPConsole",
  "os-getSerialConsole",
  "os-getMKSConsole",
  "getConsoleOutput",
]);

/** The one key of an action's body. */
export function actionName(body: unknown): string | undefined {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
  const [name, second] = Object.keys(body);
  return second === undefined && name !== undefined && /^[A-Za-z0-9_:-]{1,60}$/.test(name) ? name : undefined;
}

/** `body`: the parsed request body, which names an action; without it an action counts as a change. */
export function openstackOperation(method: string, path: string, body?: unknown): OpenstackOperation {
  const { service, segments } = locate(path);
  const known = routeTable.get(service) ?? [];
  let matched: Matched | undefined;
  for (const route of known) matched ??= match(route, segments);
  const { text, params } = matched ?? generic(method, segments);
  const action = method === "POST" && text.endsWith("/{id}/action") ? actionName(body) : undefined;
  const reads =
    method === "GET" ||
    method === "HEAD" ||
    method === "OPTIONS" ||
    text === "/auth/tokens" ||
    text === "/servers/{id}/remote-consoles" ||
    (action !== undefined && readingActions.has(action));
  const operation = `${method} ${text}${action === undefined ? "" : ` ${action}`}`;
  return { service, operation, readOnly: reads, params };
}

export interface OpenstackResourceIds {
  readonly written: readonly string[];
  readonly read: readonly string[];
}

/** Members whose text is an id that the request only refers to. */
const readMembers = new Set([
  "imageRef",
  "flavorRef",
  "key_name",
  "remote_group_id",
  "snapshot_id",
  "source_volid",
  "floating_network_id",
]);
/** Members whose text is an id of something that the request changes, besides what its path names. */
const writtenMembers = new Set([
  "network_id",
  "subnet_id",
  "port_id",
  "volumeId",
  "security_group_id",
  "uuid",
  "port",
]);
const maxDepth = 8;

function collect(
  value: unknown,
  member: string,
  into: { readonly written: Set<string>; readonly read: Set<string> },
  depth = 0,
): void {
  if (depth > maxDepth) return;
  if (typeof value === "string") {
    if (readMembers.has(member)) into.read.add(value);
    else if (writtenMembers.has(member) && idPattern.test(value)) into.written.add(value);
    return;
  }
  if (typeof value !== "object" || value === null) return;
  if (Array.isArray(value)) {
    for (const item of value) collect(item, member, into, depth + 1);
    return;
  }
  for (const [key, inner] of Object.entries(value)) {
    // A server's groups are read by it; metadata is text, whatever it looks like.
    if (key === "metadata" || key === "user_data" || key === "description") continue;
    if (key === "security_groups") {
      for (const group of Array.isArray(inner) ? inner : []) {
        const name: unknown =
          typeof group === "object" && group !== null ? (group as { name?: unknown }).name : group;
        if (typeof name === "string") into.read.add(name);
      }
    } else collect(inner, key, into, depth + 1);
  }
}

/** Ids that a request writes and reads, for letting requests that have nothing to do with each other pass side by side. */
export function openstackResourceIds(
  method: string,
  path: string,
  requestBody?: unknown,
): OpenstackResourceIds {
  const { readOnly, operation, params } = openstackOperation(method, path, requestBody);
  const written = new Set<string>();
  const read = new Set<string>();
  const [first, second] = params;
  if (first !== undefined) (readOnly ? read : written).add(first);
  if (second !== undefined && !operation.includes("{key}")) (readOnly ? read : written).add(second);
  const servers = operation === "POST /servers";
  const found = { written: servers ? read : written, read };
  collect(requestBody, "", found);
  if (readOnly) for (const id of written) read.add(id);
  if (readOnly) written.clear();
  for (const id of written) read.delete(id);
  return { written: [...written], read: [...read] };
}
