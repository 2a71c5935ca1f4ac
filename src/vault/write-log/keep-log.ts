/** What goes on behind a write log: folding, pruning, and an alarm for every position that should move and does not. */
import { isOperational, publicMessage } from "#kernel/errors.ts";
import { foldLog } from "./fold-log.ts";
import { type LogLag, logLag } from "./log-lag.ts";
import type { CommittedPoint } from "./point-store.ts";
import { type LogWindow, pruneLog } from "./prune-log.ts";
import type { Segment } from "./segment-shelf.ts";
import type { LogShipper } from "./ship-log.ts";
import type { WholeMoment } from "./whole-moments.ts";
import type { WriteLog } from "./write-log.ts";

export type LogNoticeCode =
  /** Writes are taken and do not become durable. */
  | "log.capture_stalled"
  /** Ended segments do not reach the store. */
  | "log.shipping_stalled"
  /** No point is made of what was captured. */
  | "log.folding_stalled"
  /** The log takes nothing more: its disk failed. */
  | "log.failed"
  /** Something in it is not what was written. */
  | "log.damaged";

export interface LogNotice {
  readonly group: string;
  readonly code: LogNoticeCode;
  /** False: it is over. */
  readonly raised: boolean;
  readonly detail: string;
  readonly at: number;
}

export interface KeepLogOptions {
  readonly log: WriteLog;
  readonly shipper?: LogShipper;
  readonly window: LogWindow;
  /** A point is made this often while there are writes. It bounds what opening a moment reads. Default 10 minutes. */
  readonly foldEveryMs?: number;
  /** And when this much was captured since the last one. Default 1 GiB. */
  readonly foldBytes?: number;
  /** A position that should move and does not for this long is an alarm. Default 10 s. */
  readonly stallMs?: number;
  /** The window is about to leave the last whole moment behind: see `pruneLog`. Default: it is lost. */
  readonly leaving?: (moment: WholeMoment, signal: AbortSignal | undefined) => Promise<void>;
  readonly notify: (notice: LogNotice) => void;
}

const lookMs = 250;

/** A position, since when it should have moved. */
interface Watch {
  position: number;
  sinceMs: number;
}

export class LogKeeper implements AsyncDisposable {
  readonly #options: Required<Omit<KeepLogOptions, "shipper">> & { readonly shipper: LogShipper | undefined };
  readonly #stop = new AbortController();
  readonly #watches = new Map<LogNoticeCode, Watch>();
  readonly #raised = new Set<LogNoticeCode>();
  readonly #running: Promise<void>[];
  #foldWanted = Promise.withResolvers<void>();
  /** One fold at a time: two that prune would each take what the other one looked at. */
  #folding: Promise<unknown> = Promise.resolve();
  #foldedAtMs: number;
  #foldError: string | undefined;
  #needed: readonly CommittedPoint[] = [];

