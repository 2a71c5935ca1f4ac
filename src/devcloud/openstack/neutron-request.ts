/** What Neutron's requests have in common. */
import { z } from "zod";
import type { Table } from "#devcloud/core/table.ts";
import { type Call, projectOf } from "./api-call.ts";
import type { NeutronView } from "./neutron-bodies.ts";

export function viewOf(call: Call): NeutronView {
  return { cloud: call.cloud, projectId: projectOf(call) };
}

const text = (most: number): z.ZodString => z.string().max(most, `exceeds maximum length of ${most}`);
export const neutronName = text(255);
export const neutronText = text(255);

/** Attributes that clients send and that make no difference here: there is one project, and everything is up. */
export const ignored = {
  tenant_id: z.string().optional(),
  project_id: z.string().optional(),
  admin_state_up: z.union([z.literal(true), z.literal("True"), z.literal("true")]).optional(),
};

/**
 * What a listing has to look at: those that the query names by id, or by an attribute with an index in the core, given as
 * `[query parameter, index]`.
 */
export function recordsWithIds<T extends { readonly id: string }>(
  call: Call,
  table: Table<T>,
  indexed: readonly (readonly [parameter: string, index: string])[] = [],
): readonly T[] {
  const ids = call.query.getAll("id");
  if (ids.length > 0) return [...new Set(ids)].flatMap((id) => table.get(id) ?? []);
  for (const [parameter, index] of indexed) {
    const keys = call.query.getAll(parameter);
    if (keys.length > 0) return [...new Set(keys)].flatMap((key) => table.by(index, key));
  }
  return [...table.values()];
}
