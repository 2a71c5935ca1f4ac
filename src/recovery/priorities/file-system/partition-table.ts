/**
 * Where file systems may begin on a disk: its partitions by GPT (UEFI specification 2.10, chapter 5) or MBR, or the disk itself. What comes
 * from a disk is not believed: ranges are cut to it, and there are at most 128.
 */
import type { CachedReads } from "./cached-reads.ts";

export interface Partition {
  readonly offset: number;
  readonly length: number;
}

const mostPartitions = 128;
const sectorBytes = 512;
const gptType = 0xee;
const extendedTypes: ReadonlySet<number> = new Set([0x05, 0x0f, 0x85]);

/** The whole disk comes last: a file system may begin there, too. */
export async function findPartitions(disk: CachedReads, signal: AbortSignal): Promise<readonly Partition[]> {
  const whole = { offset: 0, length: disk.sizeBytes };
  const mbr = await disk.read(0, sectorBytes, signal);
  if (mbr === undefined || mbr.readUInt16LE(510) !== 0xaa55) return [whole];
  const entries = mbrEntries(mbr, 0);
  const found = entries.some(({ type }) => type === gptType)
    ? await gptPartitions(disk, signal)
    : await mbrPartitions(disk, entries, signal);
  const sound = found.filter(
    ({ offset, length }) => offset > 0 && length > 0 && offset + length <= disk.sizeBytes,
  );
  return [...sound, whole];
}

interface MbrEntry extends Partition {
  readonly type: number;
}

function mbrEntries(sector: Buffer, base: number): readonly MbrEntry[] {
  return [0, 1, 2, 3].flatMap((number) => {
    const at = 446 + number * 16;
    const type = sector.readUInt8(at + 4);
    if (type === 0) return [];
    const offset = base + sector.readUInt32LE(at + 8) * sectorBytes;
    return [{ type, offset, length: sector.readUInt32LE(at + 12) * sectorBytes }];
  });
}

/** Logical partitions are a list of their own, each naming the next. */
async function mbrPartitions(
  disk: CachedReads,
  entries: readonly MbrEntry[],
  signal: AbortSignal,
): Promise<readonly Partition[]> {
  const found: Partition[] = entries.filter(({ type }) => !extendedTypes.has(type));
  const extended = entries.find(({ type }) => extendedTypes.has(type));
  if (extended === undefined) return found;
  let next: number | undefined = extended.offset;
  for (let step = 0; next !== undefined && step < mostPartitions; step += 1) {
    const sector = await disk.read(next, sectorBytes, signal);
    if (sector === undefined || sector.readUInt16LE(510) !== 0xaa55) break;
    const [logical] = mbrEntries(sector, next);
    if (logical !== undefined && !extendedTypes.has(logical.type)) found.push(logical);
    const link = mbrEntries(sector, extended.offset).find(({ type }) => extendedTypes.has(type));
    next = link?.offset;
  }
  return found.slice(0, mostPartitions);
}

async function gptPartitions(disk: CachedReads, signal: AbortSignal): Promise<readonly Partition[]> {
  for (const sectorSize of [512, 4096]) {
    const header = await disk.read(sectorSize, 92, signal);
    if (header?.toString("latin1", 0, 8) !== "EFI PART") continue;
    const table = Number(header.readBigUInt64LE(72)) * sectorSize;
    const count = Math.min(header.readUInt32LE(80), mostPartitions);
    const entryBytes = header.readUInt32LE(84);
    if (entryBytes < 128 || entryBytes > 4096) return [];
    const found: Partition[] = [];
    for (let number = 0; number < count; number += 1) {
      const entry = await disk.read(table + number * entryBytes, 128, signal);
      if (entry === undefined) break;
      if (entry.subarray(0, 16).every((byte) => byte === 0)) continue;
      const first = Number(entry.readBigUInt64LE(32));
      const last = Number(entry.readBigUInt64LE(40));
      found.push({ offset: first * sectorSize, length: (last - first + 1) * sectorSize });
    }
    return found;
  }
  return [];
}
