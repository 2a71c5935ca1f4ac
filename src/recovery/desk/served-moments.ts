/**
 * The moments of a group that are served, each opened once for all its readers. A pinned one is kept until its takers unpin it; another one
 * while somebody reads it, and half an hour after. What was served before a restart is served again: whoever reads it has not noticed.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { NbdExport } from "#nbd/export-provider.ts";
import type { PriorityReader } from "#recovery/priorities/priority-reader.ts";
import type { PinnedMoment, Taker } from "#recovery/vault-desk.ts";
import type { ServedRecord } from "./group-record.ts";

export interface ServedMomentsOptions {
  readonly open: (volume: string, sequence: number) => Promise<PriorityReader>;
  /** Keeps whatever any moment stands on, until it is called off. */
  readonly holdAll: () => () => void;
  /** Durable when it returns. */
  readonly remember: (served: ServedRecord[]) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

/** One that nobody has pinned and nobody has used for so long is let go, in milliseconds. */
const idleMs = 30 * 60_000;
/** How often what is served is looked through, in milliseconds. */
const sweepEveryMs = 60_000;

interface Served {
  readonly volume: string;
  readonly sequence: number;
  readonly pins: Map<string, { readonly taker: Taker; readonly since: number }>;
  /** Somebody was told where it is served. */
  told: boolean;
  /** Undefined: it is not open; whoever wants it next tries. */
  reader: Promise<PriorityReader> | undefined;
  /** While it is not open, nothing else keeps what it stands on. */
  release: (() => void) | undefined;
  users: number;
  usedAt: number;
}

const keyOf = (volume: string, sequence: number): string => `${volume}/${sequence}`;
const pinKey = ({ site, volumeId }: Taker): string => JSON.stringify([site, volumeId]);
/** It would fail again in the same way, so that there is nothing to keep for it. */
const isFinal = (error: unknown): boolean => !isOperational(error) || error.retry === "never";

export class ServedMoments implements AsyncDisposable {
  readonly #options: ServedMomentsOptions;
  readonly #served = new Map<string, Served>();
  readonly #stop = new AbortController();
  readonly #sweeping: Promise<void>;

  /** `before`: what was served when the record was written. */
  constructor(options: ServedMomentsOptions, before: readonly ServedRecord[]) {
    this.#options = options;
    for (const { volume, sequence, pins } of before) {
      const served = this.#entry(volume, sequence);
      served.told = true;
      for (const { site, volumeId, since } of pins) {
        const taker = { site, volumeId };
        served.pins.set(pinKey(taker), { taker, since });
      }
      // The error stays with the one who asks next.
      this.#open(served).catch(() => {});
    }
    this.#sweeping = this.#sweep();
  }

