/** An instance of tracefs that has the kernel trace the writes to some block devices, as `write-trace.ts` reads it. */
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
import { deviceNumber } from "./source-disk.ts";

export const sectorBytes = 512;
/** The kernel's memory, over all processors: some 300,000 requests between two looks. */
const bufferBytes = 32 * 1024 * 1024;

export interface TracedDisk {
  readonly path: string;
  readonly sizeBytes: number;
}

/** Where a disk's sectors are in the trace: a partition's are those of the whole disk. */
export interface Place {
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

export interface TraceInstance {
  readonly folder: string;
  /** `trace_pipe`, which does not block. Kept open: an instance that is read cannot be removed. */
  readonly pipe: FileHandle;
  /** Of each disk. */
  readonly places: readonly Place[];
}

/** Its events are enabled. Errors: `state.conflict`, whose message says why writes cannot be traced. */
export async function openTraceInstance(options: WriteTraceOptions): Promise<TraceInstance> {
  let instance: string | undefined;
  let pipe: FileHandle | undefined;
  try {
    const places: Place[] = [];
    for (const { path } of options.disks) places.push(await placeOf(path));
    const instances = await instancesFolder(options.tracefs ?? usualPlaces);
    if (instances === undefined)
      throw unfit("tracefs is not mounted (mount -t tracefs tracefs /sys/kernel/tracing)");
    const name = join(instances, await traceName(options.stateFolder));
    await removeInstance(name);
    await mkdir(name);
    instance = name;
    const perProcessor = Math.ceil(bufferBytes / 1024 / availableParallelism());
    await begin(instance, places, options.bufferKiB ?? Math.max(256, Math.min(4096, perProcessor)));
    pipe = await open(join(instance, "trace_pipe"), constants.O_RDONLY | constants.O_NONBLOCK);
    return { folder: instance, pipe, places };
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
  if (instances !== undefined) await removeInstance(join(instances, await traceName(stateFolder)));
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

export function unfit(message: string): OperationalError {
  return new OperationalError("state.conflict", message);
}

export async function traceName(stateFolder: string): Promise<string> {
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
export async function textOf(file: string): Promise<string> {
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

export const eventIn = (instance: string): string => join(instance, "events", "block", "block_bio_queue");

export async function removeInstance(instance: string): Promise<void> {
  try {
    await rmdir(instance);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}
