import { z } from "zod";

/** `512MiB`, `10GiB`, `1TiB` -> bytes. */
export const byteSize = z
  .string()
  .regex(/^\d+(\.\d+)?(KiB|MiB|GiB|TiB)$/u, "a size looks like 512MiB, 10GiB or 1TiB")
  .transform((text) => {
    const unit = ["KiB", "MiB", "GiB", "TiB"].indexOf(text.slice(-3)) + 1;
    return Math.round(Number.parseFloat(text) * 1024 ** unit);
  });
