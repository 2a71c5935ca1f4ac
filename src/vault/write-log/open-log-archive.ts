/** What was shipped of a log, read with nothing but the store and the key. */
import { OperationalError } from "#kernel/errors.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { logDamaged } from "./log-damage.ts";
import type { LogHistory } from "./open-moment.ts";
import { noPoints, type PointStore } from "./point-store.ts";
import { type SegmentFile, type SegmentFolder, segmentName } from "./segment-folder.ts";
import { openSegmentShelf } from "./segment-shelf.ts";
import { parseShippedName, shippedPrefix } from "./ship-log.ts";

const readOnly = async (): Promise<never> => {
  throw new OperationalError("state.conflict", "what was shipped is never changed");
};

function shippedFile(storage: BlobStorage, name: string, sizeBytes: number): SegmentFile {
  return {
    read: async (buffer, position) => {
      const length = Math.min(buffer.length, sizeBytes - position);
      if (length <= 0) return 0;
      return (await storage.get(name, { offset: position, length })).copy(buffer);
    },
    sizeBytes: async () => sizeBytes,
    close: async () => {},
    write: readOnly,
    sync: readOnly,
    truncate: readOnly,
  };
}

/** The store's objects of a group as a folder of segments. */
async function shippedFolder(
  storage: BlobStorage,
  group: string,
  signal: AbortSignal | undefined,
): Promise<SegmentFolder> {
  const sizes = new Map<string, number>();
  for await (const { name, sizeBytes } of storage.list(shippedPrefix(group), signal))
    if (parseShippedName(group, name) !== undefined) sizes.set(name, sizeBytes);
  return {
    name: `${storage.description}, ${shippedPrefix(group)}`,
    list: async () => [...sizes.keys()],
    open: async (name) => shippedFile(storage, name, sizes.get(name) ?? 0),
    create: readOnly,
    remove: readOnly,
    syncEntries: readOnly,
    close: async () => {},
  };
}

export interface OpenArchiveOptions {
  readonly storage: BlobStorage;
  readonly group: string;
  readonly logKey: Buffer;
  readonly points: PointStore;
  readonly signal?: AbortSignal;
}

export interface LogArchive extends LogHistory, AsyncDisposable {}

/**
 * Opens a group's log from the store, as of now; later segments are not seen.
 * Errors: `not_found` (nothing was shipped), `vault.key`, `vault.damaged` (also when the last segment is shorter than its name says).
 */
export async function openLogArchive(options: OpenArchiveOptions): Promise<LogArchive> {
  const { storage, group, logKey, points, signal } = options;
  const folder = await shippedFolder(storage, group, signal);
  const { shelf, last } = await openSegmentShelf(folder, logKey, group, signal);
  const segment = shelf.segments.at(-1);
  if (segment === undefined || last === undefined)
    throw new OperationalError("not_found", `${storage.description} holds no write log of ${group}`);
  const named = parseShippedName(group, segment.name)?.last;
  if (last.torn !== undefined || named !== last.nextSequence - 1)
    throw logDamaged(segment.name, last.position, last.torn?.why ?? `it should end with record ${named}`);
  return {
    group,
    shelf,
    points,
    lastRecord: { sequence: last.nextSequence - 1, timeMs: last.lastTimeMs },
    [Symbol.asyncDispose]: () => shelf.close(),
  };
}

export interface RestoreLogOptions extends Omit<OpenArchiveOptions, "points"> {
  /** Bytes that have come, of so many. */
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
}

/**
 * Brings a log's folder back from the store, so that `openWriteLog` goes on where the store ends (`afterLoss`). The folder must be
 * empty; if this is interrupted, empty it and begin again. Errors: as `openLogArchive`, and those of the disk.
 */
export async function restoreLogFolder(
  options: RestoreLogOptions,
  folder: SegmentFolder,
): Promise<{ readonly segments: number; readonly lastSequence: number; readonly lastMs: number }> {
  const { signal, onProgress } = options;
  if ((await folder.list()).length > 0)
    throw new OperationalError("state.conflict", `${folder.name} holds a write log already`);
  await using archive = await openLogArchive({ ...options, points: noPoints });
  const { segments } = archive.shelf;
  const totalBytes = segments.reduce((sum, { end }) => sum + end.position, 0);
  let doneBytes = 0;
  for (const segment of segments) {
    signal?.throwIfAborted();
    const bytes = await options.storage.get(segment.name, undefined, signal);
    const file = await folder.create(segmentName(segment.header.number));
    try {
      await file.write([bytes], 0);
      await file.sync();
    } finally {
      await file.close();
    }
    doneBytes += bytes.length;
    onProgress?.(doneBytes, totalBytes);
  }
  await folder.syncEntries();
  const { sequence, timeMs } = archive.lastRecord;
  return { segments: segments.length, lastSequence: sequence, lastMs: timeMs };
}
