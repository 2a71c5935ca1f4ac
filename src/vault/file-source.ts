import { open } from "node:fs/promises";
import { OperationalError } from "#kernel/errors.ts";
import type { LocalFileReader } from "./write-point.ts";

/** A disk image in a file, or a block device, as a source. Node has no way to ask a file for its holes: all of it is `data`. */
export async function openFileSource(path: string): Promise<LocalFileReader> {
  const file = await open(path, "r");
  const sizeBytes = (await file.stat()).size;
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
    async extents(offset, length) {
      return length === 0 ? [] : [{ offset, length, kind: "data" }];
    },
    async [Symbol.asyncDispose]() {
      await file.close();
    },
  };
}
