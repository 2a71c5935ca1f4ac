/** One hash for each block of a disk: what an agent compares its own disk with. */
import type { BlockReader } from "#model/block-device.ts";
import { encodeLeafRuns, leafOf, type LeafRun } from "#wire/agent/leaf-runs.ts";
import { passBlockBytes } from "#wire/agent/pass-part.ts";

/** Blocks that lie beyond the disk's end are zeroes. */
export async function leavesOf(
  disk: BlockReader,
  firstBlock: number,
  blocks: number,
  signal: AbortSignal,
): Promise<Buffer> {
  const runs: LeafRun[] = [];
  const from = firstBlock * passBlockBytes;
  const to = Math.min(disk.sizeBytes, from + blocks * passBlockBytes);
  const data = from < to ? await blocksWithData(disk, from, to, signal) : new Set<number>();
  let zeroes = 0;
  let leaves: Buffer[] = [];
  const endLeaves = (): void => {
    if (leaves.length > 0) runs.push({ blocks: leaves.length, leaves: Buffer.concat(leaves) });
    leaves = [];
  };
  const endZeroes = (): void => {
    if (zeroes > 0) runs.push({ blocks: zeroes, leaves: null });
    zeroes = 0;
  };
  for (let block = firstBlock; block < firstBlock + blocks; block += 1) {
    if (!data.has(block)) {
      endLeaves();
      zeroes += 1;
      continue;
    }
    endZeroes();
    const at = block * passBlockBytes;
    leaves.push(leafOf(await disk.read(at, Math.min(passBlockBytes, disk.sizeBytes - at), signal)));
  }
  endLeaves();
  endZeroes();
  return encodeLeafRuns(runs);
}

async function blocksWithData(
  disk: BlockReader,
  from: number,
  to: number,
  signal: AbortSignal,
): Promise<ReadonlySet<number>> {
  const blocks = new Set<number>();
  for (const { offset, length, kind } of await disk.extents(from, to - from, signal)) {
    if (kind !== "data") continue;
    const last = Math.floor((offset + length - 1) / passBlockBytes);
    for (let block = Math.floor(offset / passBlockBytes); block <= last; block += 1) blocks.add(block);
  }
  return blocks;
}
