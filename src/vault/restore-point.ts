import { open } from "node:fs/promises";
import { isMarkedAsUntransferable } from "node:worker_threads";
import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES, type BlobRef, FAN_OUT, type MapEntry } from "./block-ref.ts";
import type { BlockPool } from "./block-pool.ts";
import type { RestoreBlock } from "./block-work.ts";
import { entriesIn, entrySpan } from "./map-node.ts";
import type { OpenPoint } from "./open-point.ts";
import type { VaultContext } from "./vault-context.ts";

/** Where a point's bytes go. What is a hole or zero is not written: the target reads as zeroes before. */
export interface RestoreTarget {
  /** Called side by side, in no order. */
  write(offset: number, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
}

export interface RestoreOptions {
  /** `report`: blocks that cannot be read are left as they are and named in the result. Default: the first one fails the restore. */
  readonly onDamage?: "fail" | "report";
  /** Of a file: flushed to its disk before the call returns. Default true. */
  readonly sync?: boolean;
  readonly onProgress?: (doneBytes: number, totalBytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface RestoreResult {
  readonly writtenBytes: number;
  /** Blocks that could not be read, with what is wrong: empty when all is there. */
  readonly missing: readonly { readonly offset: number; readonly length: number; readonly reason: string }[];
}

/** 4 MiB of disk, as written by one task: neighbours in their pack. */
const TASK_BLOCKS = 16;
const TASKS_AT_ONCE = 8;

type Parts = Pick<VaultContext, "blobs">;

/** Writes all of the point to a new sparse file (or over an existing one), with the threads writing it themselves. */
export async function restoreToFile(
  context: Parts,
  pool: BlockPool,
  point: OpenPoint,
  path: string,
  options: RestoreOptions = {},
): Promise<RestoreResult> {
  await using file = await open(path, "w");
  await file.truncate(point.sizeBytes);
  try {
    const result = await restore(context, pool, point, { path }, options);
    if (options.sync !== false) await file.sync();
    return result;
  } finally {
    // The threads hold the file open.
    await pool.end();
  }
}

export async function restoreTo(
  context: Parts,
  pool: BlockPool,
  point: OpenPoint,
  target: RestoreTarget,
  options: RestoreOptions = {},
): Promise<RestoreResult> {
  return restore(context, pool, point, target, options);
}

async function restore(
  context: Parts,
  pool: BlockPool,
  point: OpenPoint,
  target: RestoreTarget | { readonly path: string },
  options: RestoreOptions,
): Promise<RestoreResult> {
  const missing: { offset: number; length: number; reason: string }[] = [];
  const running = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  let [writtenBytes, doneBytes] = [0, 0];
  const one = async (blocks: readonly Wanted[]): Promise<void> => {
    const bytes = await carryOver(context, pool, blocks, target, options.signal);
    writtenBytes += bytes;
  };
  const each = async (blocks: readonly Wanted[]): Promise<void> => {
    try {
      await one(blocks);
    } catch (error) {
      if (options.onDamage !== "report" || !isOperational(error, "vault.damaged")) throw error;
      // Some block of these is damaged: find out which, and bring the others.
      for (const block of blocks)
        await one([block]).catch((reason: unknown) => {
          if (!isOperational(reason, "vault.damaged")) throw reason;
          missing.push({
            offset: block.offset,
            length: point.map.blockLength(block.offset / BLOCK_BYTES),
            reason: reason.message,
          });
        });
    }
  };
  for await (const found of wanted(point, options, missing)) {
    doneBytes = found.doneBytes;
    options.onProgress?.(doneBytes, point.sizeBytes);
    while (running.size >= TASKS_AT_ONCE) await Promise.race(running);
    if (failure !== undefined || options.signal?.aborted === true) break;
    if (found.blocks.length === 0) continue;
    const task = each(found.blocks)
      .catch((error: unknown) => void (failure ??= { error }))
      .finally(() => running.delete(task));
    running.add(task);
  }
  await Promise.all(running);
  options.signal?.throwIfAborted();
  if (failure !== undefined) throw failure.error;
  options.onProgress?.(point.sizeBytes, point.sizeBytes);
  return { writtenBytes, missing: missing.sort((a, b) => a.offset - b.offset) };
}

interface Wanted {
  readonly offset: number;
  readonly entry: Extract<MapEntry, { kind: "blob" | "patched" }>;
}

/** The blocks that hold something, in the disk's order, in portions. Whole subtrees of holes are one step. */
async function* wanted(
  point: OpenPoint,
  options: RestoreOptions,
  missing: { offset: number; length: number; reason: string }[],
): AsyncGenerator<{ readonly blocks: readonly Wanted[]; readonly doneBytes: number }> {
  const { map, sizeBytes } = point;
  async function* walk(level: number, index: number): ReturnType<typeof wanted> {
    let entries: readonly MapEntry[];
    try {
      entries = await map.nodeAt(level, index, options.signal);
    } catch (error) {
      if (options.onDamage !== "report" || !isOperational(error, "vault.damaged")) throw error;
      const offset = index * entrySpan(level + 1);
      const length = Math.min(sizeBytes, offset + entrySpan(level + 1)) - offset;
      missing.push({ offset, length, reason: error.message });
      return;
    }
    const from = index * entrySpan(level + 1);
    if (entries.every((entry) => entry.kind === "hole" || entry.kind === "zero")) {
      yield { blocks: [], doneBytes: Math.min(sizeBytes, from + entrySpan(level + 1)) };
      return;
    }
    if (level > 0) {
      for (let n = 0; n < entriesIn(sizeBytes, level, index); n += 1) {
        const kind = entries[n]?.kind;
        if (kind === "blob") yield* walk(level - 1, index * FAN_OUT + n);
      }
      return;
    }
    for (let n = 0; n < entries.length; n += TASK_BLOCKS) {
      const blocks = entries.slice(n, n + TASK_BLOCKS).flatMap((entry, at) => {
        const offset = from + (n + at) * BLOCK_BYTES;
        return entry.kind === "blob" || entry.kind === "patched" ? [{ offset, entry }] : [];
      });
      yield { blocks, doneBytes: from + n * BLOCK_BYTES };
    }
  }
  yield* walk(map.rootLevel, 0);
}

/** Fetches, has the threads decode, and writes. Returns the bytes written. */
async function carryOver(
  { blobs }: Parts,
  pool: BlockPool,
  wantedBlocks: readonly Wanted[],
  target: RestoreTarget | { readonly path: string },
  signal: AbortSignal | undefined,
): Promise<number> {
  const refs = wantedBlocks.map(({ entry }) => entry.ref);
  const bundles = [
    ...new Map<string, BlobRef>(
      wantedBlocks.flatMap(({ entry }) =>
        entry.kind === "patched" ? [[entry.patch.bundle.id, entry.patch.bundle]] : [],
      ),
    ).values(),
  ];
  const stored = await blobs.fetchAll(refs, signal);
  const patches = new Map(
    (await blobs.fetchAll(bundles, signal)).map((one, at) => [(bundles[at] as BlobRef).id, one]),
  );
  const blocks = wantedBlocks.map(({ offset, entry }, at): RestoreBlock => {
    const block = stored[at] as NonNullable<(typeof stored)[number]>;
    const bundle = entry.kind === "patched" ? patches.get(entry.patch.bundle.id) : undefined;
    if (entry.kind !== "patched" || bundle === undefined) return { offset, ...block };
    return {
      offset,
      ...block,
      patch: { ref: { ...entry.patch, bundle: bundle.ref }, stored: bundle.stored },
    };
  });
  const all = blocks.flatMap((block) => [
    block.stored,
    ...(block.patch === undefined ? [] : [block.patch.stored]),
  ]);
  // Small buffers lie in Node's pool, which may not be moved to a thread: they are copied.
  const buffers = new Set(
    all
      .map((bytes) => bytes.buffer)
      .filter((buffer) => buffer instanceof ArrayBuffer && !isMarkedAsUntransferable(buffer)),
  ) as Set<ArrayBuffer>;
  const localPath = "path" in target ? target.path : undefined;
  const bytes = refs.reduce((sum, ref) => sum + ref.plainLength, 0);
  const damagedThere = async (error: unknown): Promise<Uint8Array[]> => {
    // A thread met damage. Read here instead: this way follows blobs that were repaired elsewhere.
    if (!isOperational(error, "vault.damaged")) throw error;
    const plain = await blobs.readWithPatches(
      wantedBlocks.map(({ entry }) => entry),
      signal,
    );
    return pool.restore(
      {
        blocks: [],
        plain: plain.map((one, at) => ({ offset: wantedBlocks[at]?.offset ?? 0, bytes: one })),
        localPath,
      },
      [],
    );
  };
  const plain = await pool.restore({ blocks, plain: [], localPath }, [...buffers]).catch(damagedThere);
  if ("write" in target)
    for (const [at, block] of plain.entries()) await target.write(blocks[at]?.offset ?? 0, block, signal);
  return bytes;
}
