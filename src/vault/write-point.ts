import { OperationalError } from "#kernel/errors.ts";
import type { BlockReader } from "#model/block-device.ts";
import { LARGEST_DISK } from "./block-ref.ts";
import type { BlockPool } from "./block-pool.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { KnownBlobs } from "./known-blobs.ts";
import { holdLease } from "./leases.ts";
import { type Span, mergeSpans } from "./patch-record.ts";
import {
  type PointId,
  type PointManifest,
  decodeManifest,
  encodeManifest,
  makePointId,
  pointObject,
} from "./point-manifest.ts";
import { PointMap } from "./point-map.ts";
import type { VaultContext } from "./vault-context.ts";
import { type MapProgress, writeMap } from "./write-map.ts";
import { WriteSession, newSession } from "./write-session.ts";

/** A file that the vault's threads may read by themselves, which saves a copy of every byte. */
export interface LocalFileReader extends BlockReader {
  readonly localPath: string;
}

export interface PointRequest {
  readonly volumeId: string;
  readonly sizeBytes: number;
  /** The disk as it is to be kept. It must not change while the point is written. */
  readonly source: BlockReader | LocalFileReader;
  /** A point of the same disk: what equals it costs nothing. */
  readonly base?: PointId;
  /** Outside these ranges the disk is what `base` is. Without them, all of the source is read. */
  readonly changed?: readonly Span[];
  /** The moment that the point shows; by default when the writing began. */
  readonly timeMs?: number;
  readonly consistency?: "crash" | "application";
  readonly sequence?: number;
  readonly attributes?: Readonly<Record<string, string>>;
  readonly onProgress?: (progress: PointProgress) => void;
  readonly signal?: AbortSignal;
}

export interface PointProgress {
  /** Of the disk, settled so far: read, or known to be a hole or unchanged. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly readBytes: number;
  /** Read and not known before. */
  readonly newBytes: number;
  /** Durable in the store. */
  readonly storedBytes: number;
}

/** The manifest must reach the store while the lease still holds. */
const COMMIT_MARGIN_MS = 60_000;

/** Writes one point: packs, index, manifest, in this order. What it throws leaves no point behind, unless `outcome` is `unknown`. */
export async function writePoint(
  context: VaultContext,
  pool: BlockPool,
  known: KnownBlobs,
  request: PointRequest,
): Promise<PointManifest> {
  const { clock, random, storage, keys } = context;
  checkRequest(request);
  const timeMs = request.timeMs ?? clock.now();
  const id = makePointId(request.volumeId, timeMs, random.hex(8));
  const session = newSession(random);
  const stop = new AbortController();
  const signal = AbortSignal.any([stop.signal, ...(request.signal === undefined ? [] : [request.signal])]);
  const lease = await holdLease(context, "write", session, request.signal);
  try {
    await known.refresh(signal);
    const base = await openBase(context, request.base, signal);
    const localPath = "localPath" in request.source ? request.source.localPath : undefined;
    const writer = await WriteSession.begin(context, pool, known, session, localPath, signal);
    try {
      const progress: MapProgress = { doneBytes: 0, readBytes: 0 };
      const root = await writeMap({
        session: writer,
        pool,
        blobs: context.blobs,
        source: { reader: request.source, localPath },
        sizeBytes: request.sizeBytes,
        base,
        changed: base === undefined ? undefined : plannedChanges(request, base.sizeBytes),
        progress,
        onProgress: () => request.onProgress?.(progressOf(request, progress, writer)),
        signal,
      });
      await writer.finish();
      const manifest: PointManifest = {
        id,
        volumeId: request.volumeId,
        sizeBytes: request.sizeBytes,
        root,
        timeMs,
        consistency: request.consistency ?? "crash",
        ...(request.sequence === undefined ? {} : { sequence: request.sequence }),
        ...(request.base === undefined ? {} : { base: request.base }),
        attributes: request.attributes ?? {},
        cost: {
          readBytes: progress.readBytes,
          newBytes: writer.newBytes,
          storedBytes: writer.storedBytes,
        },
      };
      lease.check(COMMIT_MARGIN_MS);
      await storage.put(pointObject(id), [encodeManifest(keys, manifest)], signal);
      request.onProgress?.(progressOf(request, progress, writer));
      return manifest;
    } catch (error) {
      stop.abort(error);
      throw error;
    } finally {
      await writer.end();
    }
  } catch (error) {
    // Packs of this session may be missing, and the table knows them.
    known.forget();
    throw error;
  } finally {
    await lease.release();
  }
}

function progressOf(request: PointRequest, progress: MapProgress, writer: WriteSession): PointProgress {
  const { newBytes, storedBytes } = writer;
  return { ...progress, totalBytes: request.sizeBytes, newBytes, storedBytes };
}

function checkRequest({ sizeBytes, source, changed, base }: PointRequest): void {
  const wrong = (what: string): never => {
    throw new OperationalError("input.invalid", what);
  };
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 1 || sizeBytes > LARGEST_DISK)
    wrong(`a disk has 1 to 2^48 bytes, not ${sizeBytes}`);
  if (source.sizeBytes < sizeBytes) wrong(`the source has ${source.sizeBytes} bytes, the point ${sizeBytes}`);
  if (changed !== undefined && base === undefined) wrong("changed ranges mean nothing without a base");
  for (const { offset, length } of changed ?? [])
    if (!(offset >= 0 && length >= 0 && offset + length <= sizeBytes))
      wrong(`the changed range ${offset}+${length} is outside the disk`);
}

/** Where the disk's end moved, the blocks between the old and the new end have changed as well. */
function plannedChanges(request: PointRequest, baseSize: number): Span[] | undefined {
  if (request.changed === undefined) return undefined;
  if (request.sizeBytes === baseSize) return mergeSpans(request.changed);
  const from = Math.floor(Math.min(baseSize, request.sizeBytes) / BLOCK_BYTES) * BLOCK_BYTES;
  return mergeSpans([...request.changed, { offset: from, length: request.sizeBytes - from }]);
}

async function openBase(
  context: VaultContext,
  base: PointId | undefined,
  signal: AbortSignal,
): Promise<PointMap | undefined> {
  if (base === undefined) return undefined;
  const bytes = await context.storage.get(pointObject(base), undefined, signal);
  const manifest = decodeManifest(context.keys, base, bytes);
  return new PointMap(context.blobs, manifest.sizeBytes, manifest.root);
}
