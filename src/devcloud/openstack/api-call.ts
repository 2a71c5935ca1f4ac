/** What the routes of the OpenStack dialect share: a decoded call, and what a route is. */
import type { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute } from "#devcloud/core/compute.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { parseJson } from "#wire/openstack/openstack-json.ts";
import type { Answer } from "./answer.ts";
import { badRequest, quoted } from "./api-error.ts";
import type { Grant, Identity } from "./keystone-identity.ts";

export interface Openstack {
  readonly cloud: Cloud;
  readonly compute: Compute;
  readonly identity: Identity;
  /** How long a server is in RESIZE and REVERT_RESIZE, in milliseconds. */
  readonly resizeMs: number;
}

export interface Call {
  readonly openstack: Openstack;
  readonly cloud: Cloud;
  readonly service: OpenstackService;
  /** Values of the path's `{...}` segments, in order. */
  readonly params: readonly string[];
  readonly query: URLSearchParams;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
  /** `http://host:port`, as the client named it. */
  readonly base: string;
  /** Of Nova and Cinder, e.g. 2.79. */
  readonly microversion: string;
  /** Null for routes that need no token. */
  readonly grant: Grant | null;
}

/** Part of a transaction, synchronous. Refusals are thrown: `Refusal` of the core, or `ApiError`. */
export type Handler = (call: Call) => Answer;

export interface Route {
  readonly service: OpenstackService;
  readonly method: string;
  /** Below the service's base: `/servers/{id}/action`. */
  readonly path: string;
  /** Absent: `token`. */
  readonly access?: "open" | "token";
  readonly handler: Handler;
}

export function param(call: Call, index = 0): string {
  return call.params[index] ?? "";
}

export function parsedBody(call: Call): unknown {
  const parsed = parseJson(call.body.toString("utf8"));
  if (!parsed.ok) throw badRequest("The server could not comply with the request since it is malformed.");
  return parsed.value;
}

/** The body by its schema; the refusal is worded as Neutron or as Nova does. */
export function bodyOf<T>(call: Call, schema: z.ZodType<T>): T {
  const result = schema.safeParse(parsedBody(call));
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = quoted(issue?.path.join(".") ?? "");
  if (issue?.code === "unrecognized_keys") {
    const keys = quoted(issue.keys.join(", "));
    throw badRequest(
      call.service === "network"
        ? `Unrecognized attribute(s) '${keys}'`
        : `Invalid input for field/attribute ${where}. Additional properties are not allowed ('${keys}' was unexpected)`,
    );
  }
  const message = quoted(issue?.message ?? "does not fit");
  throw badRequest(
    call.service === "network"
      ? `Invalid input for ${where.split(".").at(-1) ?? ""}. Reason: ${message}.`
      : `Invalid input for field/attribute ${where}. ${message}`,
  );
}

/** `2026-11-21T10:25:44Z`, as Nova and Neutron write times. */
export function isoSeconds(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, 19)}Z`;
}

export function projectOf(call: Call): string {
  return call.grant?.projectId ?? "";
}
