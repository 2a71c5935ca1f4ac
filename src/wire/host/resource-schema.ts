/** Resources as they cross between processes of ours: the model's kinds (`model/resource.ts`), checked at the border. */
import { z } from "zod";
import type { ResourceId } from "#kernel/ids.ts";
import { OperationalError } from "#kernel/errors.ts";
import { type ResourceKind, resourceKinds, type ResourceSpecs } from "#model/resource.ts";

export const resourceIdSchema = z
  .string()
  .min(1)
  .max(300)
  .transform((text) => text as ResourceId);
const id = resourceIdSchema;
const name = z.string().min(1).max(255);
const text = z.string().max(1024);
const cidr = z.string().max(64);
const port = z.int().min(-1).max(65_535);
/** 64 TiB, which is what the largest cloud's volumes hold. */
const sizeGiB = z.int().min(1).max(65_536);

/** The largest user data that crosses, in characters of base64. */
export const mostUserDataChars = 131_072;

const blockDevice = z.strictObject({
  device: name,
  sizeGiB,
  type: text.optional(),
  snapshotId: id.optional(),
  deleteOnTermination: z.boolean(),
});

const rule = z.strictObject({
  groupId: id,
  direction: z.enum(["ingress", "egress"]),
  protocol: z.string().min(1).max(16),
  fromPort: port.optional(),
  toPort: port.optional(),
  peer: z.union([z.strictObject({ cidr }), z.strictObject({ groupId: id })]),
  description: text.optional(),
});

export const specSchemas = {
  network: z.strictObject({ cidr: cidr.optional(), internet: z.boolean() }),
  subnet: z.strictObject({ networkId: id, cidr, zone: text.optional(), publicAddresses: z.boolean() }),
  securityGroup: z.strictObject({ networkId: id.optional(), name, description: text }),
  securityGroupRule: rule,
  keyPair: z.strictObject({ name, publicKey: z.string().max(16_384).optional() }),
  volume: z.strictObject({
    sizeGiB,
    type: text.optional(),
    zone: text.optional(),
    iops: z.int().nonnegative().optional(),
    encrypted: z.boolean().optional(),
    snapshotId: id.optional(),
  }),
  address: z.strictObject({ publicIp: text.optional() }),
  server: z.strictObject({
    imageId: name,
    type: name,
    subnetId: id.optional(),
    groupIds: z.array(id).max(64),
    keyName: name.optional(),
    userData: z.string().max(mostUserDataChars).optional(),
    privateIp: text.optional(),
    zone: text.optional(),
    publicAddress: z.boolean(),
    power: z.enum(["running", "stopped"]),
    blockDevices: z.array(blockDevice).max(16),
  }),
  volumeAttachment: z.strictObject({
    volumeId: id,
    serverId: id,
    device: name,
    deleteOnTermination: z.boolean(),
  }),
  addressAssociation: z.strictObject({ addressId: id, serverId: id, privateIp: text.optional() }),
} as const satisfies { readonly [K in ResourceKind]: z.ZodType };

export const resourceKindSchema = z.enum(resourceKinds);

export const tagsSchema = z.record(z.string().min(1).max(256), z.string().max(1024));

/** Errors: `input.invalid`, which names the field. */
export function decodeSpec<K extends ResourceKind>(kind: K, value: unknown): ResourceSpecs[K] {
  return decode(kind, specSchemas[kind], value) as ResourceSpecs[K];
}

/** Some of its fields. Errors: `input.invalid`. */
export function decodePartialSpec<K extends ResourceKind>(
  kind: K,
  value: unknown,
): Partial<ResourceSpecs[K]> {
  return decode(kind, specSchemas[kind].partial(), value) as Partial<ResourceSpecs[K]>;
}

function decode(kind: ResourceKind, schema: z.ZodType, value: unknown): unknown {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = [kind, ...(issue?.path ?? [])].join(".");
  throw new OperationalError("input.invalid", `${where}: ${issue?.message ?? "not as it should be"}`);
}
