/** A request for one of the cloud's services, checked: what is forwarded is what was understood. */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { openstackOperation } from "#wire/openstack/openstack-operation.ts";
import type { GatewayRequest } from "#gateway/dialect.ts";
import type { OpenstackRefusal } from "./openstack-answer.ts";
import { type ForwardedService, isPlainPath, splitTarget } from "./service-paths.ts";

export interface OpenstackRequest {
  readonly service: OpenstackService;
  readonly method: string;
  /** Path and query, as the gateway has them. */
  readonly path: string;
  readonly operation: string;
  readonly readOnly: boolean;
  /** Parsed; undefined for none. */
  readonly body: unknown;
  /** `compute 2.79`, where the caller named one. */
  readonly version: string | undefined;
  readonly headers: readonly string[];
}

export type RequestReading =
  | { readonly ok: true; readonly request: OpenstackRequest }
  | { readonly ok: false; readonly refusal: OpenstackRefusal };

const methods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]);

/** Of the caller's headers, those that the services' documents give a meaning to; nothing that carries credentials or roles. */
const passed = [
  "accept",
  "content-type",
  "user-agent",
  "openstack-api-version",
  "x-openstack-nova-api-version",
  "x-openstack-request-id",
  "if-match",
  "if-none-match",
] as const;

export function readRequest(service: ForwardedService, request: GatewayRequest): RequestReading {
  const { method, target, body } = request;
  if (!methods.has(method)) return refused(405, `The method ${method} is not used by OpenStack's services.`);
  const { path, query } = splitTarget(target);
  if (!isPlainPath(path)) return refused(400, "The path has parts that servers read in different ways.");
  if (!/^[\x21-\x7e]*$/.test(query) || query.includes("#"))
    return refused(400, "The query is not percent-encoded.");
  if ((method === "GET" || method === "HEAD") && body.length > 0) {
    return refused(400, `A ${method} request must have no body.`);
  }
  const read = readBody(request);
  if (!read.ok) return read;
  const operation = openstackOperation(method, path, read.value);
  if (operation.service !== service) return refused(404, "The resource could not be found.");
  const headers: string[] = [];
  for (const name of passed) {
    const value = request.headers[name];
    if (Array.isArray(value)) return refused(400, `The header ${name} came several times.`);
    if (typeof value === "string" && (name !== "content-type" || body.length > 0)) headers.push(name, value);
  }
  return {
    ok: true,
    request: {
      service,
      method,
      path: `${path}${query}`,
      operation: operation.operation,
      // An action with a second key is refused by some releases and not by others: a change, in doubt.
      readOnly: operation.readOnly && (method !== "POST" || read.keys === 1),
      body: read.value,
      version: versionOf(request),
      headers,
    },
  };
}

type BodyReading =
  | { readonly ok: true; readonly value: unknown; readonly keys: number }
  | { readonly ok: false; readonly refusal: OpenstackRefusal };

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** All bodies of the APIs are JSON, but for the data of images, which would have to be held here whole. */
function readBody({ body, headers }: GatewayRequest): BodyReading {
  if (body.length === 0) return { ok: true, value: undefined, keys: 0 };
  const type = headers["content-type"];
  if (
    typeof type === "string" &&
    !/^application\/(?:[a-z0-9.+-]*[+-])?json(?:-patch)?\b/i.test(type.trim())
  ) {
    return refused(
      415,
      "Bodies are JSON here. The data of images does not pass through this gateway: upload it to the cloud itself.",
    );
  }
  try {
    const value: unknown = JSON.parse(utf8.decode(body));
    checkKeys(value, 0);
    return { ok: true, value, keys: isObject(value) ? Object.keys(value).length : 0 };
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof TypeError || error instanceof RangeError) {
      return refused(
        400,
        "Malformed request body: it is not JSON in UTF-8, is nested too deeply, or has a key __proto__.",
      );
    }
    throw error;
  }
}

const maxDepth = 64;

/** Refuses what could reach a prototype: `JSON.parse` makes it a plain member, whoever copies that later may not. */
function checkKeys(value: unknown, depth: number): void {
  if (depth > maxDepth) throw new RangeError("nested too deeply");
  if (typeof value !== "object" || value === null) return;
  for (const [key, inner] of Object.entries(value)) {
    if (key === "__proto__") throw new RangeError("a key that no service has");
    checkKeys(inner, depth + 1);
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function versionOf({ headers }: GatewayRequest): string | undefined {
  const named = headers["openstack-api-version"];
  if (typeof named === "string") return named.slice(0, 60);
  const nova = headers["x-openstack-nova-api-version"];
  return typeof nova === "string" ? `compute ${nova.slice(0, 40)}` : undefined;
}

function refused(
  status: number,
  message: string,
): { readonly ok: false; readonly refusal: OpenstackRefusal } {
  return { ok: false, refusal: { status, message } };
}
