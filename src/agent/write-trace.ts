/**
 * What was written to block devices since the last look, as the kernel's trace of block I/O tells it: each request, as it is queued, with its
 * sectors (Documentation/trace/events.rst, `block:block_bio_queue`). In an instance of its own, so that nobody else's tracing is touched.
 * Whatever could have been missed makes the answer "not known": the whole disk is read then. The kernel's count of sectors written
 * (Documentation/admin-guide/iostats.rst) must not have grown by more than was traced.
 */
import { constants } from "node:fs";
import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rmdir,
  stat,
  writeFile,
} from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { DirtyBlocks } from "./dirty-blocks.ts";
import { deviceNumber } from "./source-disk.ts";

const sectorBytes = 512;
/** The kernel's memory, over all processors: some 300,000 requests between two looks. */
const bufferBytes = 32 * 1024 * 1024;
const lookEveryMs = 200;
/** Of one look: who writes faster than that is not followed. */
const lookBytes = 256 * 1024 * 1024;
/** How long requests that were queued before the trace are waited for. */
const settleMs = 30_000;

export interface TracedDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Where a disk's sectors are in the trace: a partition's are those of the whole disk. */
interface Place {
  /** `MAJOR:MINOR` of the whole disk. */
  readonly device: string;
  /** Of the disk itself, under /sys. */
  readonly folder: string;
  readonly startBytes: number;
  /** Another number once another medium is behind the same name (Documentation/ABI/testing/sysfs-block, `diskseq`). */
  readonly medium: string;
}

export interface WriteTraceOptions {
  readonly disks: readonly TracedDisk[];
  /** The agent's, for the trace's name: what one that was killed left behind is found and removed. */
  readonly stateFolder: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Where tracefs is mounted. Default: where Linux has it. */
  readonly tracefs?: readonly string[];
  /** Of the kernel's memory, for each processor. */
  readonly bufferKiB?: number;
}

const usualPlaces: readonly string[] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/** Errors: `state.conflict`, whose message says why whole disks must be read. */
export async function openWriteTrace(options: WriteTraceOptions): Promise<WriteTrace> {
  let instance: string | undefined;
  let pipe: FileHandle | undefined;
  try {
    const places: Place[] = [];
    for (const { path } of options.disks) places.push(await placeOf(path));
    const instances = await instancesFolder(options.tracefs ?? usualPlaces);
    if (instances === undefined)
      throw unfit("tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)");
    const name = join(instances, await nameOf(options.stateFolder));
    await removeInstance(name);
    await mkdir(name);
    instance = name;
    const perProcessor = Math.ceil(bufferBytes / 1024 / availableParallelism());
    await begin(instance, places, options.bufferKiB ?? Math.max(256, Math.min(4096, perProcessor)));
    // Kept open: an instance that is read cannot be removed.
    pipe = await open(join(instance, "trace_pipe"), constants.O_RDONLY | constants.O_NONBLOCK);
    return new WriteTrace(instance, pipe, places, options);
  } catch (error) {
    await pipe?.close();
    if (instance !== undefined) await removeInstance(instance).catch(() => {});
    if (isOperational(error, "state.conflict")) throw error;
    const message = `the kernel's trace of block I/O cannot be had: ${(error as Error).message}`;
    throw new OperationalError("state.conflict", message, { cause: error });
  }
}

/** Of an agent that was killed: its trace would go on until the machine ends. Nothing where there is none. */
export async function endLeftTrace(stateFolder: string, tracefs = usualPlaces): Promise<void> {
  const instances = await instancesFolder(tracefs);
  if (instances !== undefined) await removeInstance(join(instances, await nameOf(stateFolder)));
}

/** Another text once one of the paths leads to another device, or another medium. */
export async function mediaOf(disks: readonly TracedDisk[]): Promise<string> {
  const places: unknown[] = [];
  for (const { path, sizeBytes } of disks) {
    const place = await placeOf(path).catch(() => null);
    places.push([path, sizeBytes, place]);
  }
  return JSON.stringify(places);
}

