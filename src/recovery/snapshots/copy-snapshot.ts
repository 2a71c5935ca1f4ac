/** Brings the vault's content of a volume to a snapshot: only what differs is asked for, and what has come is never asked for again. */
import type { SnapshotBlock, SnapshotSource } from "#cloud/snapshot-source.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { BlockDevice } from "#model/block-device.ts";
import type { KeptImage, VaultDesk } from "#recovery/vault-desk.ts";
import type { ImageCopy } from "./plan-snapshots.ts";

export interface CopySnapshotOptions {
  readonly source: SnapshotSource;
  readonly desk: VaultDesk;
  readonly group: string;
  readonly lineage: string;
  readonly epoch: number;
  readonly copy: ImageCopy;
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  readonly clock: Clock;
  readonly random: Random;
  /** Up to here it is done; blocks fetched, in bytes. */
  readonly onProgress: (throughBytes: number, fetchedBytes: number) => void;
}

/** After so many blocks it is written down how far it is: what a kill costs at most. */
const blocksPerMark = 32;
const parallel = 8;
/** One block, until the next look at the whole. */
const retries = { attempts: 8, baseMs: 100, capMs: 10_000 };
/** Of one request to the vault that clears. */
const clearBytes = 256 * 1024 * 1024;

/**
 * The instant is a moment of the volume when it returns. Errors: those of the source, once asking again did not help; `state.fenced`;
 * `state.conflict` when the vault's content is another by now.
 */
export async function copySnapshot(options: CopySnapshotOptions, signal: AbortSignal): Promise<void> {
  const { desk, group, lineage, epoch, copy } = options;
  const { snapshot, base } = copy;
  const { sizeBytes } = snapshot;
  await desk.protect(group, { volume: lineage, sizeBytes, epoch }, signal);
  const image = { id: snapshot.id, atMs: snapshot.startedAt, base, throughBytes: copy.fromBytes };
  const { uri } = await desk.takeImage(group, { volume: lineage, epoch, image }, signal);
  await using disk = await options.openDisk(uri, signal);
  let through = copy.fromBytes;
  for (let attempt = 1; ; attempt += 1) {
    const from = through;
    try {
      through = await copyFrom({ ...options, disk, image }, from, (mark) => (through = mark), signal);
      break;
    } catch (error) {
      signal.throwIfAborted();
      // A token that was given a while ago is not taken any more: the list is asked for again, from here on.
      if (!isOperational(error, "cloud.conflict") || attempt >= retries.attempts) throw error;
      if (through > from) attempt = 0;
      await options.clock.sleep(backoffMs(retries, attempt + 1, options.random), signal);
    }
  }
  if (base === null) await clear(disk, through, sizeBytes, signal);
  await disk.flush(signal);
  await desk.completeImage(group, { volume: lineage, epoch, image: snapshot.id }, signal);
  options.onProgress(sizeBytes, 0);
}

interface Copying extends CopySnapshotOptions {
  readonly disk: BlockDevice;
  readonly image: KeptImage;
}

async function copyFrom(
  copying: Copying,
  from: number,
  mark: (throughBytes: number) => void,
  signal: AbortSignal,
): Promise<number> {
  const { source, desk, group, lineage: volume, epoch, disk, image, onProgress } = copying;
  const { id, base } = image;
  let through = from;
  for await (const page of source.changes({ id, base, fromBytes: from }, signal)) {
    for (let at = 0; at < page.length; at += blocksPerMark) {
      const batch = page.slice(at, at + blocksPerMark);
      const fetched = await copyBatch(copying, batch, signal);
      // What a whole image does not name reads as zeroes.
      if (base === null) await clearBetween(disk, through, batch, signal);
      const last = batch.at(-1);
      if (last === undefined) break;
      await disk.flush(signal);
      through = last.offset + last.length;
      await desk.takeImage(group, { volume, epoch, image: { ...image, throughBytes: through } }, signal);
      mark(through);
      onProgress(through, fetched);
    }
  }
  return through;
}

/** Answers how many bytes were fetched. */
async function copyBatch(
  copying: Copying,
  batch: readonly SnapshotBlock[],
  signal: AbortSignal,
): Promise<number> {
  const left = [...batch];
  const failed = new AbortController();
  const either = AbortSignal.any([signal, failed.signal]);
  let fetched = 0;
  const work = async (): Promise<void> => {
    for (let block = left.shift(); block !== undefined && !either.aborted; block = left.shift()) {
      const { offset, length, content } = block;
      if (content.kind === "zero") {
        await copying.disk.zero(offset, length, { signal: either });
        continue;
      }
      const data = await fetchBlock(copying, { offset, length, token: content.token }, either);
      fetched += data.length;
      await copying.disk.write(offset, data, { signal: either });
    }
  };
  const stopped = (error: unknown): never => {
    failed.abort(error);
    throw error;
  };
  // All have ended when this throws: nobody goes on writing.
  const ends = await Promise.allSettled(Array.from({ length: parallel }, () => work().catch(stopped)));
  signal.throwIfAborted();
  if (failed.signal.aborted) throw failed.signal.reason as Error;
  for (const end of ends) if (end.status === "rejected") throw end.reason as Error;
  return fetched;
}

async function fetchBlock(
  { source, image, clock, random }: Copying,
  block: { readonly offset: number; readonly length: number; readonly token: string },
  signal: AbortSignal,
): Promise<Buffer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await source.read(image.id, block, signal);
    } catch (error) {
      signal.throwIfAborted();
      // A token that has expired is no better the next time.
      const hopeless = !isOperational(error) || error.retry === "never" || error.code === "cloud.conflict";
      if (hopeless || attempt >= retries.attempts) throw error;
      await clock.sleep(backoffMs(retries, attempt, random, error.retryAfterMs), signal);
    }
  }
}

async function clearBetween(
  disk: BlockDevice,
  from: number,
  blocks: readonly SnapshotBlock[],
  signal: AbortSignal,
): Promise<void> {
  let at = from;
  for (const { offset, length } of blocks) {
    await clear(disk, at, offset, signal);
    at = offset + length;
  }
}

async function clear(disk: BlockDevice, from: number, to: number, signal: AbortSignal): Promise<void> {
  for (let at = from; at < to; at += clearBytes) {
    await disk.zero(at, Math.min(clearBytes, to - at), { signal });
  }
}
