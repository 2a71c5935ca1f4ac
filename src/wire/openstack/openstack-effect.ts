/** What an acknowledged change of an OpenStack API means for the model, and the vocabulary of its translators. */
import type { z } from "zod";
import type { ResourceId } from "#kernel/ids.ts";
import type { Change, CreateChange } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";
import type { Resource, ResourceKind, Tags } from "#model/resource.ts";
import type { OpenstackService } from "./keystone.ts";
import { decodeValue } from "./openstack-json.ts";

export interface OpenstackEffect {
  readonly changes: readonly Change[];
  readonly gaps: readonly Gap[];
}

/** The active cloud as it is after the change, and the environment as it was before. */
export interface OpenstackLookup {
  /** The parsed body of a GET below the service's base, e.g. `("compute", "/servers/ID")`; `undefined` for 404. */
  get(service: OpenstackService, path: string): Promise<unknown>;
  /** What the journal knew before this change. Without it, what only that could tell becomes a named gap. */
  known?(kind: ResourceKind, id: string): Resource | undefined;
}

export interface OpenstackExchange {
  readonly method: string;
  readonly path: string;
  /** Parsed; `undefined` for none. */
  readonly requestBody: unknown;
  readonly responseBody: unknown;
  readonly status: number;
}

export interface TranslatorInput {
  readonly operation: string;
  readonly params: readonly string[];
  readonly request: unknown;
  readonly response: unknown;
  readonly lookup: OpenstackLookup;
}

export type OpenstackTranslator = (input: TranslatorInput) => OpenstackEffect | Promise<OpenstackEffect>;
export type OpenstackTranslators = ReadonlyMap<string, OpenstackTranslator>;

export const noEffect: OpenstackEffect = { changes: [], gaps: [] };

export function changed(...changes: readonly Change[]): OpenstackEffect {
  return { changes, gaps: [] };
}

export function joinEffects(effects: readonly OpenstackEffect[]): OpenstackEffect {
  return {
    changes: effects.flatMap(({ changes }) => changes),
    gaps: effects.flatMap(({ gaps }) => gaps),
  };
}

export function operationGap(operation: string, severity: Gap["severity"], message: string): OpenstackEffect {
  const gap: Gap = {
    code: "operation.untranslated",
    severity,
    operation: `openstack:${operation}`,
    message,
  };
  return { changes: [], gaps: [gap] };
}

export function fieldGap(
  operation: string,
  resource: { readonly kind: ResourceKind; readonly id: string },
  message: string,
  severity: Gap["severity"] = "degraded",
): OpenstackEffect {
  const gap: Gap = {
    code: "field.untranslated",
    severity,
    resource,
    operation: `openstack:${operation}`,
    message,
  };
  return { changes: [], gaps: [gap] };
}

export const id = (text: string | undefined): ResourceId => (text ?? "") as ResourceId;

export function created(
  resource: Pick<Resource, "kind" | "id" | "tags"> & { readonly spec: object },
  aliases: readonly ResourceId[] = [],
): Change {
  const change = { type: "create", ...resource, ...(aliases.length === 0 ? {} : { aliases }) };
  return change as unknown as CreateChange;
}

export function deleted(kind: ResourceKind, resourceId: string | undefined): Change {
  return { type: "delete", kind, id: id(resourceId) };
}

export function tagged(
  kind: ResourceKind,
  resourceId: string | undefined,
  set: Tags,
  remove: readonly string[] = [],
): OpenstackEffect {
  if (Object.keys(set).length === 0 && remove.length === 0) return noEffect;
  return changed({ type: "tag", kind, id: id(resourceId), set, remove });
}

/** A body that was acknowledged and still cannot be read: the change happened, and is not understood. */
export function unreadable(operation: string, reason: string): OpenstackEffect {
  return operationGap(
    operation,
    "lost",
    `the cloud took the change, but its bodies cannot be read: ${reason}`,
  );
}

/** Decodes, then translates; what cannot be decoded is a gap. */
export async function withBody<T>(
  schema: z.ZodType<T>,
  value: unknown,
  operation: string,
  work: (body: T) => OpenstackEffect | Promise<OpenstackEffect>,
): Promise<OpenstackEffect> {
  const decoded = decodeValue(schema, value);
  return decoded.ok ? work(decoded.value) : unreadable(operation, decoded.reason);
}

export async function lookUp<T>(
  lookup: OpenstackLookup,
  service: OpenstackService,
  path: string,
  schema: z.ZodType<T>,
): Promise<T | undefined> {
  const body = await lookup.get(service, path);
  if (body === undefined) return undefined;
  const decoded = decodeValue(schema, body);
  return decoded.ok ? decoded.value : undefined;
}

/** All tags at once, as a replacement of the whole list: what is not in it any more goes. */
export function retagged(
  kind: ResourceKind,
  resourceId: string | undefined,
  tags: Tags,
  keep: readonly string[],
  { operation, lookup }: Pick<TranslatorInput, "operation" | "lookup">,
): OpenstackEffect {
  const before = lookup.known?.(kind, resourceId ?? "");
  const effect = tagged(
    kind,
    resourceId,
    tags,
    Object.keys(before?.tags ?? {}).filter((key) => !(key in tags) && !keep.includes(key)),
  );
  if (before !== undefined) return effect;
  const message = "tags that were taken away by replacing all of them are not known";
  return joinEffects([effect, fieldGap(operation, { kind, id: resourceId ?? "" }, message, "note")]);
}
