/** The calls that a bare host serves as a site of its own: the contract of a cloud (`cloud/contract.ts`), a method each. */
import { z } from "zod";
import type { LocalMethods } from "#wire/local-api/local-api.ts";
import { resourceIdSchema, resourceKindSchema, tagsSchema } from "./resource-schema.ts";

const kind = resourceKindSchema;
const id = resourceIdSchema;
const nothing = z.strictObject({});
const token = z.string().regex(/^[A-Za-z0-9-]{1,64}$/);

/** Of one kind; whoever serves the call decodes it as that (`decodeSpec`). */
const anySpec = z.looseObject({});

const addresses = z.object({ private: z.array(z.string()), public: z.array(z.string()) });

const observed = z.object({
  resource: z.object({ kind, id, spec: anySpec, tags: z.record(z.string(), z.string()) }),
  status: z.enum(["pending", "ready", "stopped", "failed", "deleting"]),
  fault: z.string().optional(),
  addresses,
});

export type ObservedOnWire = z.output<typeof observed>;

const catalogue = z.object({
  types: z.array(
    z.object({
      name: z.string(),
      vcpus: z.number(),
      memoryMiB: z.number(),
      gpus: z.number(),
      architecture: z.string(),
    }),
  ),
  images: z.array(z.object({ id: z.string(), name: z.string(), architecture: z.string() })),
  zones: z.array(z.string()),
});

const filter = z.strictObject({
  scope: z.string().optional(),
  tags: tagsSchema.optional(),
  ids: z.array(id).max(10_000).optional(),
});

export const siteMethods = {
  identify: { input: nothing, output: z.object({ account: z.string() }) },
  catalogue: { input: nothing, output: catalogue },
  create: {
    input: z.strictObject({
      kind,
      spec: anySpec,
      tags: tagsSchema,
      token,
      scope: z.string().min(1).max(128),
      mayExist: z.boolean(),
    }),
    output: observed,
  },
  get: { input: z.strictObject({ kind, id }), output: observed.nullable() },
  /** `after`: the last id of the page before. */
  list: {
    input: z.strictObject({ kind, filter, after: id.nullable() }),
    output: z.object({ page: z.array(observed), more: z.boolean() }),
  },
  /** `set` names what changes. */
  update: { input: z.strictObject({ kind, id, set: anySpec }), output: z.null() },
  setTags: {
    input: z.strictObject({ kind, id, set: tagsSchema, remove: z.array(z.string()).max(1000) }),
    output: z.null(),
  },
  delete: { input: z.strictObject({ kind, id }), output: z.null() },
} as const satisfies LocalMethods;

export type SiteMethods = typeof siteMethods;