  /** Answers the size of the content. Errors: `not_found`, `state.conflict`, `store.full`, `store.failing`. */
  async serve(
    volume: string,
    sequence: number,
    taker: Taker | undefined,
    signal: AbortSignal,
  ): Promise<number> {
    const served = this.#entry(volume, sequence);
    const since = this.#options.clock.now();
    if (taker !== undefined) served.pins.set(pinKey(taker), { taker, since });
    return this.#using(served, async () => {
      let reader: PriorityReader;
      try {
        reader = await this.#open(served);
        signal.throwIfAborted();
        await this.#remember();
      } catch (error) {
        // Nobody was told of it.
        if (!served.told && served.users === 1) await this.#close(served);
        throw error;
      }
      served.told = true;
      reader.expectStart();
      return reader.sizeBytes;
    });
  }

  async unpin(volume: string, sequence: number, taker: Taker): Promise<void> {
    const served = this.#served.get(keyOf(volume, sequence));
    if (served?.pins.delete(pinKey(taker)) !== true) return;
    served.usedAt = this.#options.clock.now();
    await this.#remember();
  }

  pins(): readonly Omit<PinnedMoment, "uri">[] {
    return [...this.#served.values()].flatMap(({ volume, sequence, pins }) =>
      Array.from(pins.values(), ({ taker, since }) => ({ volume, sequence, taker, since })),
    );
  }

  /** Undefined: it is not served (any more). Errors: those of the store, while it cannot be opened. */
  async openExport(volume: string, sequence: number): Promise<NbdExport | undefined> {
    const served = this.#served.get(keyOf(volume, sequence));
    if (served === undefined) return undefined;
    const end = this.#use(served);
    try {
      const device = await this.#open(served);
      return {
        writable: false,
        device,
        multiConn: true,
        cheapExtents: true,
        [Symbol.asyncDispose]: async () => end(),
      };
    } catch (error) {
      end();
      if (isOperational(error, "not_found")) return undefined;
      throw error;
    }
  }

  /**
   * Resolves when each is open, and so keeps what it stands on; what can't be opened, whatever is done, is not waited for. Errors:
   * those of the store.
   */
  async allOpen(): Promise<void> {
    for (const served of this.#served.values()) {
      try {
        await this.#open(served);
      } catch (error) {
        if (!isFinal(error)) throw error;
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#sweeping;
    for (const served of this.#served.values()) await this.#close(served);
  }

  #entry(volume: string, sequence: number): Served {
    const key = keyOf(volume, sequence);
    const present = this.#served.get(key);
    if (present !== undefined) return present;
    const served: Served = {
      volume,
      sequence,
      pins: new Map(),
      told: false,
      reader: undefined,
      release: this.#options.holdAll(),
      users: 0,
      usedAt: this.#options.clock.now(),
    };
    this.#served.set(key, served);
    return served;
  }

  /** From the call on it is in use, whatever is waited for. */
  #use(served: Served): () => void {
    served.users += 1;
    return () => {
      served.users -= 1;
      served.usedAt = this.#options.clock.now();
    };
  }

  async #using<T>(served: Served, work: () => Promise<T>): Promise<T> {
    const end = this.#use(served);
    try {
      return await work();
    } finally {
      end();
    }
  }

  #open(served: Served): Promise<PriorityReader> {
    served.reader ??= this.#opening(served);
    return served.reader;
  }

  async #opening(served: Served): Promise<PriorityReader> {
    const { volume, sequence } = served;
    try {
      const reader = await this.#options.open(volume, sequence);
      served.release?.();
      return reader;
    } catch (error) {
      served.reader = undefined;
      if (isFinal(error)) served.release?.();
      if (isOperational(error, "not_found")) this.#drop(served);
      else this.#options.log.warn({ err: error, volume, sequence }, "a moment could not be opened");
      throw error;
    }
  }

  #drop(served: Served): void {
    served.release?.();
    const key = keyOf(served.volume, served.sequence);
    if (this.#served.get(key) === served) this.#served.delete(key);
  }

  /** Nobody finds it from the call on. */
  async #close(served: Served): Promise<void> {
    this.#drop(served);
    await served.reader?.then(
      (open) => open[Symbol.asyncDispose](),
      // It was never open.
      () => {},
    );
  }

  #remember(): Promise<void> {
    const record = Array.from(this.#served.values(), ({ volume, sequence, usedAt, pins }) => ({
      volume,
      sequence,
      usedAt,
      pins: Array.from(pins.values(), ({ taker, since }) => ({ ...taker, since })),
    }));
    return this.#options.remember(record);
  }

  async #sweep(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await clock.sleep(sweepEveryMs, signal).catch(() => {});
      if (signal.aborted) return;
      try {
        await this.#letGoOfIdle();
      } catch (error) {
        log.warn({ err: error }, "moments that nobody reads could not be let go: at the next turn");
      }
      // What could not be opened is tried again.
      await this.allOpen().catch(() => {});
    }
  }

  async #letGoOfIdle(): Promise<void> {
    const { clock } = this.#options;
    let gone = 0;
    for (const served of this.#served.values()) {
      // Looked at right before it goes: somebody may have come while the one before it was closed.
      const { pins, users, usedAt } = served;
      if (pins.size > 0 || users > 0 || usedAt >= clock.now() - idleMs) continue;
      gone += 1;
      await this.#close(served);
    }
    if (gone > 0) await this.#remember();
  }
}
