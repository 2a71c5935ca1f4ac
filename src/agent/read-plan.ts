/**
 * What a pass must read: all of each disk, or what was written since the last pass that was a moment of them. Every written block is read in
 * two passes running, since a request that was on its way to the medium during the first is on it before the second. Now and then
 * all is read although the trace missed nothing: that finds what a trace cannot see, and repairs it.
 */
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { DirtyBlocks } from "./dirty-blocks.ts";
import { openWriteTrace, type TracedDisk, type WriteTrace, type WriteTraceOptions } from "./write-trace.ts";

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
  #before: readonly DirtyBlocks[] = [];
  #now: readonly DirtyBlocks[] = [];
  #whole = true;
  #wholeAtMs = Number.NEGATIVE_INFINITY;
  #reason: string | null = null;

  constructor(options: ReadPlanOptions) {
    this.#options = options;
  }

  /** Why every pass reads whole disks; null: it does not. */
  get reason(): string | null {
    return this.#reason;
  }

  /** A pass begins, over disks of these sizes. What an earlier one took and did not end with is still to be read. */
  async begin(disks: readonly TracedDisk[]): Promise<void> {
    const { clock, wholeEveryMs } = this.#options;
    const same = disks.every(
      ({ path, sizeBytes }, at) => this.#disks[at]?.path === path && this.#disks[at]?.sizeBytes === sizeBytes,
    );
    if (this.#trace === undefined || !same) await this.#open(disks);
    merge(this.#before, this.#now);
    this.#now = none(disks);
    if (clock.monotonicMs() - this.#wholeAtMs >= wholeEveryMs) this.#whole = true;
  }

  /** The next pass reads everything: what the agent knows of the vault's content is another than it was. */
  readWhole(): void {
    this.#whole = true;
  }

  /** For disks in use: what was written since the last look. */
  async live(): Promise<ToRead> {
    await this.#take();
    return this.#whole ? null : this.#now;
  }

  /** For the last look at them in this pass: at disks that stand still, or their snapshots, once they do. */
  async held(): Promise<ToRead> {
    await this.#take();
    if (this.#whole) return null;
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

  async #open(disks: readonly TracedDisk[]): Promise<void> {
    const { log } = this.#options;
    await this.#trace?.[Symbol.asyncDispose]();
    this.#trace = undefined;
    const opened = await openWriteTrace({ ...this.#options, disks });
    this.#disks = disks;
    this.#before = none(disks);
    this.#now = none(disks);
    this.#whole = true;
    const reason = opened.ok ? null : opened.reason;
    if (reason !== null && reason !== this.#reason) log.info({ reason }, "each pass reads whole disks");
    this.#reason = reason;
    if (opened.ok) this.#trace = opened.trace;
  }

  async #take(): Promise<void> {
    const taken = (await this.#trace?.take()) ?? null;
    if (taken === null) this.#whole = true;
    else merge(this.#now, taken);
  }
}

function none(disks: readonly TracedDisk[]): readonly DirtyBlocks[] {
  return disks.map(({ sizeBytes }) => new DirtyBlocks(sizeBytes));
}

function merge(into: readonly DirtyBlocks[], more: readonly DirtyBlocks[]): void {
  for (const [at, blocks] of more.entries()) into[at]?.addAll(blocks);
}
