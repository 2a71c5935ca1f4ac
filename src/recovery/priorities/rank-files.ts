/** The regions of a disk that the rules want first: its file systems are looked through, those of each partition. */
import type { BlockReader } from "#model/block-device.ts";
import { CachedReads } from "./file-system/cached-reads.ts";
import { findPartitions } from "./file-system/partition-table.ts";
import { defaultExtLimits, ExtFileSystem, type ExtLimits } from "./file-system/read-ext.ts";
import { type FileRule, FileRanking } from "./file-rules.ts";
import { MOST_REGIONS } from "./read-trace.ts";

export interface RankedFiles {
  /** First wanted, first named. */
  readonly regions: readonly number[];
  readonly fileSystems: number;
  readonly files: number;
  readonly matched: number;
  /** Of the disk, to find that out. */
  readonly readBytes: number;
}

/** Errors: those of the disk. A disk without a file system that is understood has no regions. */
export async function rankFiles(
  disk: BlockReader,
  rules: readonly FileRule[],
  nowMs: number,
  signal: AbortSignal,
  limits: ExtLimits = defaultExtLimits,
): Promise<RankedFiles> {
  const reads = new CachedReads(disk);
  const ranking = new FileRanking(rules, nowMs);
  let fileSystems = 0;
  let files = 0;
  for (const partition of await findPartitions(reads, signal)) {
    const system = await ExtFileSystem.open(reads, partition, signal, limits);
    if (system === undefined) continue;
    fileSystems += 1;
    for await (const file of system.files(signal)) {
      files += 1;
      ranking.add(file, system.superblock.lastMounted);
    }
  }
  const { matched } = ranking;
  return { regions: ranking.regions(MOST_REGIONS), fileSystems, files, matched, readBytes: reads.readBytes };
}
