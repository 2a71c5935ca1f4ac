/**
 * Looks through the file systems of recovery points in the background, and keeps in the vault which regions of each volume the rules want
 * first. One point at a time; of those that wait, the newest of a volume counts.
 */
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockReader } from "#model/block-device.ts";
import type { BootReads } from "./boot-reads.ts";
import type { FileRule } from "./file-rules.ts";
import { rankFiles } from "./rank-files.ts";

export interface PointRankingOptions {
  readonly rules: readonly FileRule[];
  /** Where the regions are kept. */
  readonly fileReads: BootReads;
  readonly open: (volume: string, sequence: number) => Promise<BlockReader>;
  readonly log: Log;
}

interface Wanted {
  readonly sequence: number;
  readonly atMs: number;
}

export class PointRanking implements AsyncDisposable {
  readonly #options: PointRankingOptions;
  readonly #waiting = new Map<string, Wanted>();
  readonly #stop = new AbortController();
  #working: Promise<void> | undefined;

  constructor(options: PointRankingOptions) {
    this.#options = options;
  }

  /** Returns at once. */
  want(volumes: Iterable<string>, sequence: number, atMs: number): void {
    if (this.#options.rules.length === 0) return;
    for (const volume of volumes) this.#waiting.set(volume, { sequence, atMs });
    this.#working ??= this.#work().finally(() => (this.#working = undefined));
  }

  /** Nothing waits any more. */
  async settled(): Promise<void> {
    await this.#working;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#working;
  }

  async #work(): Promise<void> {
    for (;;) {
      const [next] = this.#waiting;
      if (next === undefined || this.#stop.signal.aborted) return;
      const [volume, wanted] = next;
      this.#waiting.delete(volume);
      try {
        await this.#rank(volume, wanted);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (!isOperational(error)) throw error;
        // What is to be fetched first is a help, and not what a recovery stands on.
        this.#options.log.warn(
          { volume, code: error.code },
          `the files of a point were not ranked: ${publicMessage(error)}`,
        );
      }
    }
  }

  async #rank(volume: string, { sequence, atMs }: Wanted): Promise<void> {
    const { rules, fileReads, open, log } = this.#options;
    await using disk = await open(volume, sequence);
    const { regions, ...facts } = await rankFiles(disk, rules, atMs, this.#stop.signal);
    await fileReads.save(volume, regions, this.#stop.signal);
    const said =
      facts.fileSystems === 0
        ? "no file system that is understood: only what a start reads comes first"
        : "the files of a point were ranked";
    log.debug({ volume, regions: regions.length, ...facts }, said);
  }
}
