import { OperationalError } from "#kernel/errors.ts";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { checkBlobName, checkBlobPrefix, compareNames } from "./blob-name.ts";
import type { BlobFacts, BlobStorage, ByteRange } from "./blob-storage.ts";

/** A store that lives as long as this value: for tests and simulations. `objects` is open, so that a test can damage them. */
export interface MemoryStorage extends BlobStorage {
  readonly objects: Map<string, { bytes: Buffer; storedAtMs: number }>;
}

export function memoryStorage(clock: Clock = systemClock): MemoryStorage {
  const objects: MemoryStorage["objects"] = new Map();
  const held = (name: string): Buffer => {
    checkBlobName(name);
    const object = objects.get(name);
    if (object === undefined) throw new OperationalError("not_found", `the store has no object ${name}`);
    return object.bytes;
  };
  return {
    description: "memory",
    objects,
    async put(name, parts, signal) {
      signal?.throwIfAborted();
      checkBlobName(name);
      const bytes = Buffer.concat(parts);
      const there = objects.get(name);
      if (there !== undefined) {
        if (there.bytes.equals(bytes)) return "present";
        throw new OperationalError("state.conflict", `the store holds another object ${name}`);
      }
      objects.set(name, { bytes, storedAtMs: clock.now() });
      return "stored";
    },
    async get(name, range, signal) {
      signal?.throwIfAborted();
      return Buffer.from(cut(name, held(name), range));
    },
    async size(name, signal) {
      signal?.throwIfAborted();
      return held(name).length;
    },
    async *list(prefix, signal): AsyncGenerator<BlobFacts> {
      signal?.throwIfAborted();
      checkBlobPrefix(prefix);
      const names = [...objects.keys()].filter((name) => name.startsWith(prefix)).sort(compareNames);
      for (const name of names) {
        const object = objects.get(name);
        if (object !== undefined)
          yield { name, sizeBytes: object.bytes.length, storedAtMs: object.storedAtMs };
      }
    },
    async delete(name, signal) {
      signal?.throwIfAborted();
      checkBlobName(name);
      objects.delete(name);
    },
    async close() {},
  };
}

function cut(name: string, bytes: Buffer, range: ByteRange | undefined): Buffer {
  if (range === undefined) return bytes;
  checkRange(name, bytes.length, range);
  return bytes.subarray(range.offset, range.offset + range.length);
}

/** Throws `disk.range` unless the range lies within the object. */
export function checkRange(name: string, sizeBytes: number, range: ByteRange): void {
  const { offset, length } = range;
  if (!(offset >= 0 && length >= 1 && offset + length <= sizeBytes))
    throw new OperationalError(
      "disk.range",
      `${name} has ${sizeBytes} bytes; ${length} at ${offset} were asked for`,
    );
}
