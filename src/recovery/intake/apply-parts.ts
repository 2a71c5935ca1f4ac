/**
 * Writes staged parts into the write log as images of the disks, so that what follows (moments, points, retention, recovery) knows no
 * difference: their moments bear the pass's instant, however late it came. While it does, no moment between two passes can be named.
 */
import type { BlockDevice } from "#model/block-device.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { decodePart, type PassVolume } from "#wire/agent/pass-part.ts";
import type { PartStage } from "./part-stage.ts";

export interface ApplyOptions {
  readonly desk: VaultDesk;
  readonly group: string;
  readonly epoch: number;
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  readonly stage: PartStage;
  readonly numbers: readonly number[];
  /** What the parts show once all of them are written: of all these disks, also those that have not changed. */
  readonly image: {
    readonly id: string;
    readonly atMs: number;
    readonly volumes: readonly PassVolume[];
    /** False: more of it is to come. */
    readonly ends: boolean;
  };
}

/**
 * A write is answered when it is durable, so that many at once cost little more than one. No block stands twice in a part, and between two
 * parts nothing is under way: the later one counts.
 */
const writesAtOnce = 32;

/** Written again, it is as it was. Errors: `state.fenced` once the environment has moved, those of the log. */
export async function applyParts(options: ApplyOptions, signal: AbortSignal): Promise<void> {
  const { stage, numbers, image, desk, group, epoch, openDisk } = options;
  const { id, atMs } = image;
  const uris = new Map<string, string>();
  // All begin before the first one may be whole again: a moment has all of them, or none.
  for (const { volume } of image.volumes) {
    const wanted = { id, atMs, base: null, throughBytes: 0 };
    uris.set(volume, (await desk.takeImage(group, { volume, epoch, image: wanted }, signal)).uri);
  }
  const disks = new Map<string, BlockDevice>();
  try {
    for (const number of numbers) {
      const { header, records } = decodePart(await stage.read(number));
      const disksOf = async (index: number): Promise<BlockDevice | undefined> => {
        const name = header.volumes[index]?.volume ?? "";
        const uri = uris.get(name);
        // Of a disk that the agent sends no more: it was let go.
        if (uri === undefined) return undefined;
        const disk = disks.get(name) ?? (await openDisk(uri, signal));
        disks.set(name, disk);
        return disk;
      };
      for (let at = 0; at < records.length; at += writesAtOnce) {
        signal.throwIfAborted();
        const writes: Promise<void>[] = [];
        for (const { volume, offset, length, data } of records.slice(at, at + writesAtOnce)) {
          const disk = await disksOf(volume);
          if (disk === undefined) continue;
          writes.push(
            data === null ? disk.trim(offset, length, { signal }) : disk.write(offset, data, { signal }),
          );
        }
        await settled(writes);
      }
    }
    // A client may hold writes back until it is told not to.
    for (const disk of disks.values()) await disk.flush(signal);
  } finally {
    for (const disk of disks.values()) await disk[Symbol.asyncDispose]();
  }
  if (!image.ends) return;
  for (const { volume } of image.volumes)
    await desk.completeImage(group, { volume, epoch, image: id }, signal);
}

/** None is under way any more when it returns or throws. */
async function settled(writes: readonly Promise<void>[]): Promise<void> {
  for (const result of await Promise.allSettled(writes)) {
    if (result.status === "rejected") throw result.reason;
  }
}
