/**
 * Content of volumes where no machine has them as disks: `volumes/ID.raw`, written by whoever likes to; one that is not there reads as
 * zeroes. It may be shorter than its volume.
 */
import { execFile } from "node:child_process";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { CopyDisks } from "#devcloud/core/snapshots.ts";

export function copyVolumeImages(dataDir: string): CopyDisks {
  return async (wanted, signal) => {
    for (const { volumeId, path } of wanted) {
      const source = join(dataDir, "volumes", `${volumeId}.raw`);
      try {
        await (await open(source, "r")).close();
        await promisify(execFile)("cp", ["--sparse=always", source, path], { signal });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
        await (await open(path, "w", 0o600)).close();
      }
    }
  };
}
