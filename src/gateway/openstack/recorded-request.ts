/** What the journal keeps of a request, and what is read back from there to ask the cloud about it. */
import { z } from "zod";
import type { Json } from "#kernel/json.ts";
import type { Intent } from "#model/command.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { openstackOperation, openstackResourceIds } from "#wire/openstack/openstack-operation.ts";
import type { LockKeys } from "#gateway/resource-locks.ts";
import { withoutSecrets } from "./journal-body.ts";
import type { OpenstackRequest } from "./openstack-request.ts";

export interface RecordedRequest {
  readonly method: string;
  /** As the gateway has it: `/compute/v2.1/servers`. */
  readonly path: string;
  readonly body: unknown;
  readonly service: OpenstackService;
  readonly operation: string;
  /** What stood at `{id}` and `{key}` of the operation, in order. */
  readonly params: readonly string[];
}

const inputSchema = z.object({ method: z.string(), path: z.string(), body: z.unknown().optional() });

export function journalInput({ method, path, body, version }: OpenstackRequest): Json {
  return {
    method,
    path,
    ...(version === undefined ? {} : { version }),
    ...(body === undefined ? {} : { body: withoutSecrets(body) }),
  };
}

/** Undefined for an input that no release of this dialect wrote. */
export function recordedRequest({ input }: Intent): RecordedRequest | undefined {
  const parsed = inputSchema.safeParse(input);
  if (!parsed.success) return undefined;
  const { method, path, body } = parsed.data;
  const { service, operation, params } = openstackOperation(method, path, body);
  return { method, path, body, service, operation, params };
}

/**
 * What the request touches; and for a create its name, since of two creates with one name, both unanswered, it could not be told
 * which of them made what.
 */
export function openstackLocks(method: string, path: string, body: unknown): LockKeys {
  const { written, read } = openstackResourceIds(method, path, body);
  const { service, operation } = openstackOperation(method, path, body);
  const name = operation.includes("{") ? undefined : createdName(body);
  const made = name === undefined ? [] : [`openstack:${service} ${operation} ${name}`];
  return {
    shared: read.map(keyOf),
    exclusive: [...written.map(keyOf), ...made],
  };
}

/** On one resource, alone. */
export function resourceLock(id: string): LockKeys {
  return { shared: [], exclusive: [keyOf(id)] };
}

function keyOf(id: string): string {
  return `openstack:${id}`;
}

function createdName(body: unknown): string | undefined {
  const member = singleMember(body);
  const name: unknown = member === undefined ? undefined : member.value["name"];
  return typeof name === "string" && name !== "" ? name : undefined;
}

export interface Member {
  /** `server` */
  readonly noun: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/** Bodies are `{"server": {...}}`; undefined for any other form. (Hints for the scheduler may stand beside.) */
export function singleMember(body: unknown): Member | undefined {
  if (typeof body !== "object" || body === null || Array.isArray(body)) return undefined;
  const [first] = Object.entries(body).filter(([name]) => !/^(?:os|OS)[-_:]/.test(name));
  if (first === undefined) return undefined;
  const [noun, value] = first as [string, unknown];
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return { noun, value: value as Readonly<Record<string, unknown>> };
}
