/**
 * What was written to block devices since the last look, as the kernel's trace of block I/O tells it: each request, as it is queued, with its
 * sectors (Documentation/trace/events.rst, `block:block_bio_queue`). In an instance of its own, so that nobody else's tracing is touched.
 * Whatever could have been missed makes the answer "not known": the whole disk is read then. The kernel's count of sectors written
 * (Documentation/admin-guide/iostats.rst) must not have grown by more than was traced.
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { DirtyBlocks } from "./dirty-blocks.ts";
import {
  eventIn,
  openTraceInstance,
  type Place,
  removeInstance,
  sectorBytes,
  textOf,
  type TraceInstance,
  unfit,
  type WriteTraceOptions,
} from "./trace-instance.ts";

const lookEveryMs = 200;
/** Of one look: who writes faster than that is not followed. */
const lookBytes = 256 * 1024 * 1024;
/** How long requests that were queued before the trace are waited for. */
const settleMs = 30_000;

/** Errors: `state.conflict`, whose message says why whole disks must be read. */
export async function openWriteTrace(options: WriteTraceOptions): Promise<WriteTrace> {
  return new WriteTrace(await openTraceInstance(options), options);
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
  readonly #instance: TraceInstance;
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
  constructor(instance: TraceInstance, options: WriteTraceOptions) {
    this.#instance = instance;
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
    for (const { folder } of this.#instance.places) {
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
    await this.#instance.pipe.close();
    await removeInstance(this.#instance.folder).catch((error: unknown) => {
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
        const { bytesRead } = await this.#instance.pipe
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
    for (const [at, place] of this.#instance.places.entries()) {
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
      this.#instance.places.map(async ({ folder }) => {
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
    const event = eventIn(this.#instance.folder);
    const files = [join(this.#instance.folder, "tracing_on"), join(event, "enable"), join(event, "filter")];
    return (await Promise.all(files.map(textOf))).join("\n");
  }

  /** What the kernel had no room for, on any processor. */
  async #dropped(): Promise<number> {
    const folder = join(this.#instance.folder, "per_cpu");
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
    await writeFile(join(this.#instance.folder, "trace"), "");
    this.#filter = await this.#switches();
    if (!this.#filter.startsWith("1\n1\n(dev")) throw unfit("somebody switched the agent's trace off");
    this.#lostBefore = await this.#dropped();
    const counted = await this.#counted();
    const underWay = await Promise.all(this.#instance.places.map(sectorsUnderWay));
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
