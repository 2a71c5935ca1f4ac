/** Reads and writes of one open file at given places: whole ranges, and without holding up the process on a slow disk. */
import { fdatasync, read, readSync, write, writeSync } from "node:fs";
import { promisify } from "node:util";
import { OperationalError } from "#kernel/errors.ts";

const readAsync = promisify(read);
const writeAsync = promisify(write);
export const syncData = promisify(fdatasync);

/** Calls up to this size run in place while the disk is quick. Measured: a hop to the thread pool costs more than 128 KiB from the cache. */
const inPlaceBytes = 128 * 1024;
/** A call in place that took longer than this shows that the data does not come from the cache. Milliseconds. */
const slowMs = 2;
/** After a slow call of T ms, threads are used for this many times T: so the process is held up for 1 % of the time at most. */
const slowFactor = 100;

/**
 * Decides call by call between the quick way (in place, from the page cache) and the thread pool (which does not hold up the other
 * work of the process when the disk must be waited for).
 */
export class FileIo {
  readonly #fd: number;
  #threadsUntil = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Fills the target; what lies behind the file's end reads as zeroes. */
  async readInto(target: Uint8Array, offset: number): Promise<void> {
    let at = 0;
    while (at < target.length) {
      const place = offset + at;
      const length = target.length - at;
      const count = this.#inPlace(length)
        ? this.#timed(() => readSync(this.#fd, target, at, length, place))
        : (await readAsync(this.#fd, target, at, length, place)).bytesRead;
      if (count === 0) {
        target.fill(0, at);
        return;
      }
      at += count;
    }
  }

  async write(data: Uint8Array, offset: number): Promise<void> {
    let at = 0;
    while (at < data.length) {
      const place = offset + at;
      const length = data.length - at;
      const count = this.#inPlace(length)
        ? this.#timed(() => writeSync(this.#fd, data, at, length, place))
        : (await writeAsync(this.#fd, data, at, length, place)).bytesWritten;
      if (count === 0)
        throw new OperationalError("disk.failing", "the disk took no more data", { outcome: "unknown" });
      at += count;
    }
  }

  #inPlace(length: number): boolean {
    return length <= inPlaceBytes && performance.now() >= this.#threadsUntil;
  }

  #timed(call: () => number): number {
    const start = performance.now();
    const count = call();
    const end = performance.now();
    if (end - start > slowMs) this.#threadsUntil = end + slowFactor * (end - start);
    return count;
  }
}
