/** Cinder v3 bodies, base microversion. Source: Block Storage API v3. */
import { z } from "zod";

export const volumeSchema = z.object({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string(),
  /** GiB. */
  size: z.number(),
  volume_type: z.string().nullish(),
  availability_zone: z.string().nullish(),
  snapshot_id: z.string().nullish(),
  encrypted: z.boolean().optional(),
  bootable: z.union([z.string(), z.boolean()]).optional(),
  metadata: z.record(z.string(), z.string()).default({}),
  attachments: z
    .array(
      z.object({
        server_id: z.string().nullish(),
        device: z.string().nullish(),
        volume_id: z.string().optional(),
      }),
    )
    .default([]),
});
export type CinderVolume = z.infer<typeof volumeSchema>;
export const volumeResponseSchema = z.object({ volume: volumeSchema });
export const volumesResponseSchema = z.object({ volumes: z.array(volumeSchema) });

export const volumeCreateSchema = z.object({
  volume: z.object({
    size: z.union([z.number(), z.string()]).nullish(),
    name: z.string().nullish(),
    volume_type: z.string().nullish(),
    availability_zone: z.string().nullish(),
    snapshot_id: z.string().nullish(),
    source_volid: z.string().nullish(),
    imageRef: z.string().nullish(),
    metadata: z.record(z.string(), z.string()).nullish(),
  }),
});

export const volumeTypesResponseSchema = z.object({
  volume_types: z.array(z.object({ id: z.string(), name: z.string() })),
});

export const snapshotSchema = z.object({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string(),
  size: z.number(),
  volume_id: z.string(),
  metadata: z.record(z.string(), z.string()).default({}),
});
export const snapshotsResponseSchema = z.object({ snapshots: z.array(snapshotSchema) });