function unfit(message: string): OperationalError {
  return new OperationalError("state.conflict", message);
}

async function nameOf(stateFolder: string): Promise<string> {
  const { dev, ino } = await stat(await realpath(stateFolder), { bigint: true });
  return `understudy-${dev.toString(16)}-${ino.toString(16)}`;
}

async function placeOf(path: string): Promise<Place> {
  const facts = await stat(path);
  if (!facts.isBlockDevice()) throw unfit(`${path} is a file, not a block device`);
  const folder = await realpath(`/sys/dev/block/${deviceNumber(facts.rdev)}`);
  const isPartition = (await readdir(folder)).includes("partition");
  const whole = isPartition ? dirname(folder) : folder;
  // Stores to mapped memory are no requests, and operations on zones have no sectors.
  if ((await textOf(join(whole, "queue", "dax"))) === "1")
    throw unfit(`${path} can be mapped into memory (DAX)`);
  if (!["", "none"].includes(await textOf(join(whole, "queue", "zoned")))) throw unfit(`${path} has zones`);
  return {
    device: await textOf(join(whole, "dev")),
    folder,
    startBytes: isPartition ? Number(await textOf(join(folder, "start"))) * sectorBytes : 0,
    medium: await textOf(join(whole, "diskseq")),
  };
}

/** Empty where an older kernel has no such file. */
async function textOf(file: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return "";
    throw error;
  }
}

async function instancesFolder(places: readonly string[]): Promise<string | undefined> {
  for (const place of places) {
    const folder = join(place, "instances");
    if ((await stat(folder).catch(() => undefined))?.isDirectory() === true) return folder;
  }
  return undefined;
}

/** What a look relies on: whoever changes it ends what is known. */
async function begin(instance: string, places: readonly Place[], bufferKiB: number): Promise<void> {
  await writeFile(join(instance, "buffer_size_kb"), String(bufferKiB));
  // Full, it drops what is new and counts that, instead of overwriting what was not read.
  await writeFile(join(instance, "options", "overwrite"), "0");
  // An instance begins with the options that somebody gave to the whole machine's trace.
  for (const form of ["raw", "hex", "bin", "fields"])
    await writeFile(join(instance, "options", form), "0").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
  const event = eventIn(instance);
  // The kernel's own number of a device, not that of user space (include/linux/kdev_t.h).
  const numbers = new Set(
    places.map(({ device }) => {
      const [major = 0, minor = 0] = device.split(":").map(Number);
      return major * 2 ** 20 + minor;
    }),
  );
  const ours = [...numbers].map((number) => `dev == ${number}`).join(" || ");
  // Everything but reads, of which a pass makes many: what the kernel has no letter for (zeroes to be written) is `N`.
  await writeFile(join(event, "filter"), `(${ours}) && !(rwbs ~ "R*")`);
  await writeFile(join(event, "enable"), "1");
}

const eventIn = (instance: string): string => join(instance, "events", "block", "block_bio_queue");

