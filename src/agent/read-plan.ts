/**
 * What a pass must read: all of each disk, or what was written since the last pass that was a moment of them. Every written block is read in
 * two passes running, since a request that was on its way to the medium during the first is on it before the second. Now and then
 * all is read although the trace missed nothing: that finds what a trace cannot see, and repairs it.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { DirtyBlocks } from "./dirty-blocks.ts";
import { mediaOf, type TracedDisk, type WriteTraceOptions } from "./trace-instance.ts";
import { openWriteTrace, type WriteTrace } from "./write-trace.ts";

/** By disk; null: all of each. */
export type ToRead = readonly DirtyBlocks[] | null;

export interface ReadPlanOptions extends Pick<WriteTraceOptions, "stateFolder" | "tracefs"> {
  /** At the latest, everything is read. */
  readonly wholeEveryMs: number;
  readonly clock: Clock;
  readonly log: Log;
}

export class ReadPlan implements AsyncDisposable {
  readonly #options: ReadPlanOptions;
  #trace: WriteTrace | undefined;
  #disks: readonly TracedDisk[] = [];
  #media = "";
  /** Taken by earlier passes: since the last moment, and by the pass of that moment. */
  #before: readonly DirtyBlocks[] = [];
  /** By this one. */
  #now: readonly DirtyBlocks[] = [];
  #whole = true;
  /** The next pass reads everything, however this one ends. */
  #wholeNext = false;
  /** This pass reads all of the disks in use, and knows of every write since before it began to. */
  #followed = false;
  #wholeAtMs = Number.NEGATIVE_INFINITY;
  #reason: string | null = null;

  constructor(options: ReadPlanOptions) {
    this.#options = options;
  }

  /** Why every pass reads whole disks; null: it does not. */
  get reason(): string | null {
    return this.#reason;
  }

  /** A pass begins; nothing is held yet. What an earlier one took and did not end with is still to be read. */
  async begin(disks: readonly TracedDisk[]): Promise<void> {
    const { clock, wholeEveryMs } = this.#options;
    const media = await mediaOf(disks);
    if (this.#trace === undefined || media !== this.#media) await this.#open(disks, media);
    merge(this.#before, this.#now);
    this.#now = none(disks);
    this.#followed = false;
    const due = clock.monotonicMs() - this.#wholeAtMs >= wholeEveryMs;
    this.#whole ||= this.#wholeNext || due;
    this.#wholeNext = false;
    await this.#take();
  }

  /** The next pass reads everything: what the agent knows of the vault's content is another than it was. */
  readWhole(): void {
    this.#wholeNext = true;
  }

  /** For disks in use: what was written since the last look. */
  async live(signal: AbortSignal): Promise<ToRead> {
    await this.#take();
    if (!this.#whole) return this.#now;
    this.#followed = (await this.#trace?.settled(signal)) ?? false;
    return null;
  }

  /** For the last look at them in this pass: at disks that stand still, or their snapshots, once they do. */
  async held(): Promise<ToRead> {
    const known = await this.#take();
    // A snapshot is older than this look: what was missed since it was made is in neither.
    if (!known) this.#wholeNext = true;
    if (!known || (this.#whole && !this.#followed)) return null;
    const both = none(this.#disks);
    merge(both, this.#before);
    merge(both, this.#now);
    return both;
  }

  /** What `held` said was read and is kept, and it stood still if anything holds the disks. */
  ended(): void {
    if (this.#whole) this.#wholeAtMs = this.#options.clock.monotonicMs();
    this.#whole = this.#trace === undefined;
    this.#before = this.#now;
    this.#now = none(this.#disks);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#trace?.[Symbol.asyncDispose]();
  }

  async #open(disks: readonly TracedDisk[], media: string): Promise<void> {
    await this.#trace?.[Symbol.asyncDispose]();
    this.#trace = undefined;
    this.#disks = disks;
    this.#media = media;
    this.#before = none(disks);
    this.#now = none(disks);
    this.#whole = true;
    try {
      this.#trace = await openWriteTrace({ ...this.#options, disks });
      this.#reason = null;
    } catch (error) {
      if (!isOperational(error)) throw error;
      this.#untraced(error.message);
    }
  }

  #untraced(reason: string): void {
    if (reason !== this.#reason) this.#options.log.info({ reason }, "each pass reads whole disks");
    this.#reason = reason;
  }

  /** False: something was missed, and is found by reading everything. */
  async #take(): Promise<boolean> {
    let taken: readonly DirtyBlocks[] | null = null;
    try {
      taken = (await this.#trace?.take()) ?? null;
    } catch (error) {
      this.#untraced(`the trace is broken: ${(error as Error).message}`);
      await this.#trace?.[Symbol.asyncDispose]().catch(() => {});
      this.#trace = undefined;
    }
    if (taken !== null) merge(this.#now, taken);
    else {
      this.#whole = true;
      this.#followed = false;
    }
    return taken !== null;
  }
}

function none(disks: readonly TracedDisk[]): readonly DirtyBlocks[] {
  return disks.map(({ sizeBytes }) => new DirtyBlocks(sizeBytes));
}

function merge(into: readonly DirtyBlocks[], more: readonly DirtyBlocks[]): void {
  for (const [at, blocks] of more.entries()) into[at]?.addAll(blocks);
}
