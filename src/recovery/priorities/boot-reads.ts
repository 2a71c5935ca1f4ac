/** What the last start of a machine read of each volume, kept beside the group's log. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { MOST_REGIONS } from "./read-trace.ts";

const schema = z.strictObject({
  format: z.literal(1),
  regions: z.array(z.int().nonnegative()).max(MOST_REGIONS),
});

export interface BootReads {
  /** Empty when none was kept, or what was kept cannot be understood: it only says what to fetch first. */
  load(volume: string): Promise<readonly number[]>;
  /** Durable when it returns. Errors: `store.failing`. */
  save(volume: string, regions: readonly number[]): Promise<void>;
}

export function openBootReads(folder: string): BootReads {
  const pathOf = (volume: string): string => join(folder, `${encodeURIComponent(volume)}.json`);
  return {
    async load(volume) {
      const text = await readFileIfAny(pathOf(volume));
      if (text === null) return [];
      try {
        return schema.parse(JSON.parse(text)).regions;
      } catch {
        return [];
      }
    },
    async save(volume, regions) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await replaceFile(pathOf(volume), JSON.stringify({ format: 1, regions }));
    },
  };
}