async function removeInstance(instance: string): Promise<void> {
  try {
    await rmdir(instance);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

interface TracedWrite {
  readonly device: string;
  readonly offset: number;
  readonly length: number;
}

/** `... block_bio_queue: 8,16 WS 2048 + 8 [name]`: device, kind, first sector, sectors. The name is its process's to choose. */
const eventText = /block_bio_queue: (\d+),(\d+) [A-Z]+ (\d+) \+ (\d+) \[/gu;

function parseEvents(text: string): TracedWrite[] {
  return Array.from(text.matchAll(eventText), ([, major, minor, sector, sectors]) => ({
    device: `${major}:${minor}`,
    offset: Number(sector) * sectorBytes,
    length: Number(sectors) * sectorBytes,
  }));
}

/** What was noted of one disk. */
interface Noted {
  blocks: DirtyBlocks;
  /** Since `known`: traced, and counted by the kernel before. */
  tracedSectors: number;
  countedBefore: number;
}

export class WriteTrace implements AsyncDisposable {
  readonly #instance: string;
  readonly #pipe: FileHandle;
  readonly #places: readonly Place[];
  readonly #options: WriteTraceOptions;
  readonly #stop = new AbortController();
  readonly #noted: Noted[];
  readonly #watching: Promise<void>;
  /** While it is true, every write is in `#noted`, or in the kernel's buffer. */
  #known = false;
  #filter = "";
  #lostBefore = 0;
  #rest = "";
  #turn: Promise<unknown> = Promise.resolve();

  /** Over an instance whose events are enabled; see `openWriteTrace`. */
  constructor(instance: string, pipe: FileHandle, places: readonly Place[], options: WriteTraceOptions) {
    this.#instance = instance;
    this.#pipe = pipe;
    this.#places = places;
    this.#options = options;
    this.#noted = options.disks.map(({ sizeBytes }) => ({
      blocks: new DirtyBlocks(sizeBytes),
      tracedSectors: 0,
      countedBefore: 0,
    }));
    this.#watching = this.#watch();
  }

  /**
   * By disk, what was written to since the last call; null: not known. From then on it is, as long as nothing is lost. A request counts
   * from when it was queued: it may still be on its way to the medium when the answer is here. Rejects when the trace is broken.
   */
  take(): Promise<readonly DirtyBlocks[] | null> {
    return this.#inTurn(async () => {
      const counted = await this.#counted();
      await this.#drain();
      if (this.#known) await this.#check(counted);
      const taken = this.#noted.map((noted, at) => {
        const { blocks } = noted;
        noted.blocks = new DirtyBlocks(this.#options.disks[at]?.sizeBytes ?? 0);
        return blocks;
      });
      if (this.#known) return taken;
      await this.#beginAnew();
      return null;
    });
  }

  /**
   * Waits for a moment at which no write is on its way: what was queued before the trace began is on the medium then. False: there was
   * none. Two looks: a request that waits to be sent is not counted by every kernel.
   */
  async settled(signal: AbortSignal): Promise<boolean> {
    const { clock } = this.#options;
    const end = clock.monotonicMs() + settleMs;
    for (const { folder } of this.#places) {
      for (let quiet = 0; quiet < 2;) {
        const [, writes] = (await readFile(join(folder, "inflight"), "utf8")).trim().split(/\s+/u);
        quiet = Number(writes) === 0 ? quiet + 1 : 0;
        if (clock.monotonicMs() > end) return false;
        await clock.sleep(20, signal);
      }
    }
    return true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#watching;
    await this.#turn;
    await this.#pipe.close();
    await removeInstance(this.#instance).catch((error: unknown) => {
      this.#options.log.warn({ error }, "the trace of block I/O could not be ended");
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** So that the kernel's buffers do not fill between two takes. */
  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await this.#options.clock.sleep(lookEveryMs, signal).catch(() => {});
      if (!signal.aborted) await this.#inTurn(() => this.#drain());
    }
  }

  #lost(why: string): void {
    if (this.#known)
      this.#options.log.warn({ why }, "what was written is not known: whole disks are read next");
    this.#known = false;
  }

  /** Never rejects. */
  async #drain(): Promise<void> {
    const buffer = Buffer.alloc(65_536);
    try {
      for (let bytes = 0; ;) {
        const { bytesRead } = await this.#pipe
          .read(buffer, 0, buffer.length, null)
          .catch((error: unknown) => {
            if ((error as NodeJS.ErrnoException).code === "EAGAIN") return { bytesRead: 0 };
            throw error;
          });
        if (bytesRead === 0) break;
        this.#read(buffer.toString("latin1", 0, bytesRead));
        bytes += bytesRead;
        if (bytes > lookBytes) {
          this.#lost("more is written than can be followed");
          return;
        }
      }
      // The kernel gives whole lines.
      if (this.#rest !== "") this.#lost("the trace ends within a line");
    } catch (error) {
      this.#lost((error as Error).message);
    }
  }

  #read(piece: string): void {
    const text = this.#rest + piece;
    const whole = text.lastIndexOf("\n") + 1;
    this.#rest = text.slice(whole);
    if (whole === 0) return;
    const writes = parseEvents(text.slice(0, whole));
    if (writes.length === 0 || text.includes(" [LOST "))
      this.#lost("the trace has lines that are no requests");
    for (const write of writes) this.#note(write);
  }

  #note({ device, offset, length }: TracedWrite): void {
    for (const [at, place] of this.#places.entries()) {
      const noted = this.#noted[at];
      if (place.device !== device || noted === undefined) continue;
      const sizeBytes = this.#options.disks[at]?.sizeBytes ?? 0;
      const from = Math.max(0, offset - place.startBytes);
      const end = Math.min(sizeBytes, offset + length - place.startBytes);
      if (end <= from) continue;
      noted.blocks.add(from, end - from);
      noted.tracedSectors += (end - from) / sectorBytes;
    }
  }

  /** Sectors written and discarded, as the kernel counts them when they are done; for each disk. */
  async #counted(): Promise<readonly number[]> {
    return Promise.all(
      this.#places.map(async ({ folder }) => {
        const fields = (await readFile(join(folder, "stat"), "utf8")).trim().split(/\s+/u).map(Number);
        return (fields[6] ?? 0) + (fields[13] ?? 0);
      }),
    );
  }

  /** `counted` was read before the trace was: what it counts had been queued. */
  async #check(counted: readonly number[]): Promise<void> {
    const more = this.#noted.find(
      ({ tracedSectors, countedBefore }, at) => (counted[at] ?? 0) - countedBefore > tracedSectors,
    );
    if (more !== undefined) this.#lost("the kernel counts more writes than it traced");
    if ((await this.#dropped()) !== this.#lostBefore) this.#lost("the kernel dropped events");
    if ((await this.#switches()) !== this.#filter) this.#lost("somebody changed the agent's trace");
  }

  async #switches(): Promise<string> {
    const event = eventIn(this.#instance);
    const files = [join(this.#instance, "tracing_on"), join(event, "enable"), join(event, "filter")];
    return (await Promise.all(files.map(textOf))).join("\n");
  }

  /** What the kernel had no room for, on any processor. */
  async #dropped(): Promise<number> {
    const folder = join(this.#instance, "per_cpu");
    let sum = 0;
    for (const processor of await readdir(folder)) {
      const text = await readFile(join(folder, processor, "stats"), "utf8");
      for (const [, number] of text.matchAll(/^(?:overrun|commit overrun|dropped events): (\d+)$/gmu))
        sum += Number(number);
    }
    return sum;
  }

  /** What is counted and not traced now was queued before: it counts as traced. */
  async #beginAnew(): Promise<void> {
    this.#rest = "";
    await writeFile(join(this.#instance, "trace"), "");
    this.#filter = await this.#switches();
    if (!/^1\n1\n\(dev/u.test(this.#filter)) throw unfit("somebody switched the agent's trace off");
    this.#lostBefore = await this.#dropped();
    const counted = await this.#counted();
    const underWay = await Promise.all(this.#places.map(sectorsUnderWay));
    for (const [at, noted] of this.#noted.entries()) {
      noted.countedBefore = (counted[at] ?? 0) + (underWay[at] ?? 0);
      noted.tracedSectors = 0;
    }
    this.#known = true;
  }
}

/** At most: how large a request may be that is on its way is the queue's to say. */
async function sectorsUnderWay({ folder }: Place): Promise<number> {
  const [, writes] = (await textOf(join(folder, "inflight"))).split(/\s+/u);
  if (Number(writes) === 0) return 0;
  const own = await textOf(join(folder, "queue", "max_sectors_kb"));
  const kib = own === "" ? await textOf(join(dirname(folder), "queue", "max_sectors_kb")) : own;
  return (Number(writes) * Number(kib) * 1024) / sectorBytes;
}
