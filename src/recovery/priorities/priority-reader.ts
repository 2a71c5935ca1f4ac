/**
 * A served disk that fetches what the last start read before it is asked for, and remembers what this start reads. A machine that
 * starts wants little, piece by piece, each behind the one before: from a distant store it waits for every piece. What it will want
 * is fetched side by side instead, while its kernel still boots.
 */
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockReader, Extent } from "#model/block-device.ts";
import type { BootReads } from "./boot-reads.ts";
import { MOST_REGIONS, ReadTrace, REGION_BYTES } from "./read-trace.ts";

export interface PriorityReaderOptions {
  /** Disposed of with this one. */
  readonly reader: BlockReader;
  readonly volume: string;
  readonly bootReads: BootReads;
  /** What the rules want of its files; fetched after what a start read. */
  readonly fileReads?: BootReads;
  readonly clock: Clock;
  readonly log: Log;
  /** A start is over so long after its first read, in milliseconds. */
  readonly startMs?: number;
}

const START_MS = 30_000;
const SAVE_LIMIT_MS = 5000;
/** Regions on their way at once. */
const AT_ONCE = 8;

interface Held {
  readonly bytes: Promise<Buffer>;
  /** What was read of it: when all was, it is let go. */
  readBytes: number;
}

export class PriorityReader implements BlockReader {
  readonly #options: PriorityReaderOptions;
  readonly #held = new Map<number, Held>();
  readonly #stop = new AbortController();
  #trace: ReadTrace | undefined;
  #recording: Promise<void> | undefined;
  #warming: Promise<void> | undefined;

  constructor(options: PriorityReaderOptions) {
    this.#options = options;
  }

  get sizeBytes(): number {
    return this.#options.reader.sizeBytes;
  }

  /**
   * A machine is about to start from it: begins to fetch what the last start read and then what the rules want, and to remember what this one reads. At most
   * 256 MiB are held. Nothing of it failing is anybody's concern but a log's.
   */
  expectStart(): void {
    this.#trace ??= new ReadTrace();
    if (this.#warming !== undefined) return;
    this.#warming = this.#warm()
      .catch((error: unknown) => {
        if (!this.#stop.signal.aborted)
          this.#options.log.warn({ err: error, volume: this.#options.volume }, "nothing was fetched first");
      })
      .finally(() => {
        this.#warming = undefined;
      });
  }

  async read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    this.#note(offset, length);
    return (await this.#fromHeld(offset, length)) ?? this.#options.reader.read(offset, length, signal);
  }

  extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    return this.#options.reader.extents(offset, length, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.all([this.#warming, this.#recording]);
    this.#held.clear();
    await this.#options.reader[Symbol.asyncDispose]();
  }

  async #warm(): Promise<void> {
    const { bootReads, fileReads } = this.#options;
    const wanted = await Promise.all([this.#load(bootReads), this.#load(fileReads)]);
    const regions = [...new Set(wanted.flat())]
      .filter((region) => region * REGION_BYTES < this.sizeBytes)
      .slice(0, MOST_REGIONS);
    const queue = regions.values();
    const lane = async (): Promise<void> => {
      for (const region of queue) {
        if (this.#stop.signal.aborted) return;
        if (!this.#held.has(region)) await this.#fetch(region);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, lane));
  }

  /** One that cannot be read leaves what the other says. */
  async #load(reads: BootReads | undefined): Promise<readonly number[]> {
    const { volume, log } = this.#options;
    try {
      return (await reads?.load(volume, this.#stop.signal)) ?? [];
    } catch (error) {
      if (!this.#stop.signal.aborted) log.warn({ err: error, volume }, "what to fetch first is not known");
      return [];
    }
  }

  async #fetch(region: number): Promise<void> {
    const offset = region * REGION_BYTES;
    const length = Math.min(REGION_BYTES, this.sizeBytes - offset);
    const bytes = this.#options.reader.read(offset, length, this.#stop.signal);
    this.#held.set(region, { bytes, readBytes: 0 });
    // Whoever wants it asks the disk itself, and is told why it fails.
    await bytes.catch(() => this.#held.delete(region));
  }

  /** Undefined unless every part is held or on its way. */
  async #fromHeld(offset: number, length: number): Promise<Buffer | undefined> {
    const first = Math.floor(offset / REGION_BYTES);
    const last = Math.floor((offset + length - 1) / REGION_BYTES);
    const parts: Promise<Buffer>[] = [];
    for (let region = first; region <= last; region += 1) {
      const held = this.#held.get(region);
      if (held === undefined) return undefined;
      parts.push(held.bytes);
    }
    try {
      const whole = Buffer.concat(await Promise.all(parts));
      for (let region = first; region <= last; region += 1) this.#count(region, offset, length);
      const start = offset - first * REGION_BYTES;
      return whole.subarray(start, start + length);
    } catch {
      return undefined;
    }
  }

  #count(region: number, offset: number, length: number): void {
    const held = this.#held.get(region);
    if (held === undefined) return;
    const start = region * REGION_BYTES;
    const end = Math.min(start + REGION_BYTES, this.sizeBytes);
    held.readBytes += Math.min(offset + length, end) - Math.max(offset, start);
    if (held.readBytes >= end - start) this.#held.delete(region);
  }

  #note(offset: number, length: number): void {
    if (this.#trace === undefined) return;
    this.#trace.note(offset, length);
    this.#recording ??= this.#record();
  }

  /** What a start read that was cut short is kept too, if it read anything. */
  async #record(): Promise<void> {
    const { clock, bootReads, volume, log, startMs = START_MS } = this.#options;
    await clock.sleep(startMs, this.#stop.signal).catch(() => {});
    const regions = this.#trace?.regions ?? [];
    this.#trace = undefined;
    this.#recording = undefined;
    if (regions.length === 0) return;
    // Also when the disk is closed: whoever closes it does not wait long for a store that does not answer.
    const limit = deadlineAfter(clock, SAVE_LIMIT_MS);
    await bootReads
      .save(volume, regions, limit.signal)
      .catch((error: unknown) =>
        log.warn({ err: error, volume }, "what this start read could not be kept for the next one"),
      );
    limit.cancel();
  }
}
