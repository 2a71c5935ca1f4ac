/** Glance v2 bodies. Source: Image service API v2. */
import { z } from "zod";

export const imageSchema = z.object({
  id: z.string(),
  name: z.string().nullish(),
  status: z.string(),
  /** From the image's properties, where its owner set it, e.g. `x86_64`. */
  architecture: z.string().nullish(),
  os_hidden: z.boolean().optional(),
  min_disk: z.number().optional(),
  min_ram: z.number().optional(),
});
export type GlanceImage = z.infer<typeof imageSchema>;
export const imagesResponseSchema = z.object({ images: z.array(imageSchema) });
