/**
 * What was written to block devices since the last look, as the kernel's trace of block I/O tells it: each request, as it is queued, with its
 * sectors (Documentation/trace/events.rst, `block:block_bio_queue`). In an instance of its own, so that nobody else's tracing is touched. Whatever
 * could have been missed makes the answer "not known": the whole disk is read then. Not seen: SCSI commands that pass the block
 * layer by (sg), and writes that reach the medium from another machine.
 */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { access, mkdir, open, readdir, readFile, realpath, rmdir, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { DirtyBlocks } from "./dirty-blocks.ts";
import { deviceNumber } from "./source-disk.ts";

const sectorBytes = 512;
const lookEveryMs = 200;

export interface TracedDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Where a disk's sectors are in the trace: a partition's are those of the whole disk. */
interface Place {
  readonly device: string;
  readonly startBytes: number;
  readonly sizeBytes: number;
}

export interface WriteTraceOptions {
  readonly disks: readonly TracedDisk[];
  /** The agent's, for the trace's name: what one that was killed left behind is found and removed. */
  readonly stateFolder: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Where tracefs is mounted. Default: where Linux has it. */
  readonly tracefs?: readonly string[];
  /** For each processor. Default 4096: some 40,000 requests between two looks. */
  readonly bufferKiB?: number;
}

const usualPlaces: readonly string[] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

export type OpenedTrace =
  | { readonly ok: true; readonly trace: WriteTrace }
  /** Why whole disks must be read. */
  | { readonly ok: false; readonly reason: string };

export async function openWriteTrace(options: WriteTraceOptions): Promise<OpenedTrace> {
  const { disks, stateFolder, log } = options;
  let instance: string | undefined;
  try {
    const places: Place[] = [];
    for (const { path, sizeBytes } of disks) {
      const place = await placeOf(path, sizeBytes);
      if (place === undefined) return { ok: false, reason: `${path} is a file, not a block device` };
      places.push(place);
    }
    const instances = await instancesFolder(options.tracefs ?? usualPlaces);
    if (instances === undefined)
      return { ok: false, reason: "tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)" };
    instance = join(instances, await nameOf(stateFolder));
    await removeInstance(instance);
    await mkdir(instance);
    await begin(instance, places, options.bufferKiB ?? 4096);
    return { ok: true, trace: WriteTrace.watch(instance, places, options) };
  } catch (error) {
    if (instance !== undefined) await removeInstance(instance).catch(() => {});
    const reason = `the kernel's trace of block I/O cannot be had: ${(error as Error).message}`;
    log.debug({ error }, reason);
    return { ok: false, reason };
  }
}

async function nameOf(stateFolder: string): Promise<string> {
  const path = await realpath(stateFolder);
  return `understudy-${createHash("sha256").update(path).digest("hex").slice(0, 16)}`;
}

/** Of an agent that was killed: its trace would go on until the machine ends. Nothing where there is none. */
export async function endLeftTrace(stateFolder: string, tracefs = usualPlaces): Promise<void> {
  const instances = await instancesFolder(tracefs);
  if (instances !== undefined) await removeInstance(join(instances, await nameOf(stateFolder)));
}

async function placeOf(path: string, sizeBytes: number): Promise<Place | undefined> {
  const facts = await stat(path);
  if (!facts.isBlockDevice()) return undefined;
  const folder = await realpath(`/sys/dev/block/${deviceNumber(facts.rdev)}`);
  const textOf = async (file: string): Promise<string> => (await readFile(file, "utf8")).trim();
  const isPartition = (await readdir(folder)).includes("partition");
  return {
    device: await textOf(join(isPartition ? dirname(folder) : folder, "dev")),
    startBytes: isPartition ? Number(await textOf(join(folder, "start"))) * sectorBytes : 0,
    sizeBytes,
  };
}

async function instancesFolder(places: readonly string[]): Promise<string | undefined> {
  for (const place of places) {
    const folder = join(place, "instances");
    if (
      await access(folder, constants.W_OK).then(
        () => true,
        () => false,
      )
    )
      return folder;
  }
  return undefined;
}

async function begin(instance: string, places: readonly Place[], bufferKiB: number): Promise<void> {
  const event = join(instance, "events", "block", "block_bio_queue");
  const devices = [...new Set(places.map(({ device }) => device))];
  // The kernel's own number of a device, not that of user space (include/linux/kdev_t.h).
  const numbers = devices.map((device) => {
    const [major = 0, minor = 0] = device.split(":").map(Number);
    return major * 2 ** 20 + minor;
  });
  await writeFile(join(instance, "buffer_size_kb"), String(bufferKiB));
  // Full, it drops what is new and counts that, instead of overwriting what was not read.
  await writeFile(join(instance, "options", "overwrite"), "0");
  const ours = numbers.map((number) => `dev == ${number}`).join(" || ");
  // Writes, writes of zeroes and discards, operations on zones: not reads, of which a pass makes many.
  const changing = ["W", "D", "Z"].map((letter) => `rwbs ~ "*${letter}*"`).join(" || ");
  await writeFile(join(event, "filter"), `(${ours}) && (${changing})`);
  await writeFile(join(event, "enable"), "1");
}

async function removeInstance(instance: string): Promise<void> {
  try {
    await rmdir(instance);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** `... block_bio_queue: 8,16 WS 2048 + 8 [name]`: device, kind, first sector, sectors. The name is its process's to choose. */
const eventText = /block_bio_queue: (\d+),(\d+) [A-Z]+ (\d+) \+ (\d+) \[/gu;

/** Also of a line that a process has broken by its name. */
export function parseEvents(text: string): { device: string; offset: number; length: number }[] {
  const writes: { device: string; offset: number; length: number }[] = [];
  for (const [, major, minor, sector, sectors] of text.matchAll(eventText)) {
    const [offset, length] = [Number(sector) * sectorBytes, Number(sectors) * sectorBytes];
    if (length > 0) writes.push({ device: `${major}:${minor}`, offset, length });
  }
  return writes;
}

export class WriteTrace implements AsyncDisposable {
  readonly #instance: string;
  readonly #places: readonly Place[];
  readonly #options: WriteTraceOptions;
  readonly #stop = new AbortController();
  #dirty: DirtyBlocks[];
  /** While it is true, every write is in `#dirty`, or in the kernel's buffer. */
  #known = false;
  #rest = "";
  #turn: Promise<unknown> = Promise.resolve();
  #watching: Promise<void> = Promise.resolve();

  private constructor(instance: string, places: readonly Place[], options: WriteTraceOptions) {
    this.#instance = instance;
    this.#places = places;
    this.#options = options;
    this.#dirty = places.map(({ sizeBytes }) => new DirtyBlocks(sizeBytes));
  }

  /** Over an instance whose events are enabled. */
  static watch(instance: string, places: readonly Place[], options: WriteTraceOptions): WriteTrace {
    const trace = new WriteTrace(instance, places, options);
    trace.#watching = trace.#watch();
    return trace;
  }

  /**
   * By disk, what was written to since the last call; null: not known. From then on it is, as long as nothing is lost. A request counts
   * from when it was queued: it may still be on its way to the medium when the answer is here.
   */
  async take(): Promise<readonly DirtyBlocks[] | null> {
    await this.#look();
    const known = this.#known;
    const dirty = this.#dirty;
    this.#dirty = this.#places.map(({ sizeBytes }) => new DirtyBlocks(sizeBytes));
    if (known) return dirty;
    await this.#beginAnew();
    return null;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await this.#turn;
    await removeInstance(this.#instance).catch((error: unknown) => {
      this.#options.log.warn({ error }, "the trace of block I/O could not be ended");
    });
  }

  /** Empties the kernel's buffers, and with them what it counted as lost. */
  async #beginAnew(): Promise<void> {
    const done = this.#turn.then(async () => {
      try {
        this.#rest = "";
        await writeFile(join(this.#instance, "trace"), "");
        this.#known = true;
      } catch (error) {
        this.#options.log.warn({ error }, "the trace of block I/O cannot be begun anew");
      }
    });
    this.#turn = done;
    await done;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#options.clock.sleep(lookEveryMs, signal).catch(() => {});
      if (!signal.aborted) await this.#look();
    }
  }

  /** Takes what the kernel has, to its end. One at a time; never rejects. */
  #look(): Promise<void> {
    const done = this.#turn.then(async () => {
      try {
        await this.#drain();
        if (this.#known && !(await this.#lostNothing())) throw new Error("the kernel dropped events");
      } catch (error) {
        if (this.#known) {
          const why = publicMessage(error);
          this.#options.log.warn(
            { error },
            `what was written is not known, whole disks are read next: ${why}`,
          );
        }
        this.#known = false;
      }
    });
    this.#turn = done;
    return done;
  }

  async #drain(): Promise<void> {
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const pipe = await open(join(this.#instance, "trace_pipe"), flags);
    try {
      const buffer = Buffer.alloc(65_536);
      for (;;) {
        const { bytesRead } = await pipe.read(buffer, 0, buffer.length).catch((error: unknown) => {
          if ((error as NodeJS.ErrnoException).code === "EAGAIN") return { bytesRead: 0 };
          throw error;
        });
        if (bytesRead === 0) break;
        const text = this.#rest + buffer.toString("latin1", 0, bytesRead);
        const whole = text.lastIndexOf("\n") + 1;
        this.#rest = text.slice(whole);
        if (text.includes(" [LOST ")) this.#known = false;
        for (const write of parseEvents(text.slice(0, whole))) this.#note(write);
      }
      // The kernel gives whole lines.
      if (this.#rest !== "") throw new Error("the trace ends within a line");
    } finally {
      await pipe.close();
    }
  }

  #note({ device, offset, length }: { device: string; offset: number; length: number }): void {
    for (const [index, place] of this.#places.entries()) {
      if (place.device !== device) continue;
      const from = Math.max(0, offset - place.startBytes);
      const end = Math.min(place.sizeBytes, offset + length - place.startBytes);
      if (end > from) this.#dirty[index]?.add(from, end - from);
    }
  }

  /** The kernel counts, for each processor, what it had no room for. */
  async #lostNothing(): Promise<boolean> {
    const folder = join(this.#instance, "per_cpu");
    for (const processor of await readdir(folder)) {
      const counted = await readFile(join(folder, processor, "stats"), "utf8");
      for (const [, what, number] of counted.matchAll(
        /^(overrun|commit overrun|dropped events): (\d+)$/gmu,
      )) {
        if (Number(number) === 0) continue;
        this.#options.log.debug({ processor, what, number }, "the trace of block I/O lost events");
        return false;
      }
    }
    return true;
  }
}
