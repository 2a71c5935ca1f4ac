import { execFile } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";
import { promisify } from "node:util";
import { z } from "zod";
import { OperationalError } from "#kernel/errors.ts";
import type { Extent } from "#model/block-device.ts";
import type { LocalFileReader } from "./write-point.ts";

const run = promisify(execFile);
const mapSchema = z.array(z.object({ start: z.int(), length: z.int(), data: z.boolean() }));

/**
 * A disk image in a file, or a block device, as a source. Node has no way to ask a file for its holes (lseek's SEEK_HOLE); for a sparse file
 * `qemu-img map` is asked if it is there, else all counts as data, which costs time and nothing else.
 */
export async function openFileSource(path: string): Promise<LocalFileReader> {
  const file = await open(path, "r");
  try {
    const facts = await file.stat();
    const sizeBytes = facts.isBlockDevice() ? await endOf(file) : facts.size;
    const sparse = facts.isFile() && facts.blocks * 512 < facts.size;
    return fileReader(file, path, sizeBytes, sparse);
  } catch (error) {
    await file.close();
    throw error;
  }
}

function fileReader(file: FileHandle, path: string, sizeBytes: number, sparse: boolean): LocalFileReader {
  // Asked for once, and only by those who read it all.
  let holes: Promise<readonly Extent[]> | undefined = sparse ? undefined : Promise.resolve([]);
  return {
    sizeBytes,
    localPath: path,
    async read(offset, length, signal) {
      signal?.throwIfAborted();
      const buffer = Buffer.allocUnsafeSlow(length);
      for (let done = 0; done < length;) {
        const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
        if (bytesRead === 0) throw new OperationalError("disk.range", `${path} ended at ${offset + done}`);
        done += bytesRead;
      }
      return buffer;
    },
    async extents(offset, length, signal) {
      holes ??= holesOf(path, signal).catch((error: unknown) => {
        holes = undefined;
        throw error;
      });
      return cutExtents(await holes, offset, length);
    },
    async [Symbol.asyncDispose]() {
      await file.close();
    },
  };
}

/** Sorted holes, and data between them, within the range. */
function cutExtents(holes: readonly Extent[], offset: number, length: number): Extent[] {
  const extents: Extent[] = [];
  const end = offset + length;
  let at = offset;
  for (const hole of holes) {
    const [from, until] = [Math.max(hole.offset, offset), Math.min(hole.offset + hole.length, end)];
    if (from >= until) continue;
    if (from > at) extents.push({ offset: at, length: from - at, kind: "data" });
    extents.push({ offset: from, length: until - from, kind: "hole" });
    at = until;
  }
  if (at < end) extents.push({ offset: at, length: end - at, kind: "data" });
  return extents;
}

async function holesOf(path: string, signal: AbortSignal | undefined): Promise<Extent[]> {
  try {
    const argv = ["map", "--output=json", "-f", "raw", "-U", path];
    const { stdout } = await run("qemu-img", argv, {
      maxBuffer: 64 * 1024 * 1024,
      ...(signal === undefined ? {} : { signal }),
    });
    return mapSchema
      .parse(JSON.parse(stdout))
      .filter((extent) => !extent.data)
      .map(({ start, length }) => ({ offset: start, length, kind: "hole" }));
  } catch {
    signal?.throwIfAborted();
    return [];
  }
}

/** A block device's size: stat does not say it. Found by reading: the last byte that can be read. */
async function endOf(file: FileHandle): Promise<number> {
  const probe = Buffer.alloc(1);
  const readable = async (offset: number): Promise<boolean> =>
    (await file.read(probe, 0, 1, offset)).bytesRead === 1;
  let [low, high] = [0, 512];
  while (await readable(high - 1)) [low, high] = [high, high * 2];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (await readable(middle - 1)) low = middle;
    else high = middle;
  }
  return low;
}
