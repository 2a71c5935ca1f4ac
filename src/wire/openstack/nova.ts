/** Nova v2.1 bodies, as of microversions 2.52 to 2.79. Source: Compute API reference; nova's JSON schemas. */
import { z } from "zod";

export const novaVersionSchema = z.object({
  version: z.object({ version: z.string(), min_version: z.string() }),
});

/** The newest version that the codec reads: boot volumes with a type (2.67), `delete_on_termination` of attachments (2.79). */
export const wantedNovaVersion = "2.79";
/** The oldest: tags with a create (2.52), by which a create is found again. */
export const leastNovaVersion = "2.52";

function parts(version: string): [number, number] {
  const [major = "0", minor = "0"] = version.split(".");
  return [Number(major), Number(minor)];
}

export function novaVersionAtLeast(version: string, least: string): boolean {
  const [a, b] = [parts(version), parts(least)];
  return a[0] > b[0] || (a[0] === b[0] && a[1] >= b[1]);
}

/** The version to ask for, or `undefined` when the cloud's newest is older than what the codec needs. */
export function negotiateNovaVersion(newest: string): string | undefined {
  if (!/^\d{1,4}\.\d{1,4}$/.test(newest)) return undefined;
  if (!novaVersionAtLeast(newest, leastNovaVersion)) return undefined;
  return novaVersionAtLeast(newest, wantedNovaVersion) ? wantedNovaVersion : newest;
}

const addressSchema = z.object({
  addr: z.string(),
  version: z.number(),
  "OS-EXT-IPS:type": z.string().optional(),
});

/** Servers of a cell that is down have id and status `UNKNOWN` only (2.69), so that nearly all is optional. */
export const serverSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  status: z.string(),
  locked: z.boolean().optional(),
  metadata: z.record(z.string(), z.string()).default({}),
  addresses: z.record(z.string(), z.array(addressSchema)).default({}),
  /** An empty text for a server that boots from a volume. */
  image: z.union([z.object({ id: z.string() }), z.literal("")]).nullish(),
  flavor: z.object({ original_name: z.string().optional(), id: z.string().optional() }).optional(),
  key_name: z.string().nullish(),
  security_groups: z.array(z.object({ name: z.string() })).optional(),
  fault: z.object({ message: z.string().default(""), code: z.number().optional() }).optional(),
  tags: z.array(z.string()).optional(),
  "OS-EXT-AZ:availability_zone": z.string().nullish(),
  "OS-EXT-STS:vm_state": z.string().nullish(),
  "OS-EXT-STS:task_state": z.string().nullish(),
  "OS-EXT-STS:power_state": z.number().nullish(),
  /** Only for administrators, by nova's default policy. */
  "OS-EXT-SRV-ATTR:user_data": z.string().nullish(),
  "os-extended-volumes:volumes_attached": z
    .array(z.object({ id: z.string(), delete_on_termination: z.boolean().optional() }))
    .optional(),
});
export type NovaServer = z.infer<typeof serverSchema>;

export const serverResponseSchema = z.object({ server: serverSchema });
export const serversResponseSchema = z.object({ servers: z.array(serverSchema) });
export const serverCreatedSchema = z.object({ server: z.object({ id: z.string() }) });

const networkOfServerSchema = z.object({
  uuid: z.string().optional(),
  port: z.string().optional(),
  fixed_ip: z.string().optional(),
});

export const blockDeviceMappingSchema = z.object({
  boot_index: z.union([z.number(), z.string(), z.null()]).optional(),
  uuid: z.string().optional(),
  source_type: z.string(),
  destination_type: z.string().optional(),
  volume_size: z.union([z.number(), z.string()]).optional(),
  volume_type: z.string().optional(),
  device_name: z.string().nullish(),
  delete_on_termination: z.boolean().optional(),
});

export const serverCreateSchema = z.object({
  server: z.object({
    name: z.string(),
    flavorRef: z.string(),
    imageRef: z.string().optional(),
    key_name: z.string().nullish(),
    user_data: z.string().nullish(),
    availability_zone: z.string().nullish(),
    metadata: z.record(z.string(), z.string()).optional(),
    tags: z.array(z.string()).optional(),
    security_groups: z.array(z.object({ name: z.string() })).optional(),
    networks: z.union([z.enum(["auto", "none"]), z.array(networkOfServerSchema)]).optional(),
    block_device_mapping_v2: z.array(blockDeviceMappingSchema).optional(),
    min_count: z.union([z.number(), z.string()]).optional(),
    max_count: z.union([z.number(), z.string()]).optional(),
  }),
});
export type NovaServerCreate = z.infer<typeof serverCreateSchema>["server"];

export const flavorSchema = z.object({
  id: z.string(),
  name: z.string(),
  vcpus: z.number(),
  /** MiB. */
  ram: z.number(),
  disk: z.number().optional(),
  "OS-FLV-DISABLED:disabled": z.boolean().optional(),
  extra_specs: z.record(z.string(), z.string()).optional(),
});
export type NovaFlavor = z.infer<typeof flavorSchema>;
export const flavorResponseSchema = z.object({ flavor: flavorSchema });
export const flavorsResponseSchema = z.object({ flavors: z.array(flavorSchema) });

export const keypairSchema = z.object({
  name: z.string(),
  public_key: z.string().optional(),
  fingerprint: z.string().optional(),
});
export const keypairResponseSchema = z.object({ keypair: keypairSchema });
export const keypairsResponseSchema = z.object({
  keypairs: z.array(z.object({ keypair: keypairSchema })),
});
export const keypairCreateSchema = z.object({
  keypair: z.object({ name: z.string(), public_key: z.string().optional() }),
});

export const volumeAttachmentSchema = z.object({
  volumeId: z.string(),
  serverId: z.string(),
  device: z.string().nullish(),
  /** Since 2.79. */
  delete_on_termination: z.boolean().optional(),
});
export type NovaVolumeAttachment = z.infer<typeof volumeAttachmentSchema>;
export const volumeAttachmentResponseSchema = z.object({ volumeAttachment: volumeAttachmentSchema });
export const volumeAttachmentsResponseSchema = z.object({
  volumeAttachments: z.array(volumeAttachmentSchema),
});
export const volumeAttachCreateSchema = z.object({
  volumeAttachment: z.object({
    volumeId: z.string(),
    device: z.string().nullish(),
    delete_on_termination: z.boolean().optional(),
  }),
});

export const metadataBodySchema = z.object({ metadata: z.record(z.string(), z.string()) });
export const metadataItemBodySchema = z.object({ meta: z.record(z.string(), z.string()) });

export const zonesResponseSchema = z.object({
  availabilityZoneInfo: z.array(
    z.object({ zoneName: z.string(), zoneState: z.object({ available: z.boolean() }).optional() }),
  ),
});

export const novaLimitsSchema = z.object({
  limits: z.object({
    absolute: z.object({
      maxTotalInstances: z.number().optional(),
      totalInstancesUsed: z.number().optional(),
      maxServerMeta: z.number().optional(),
    }),
  }),
});