  /** Begins at once. */
  constructor(options: KeepLogOptions) {
    this.#options = {
      foldEveryMs: 600_000,
      foldBytes: 1024 * 1024 * 1024,
      stallMs: 10_000,
      leaving: async () => {},
      ...options,
      shipper: options.shipper,
    };
    this.#foldedAtMs = options.log.clock.monotonicMs();
    options.log.onFoldWanted = () => this.#foldWanted.resolve();
    this.#running = [this.#foldLoop(), this.#watchLoop()];
  }

  lag(): LogLag {
    return logLag(this.#options.log, this.#options.shipper);
  }

  /** Points that moments of the window stand on: the vault's retention must keep them. */
  get needed(): readonly CommittedPoint[] {
    return this.#needed;
  }

  /** Folds and prunes now, after whatever of it is under way. Errors: those of the vault. */
  foldNow(signal?: AbortSignal): Promise<void> {
    const done = this.#folding.then(() => this.#fold(signal));
    this.#folding = done.catch(() => {});
    return done;
  }

  async #fold(signal: AbortSignal | undefined): Promise<void> {
    const { log, window, shipper, leaving } = this.#options;
    signal?.throwIfAborted();
    await foldLog(log, signal === undefined ? {} : { signal });
    this.#foldedAtMs = log.clock.monotonicMs();
    this.#foldError = undefined;
    const removing = async (segment: Segment): Promise<void> => shipper?.remove(segment, signal);
    const pruned = await pruneLog(log, window, {
      removing,
      leaving: (moment) => leaving(moment, signal),
      signal,
    });
    this.#needed = pruned.needed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#foldWanted.resolve();
    this.#options.log.onFoldWanted = () => {};
    await Promise.all(this.#running);
  }

  async #foldLoop(): Promise<void> {
    const { clock } = this.#options.log;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      const tick = new AbortController();
      const due = clock.sleep(lookMs, AbortSignal.any([signal, tick.signal])).catch(() => {});
      await Promise.race([due, this.#foldWanted.promise]);
      tick.abort();
      const wanted = this.#isFoldDue();
      this.#foldWanted = Promise.withResolvers();
      if (signal.aborted || !wanted) continue;
      try {
        await this.foldNow(signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#foldError = publicMessage(error);
        if (isOperational(error, "vault.damaged")) this.#set("log.damaged", true, this.#foldError);
        await clock.sleep(1000, signal).catch(() => {});
      }
    }
  }

  #isFoldDue(): boolean {
    const { log, foldEveryMs, foldBytes } = this.#options;
    const { capturedSequence, foldedSequence, unfoldedBytes } = this.lag();
    if (capturedSequence <= foldedSequence) return false;
    const age = log.clock.monotonicMs() - this.#foldedAtMs;
    return age >= foldEveryMs || unfoldedBytes >= foldBytes || log.extents > log.limits.extents;
  }

  async #watchLoop(): Promise<void> {
    const { clock } = this.#options.log;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await clock.sleep(lookMs, signal).catch(() => {});
      if (!signal.aborted) this.#look();
    }
  }

  #look(): void {
    const { log, shipper, foldEveryMs } = this.#options;
    const lag = this.lag();
    const behind = log.lastTaken.sequence > lag.capturedSequence;
    this.#watch(
      "log.capture_stalled",
      lag.capturedSequence,
      behind,
      () => `record ${lag.capturedSequence} is the last durable one`,
    );
    const unshipped = shipper !== undefined && (lag.shippedSequence ?? 0) < lag.capturedSequence;
    this.#watch(
      "log.shipping_stalled",
      lag.shippedSequence ?? 0,
      unshipped,
      () => shipper?.lastError ?? `the store ends at record ${lag.shippedSequence}`,
    );
    const unfolded = lag.foldedSequence < lag.capturedSequence;
    const overdue = unfolded && log.clock.monotonicMs() - this.#foldedAtMs > foldEveryMs;
    this.#watch(
      "log.folding_stalled",
      lag.foldedSequence,
      overdue,
      () => this.#foldError ?? `points end at record ${lag.foldedSequence}`,
    );
    if (log.failed !== undefined) this.#set("log.failed", true, log.failed.message);
  }

  #watch(code: LogNoticeCode, position: number, shouldMove: boolean, detail: () => string): void {
    const now = this.#options.log.clock.monotonicMs();
    const watch = this.#watches.get(code);
    if (watch === undefined || !shouldMove || watch.position !== position) {
      this.#watches.set(code, { position, sinceMs: now });
      this.#set(code, false, "");
    } else if (now - watch.sinceMs >= this.#options.stallMs) this.#set(code, true, detail());
  }

  #set(code: LogNoticeCode, raised: boolean, detail: string): void {
    if (this.#raised.has(code) === raised) return;
    if (raised) this.#raised.add(code);
    else this.#raised.delete(code);
    const { log, notify } = this.#options;
    notify({ group: log.group, code, raised, detail, at: log.clock.now() });
  }
}
