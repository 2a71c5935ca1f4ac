/**
 * Appends records to the log: encrypts at once, writes while a flush runs, and answers many writers with one flush.
 *
 * Order: frames are written in order, a segment's last byte is durable before its successor exists, and `onDurable` sees frames in
 * sequence. A flush that failed is final: the log takes nothing more until it is opened anew. A full disk loses nothing that was
 * acknowledged, and refuses the rest.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { FrameQueue, type PendingFrame, type SegmentPlan } from "./frame-queue.ts";
import { LiveSegment, type PlacedFrame, type WrittenFrame } from "./live-segment.ts";
import type { Opening } from "./log-event.ts";
import type { SegmentFolder } from "./segment-folder.ts";
import { frameType, type LogRecord, type RecordKind, type SegmentHeader } from "./segment-format.ts";

/** The end of the log's durable part. */
export interface LogHead {
  readonly number: number;
  readonly position: number;
  readonly tag: Buffer;
  readonly nextSequence: number;
  readonly timeMs: number;
}

export interface AppenderOptions {
  readonly folder: SegmentFolder;
  readonly logKey: Buffer;
  readonly group: string;
  readonly fingerprint: Buffer;
  readonly clock: Clock;
  /** Where the log ends; number 0 where there is none yet. */
  readonly head: LogHead;
  /** A segment is ended when it has this many bytes, or this long after its first record. */
  readonly segmentBytes: number;
  readonly segmentAgeMs: number;
  /** A frame takes nothing more from here on, and is written while a flush runs. */
  readonly fullFrameBytes: number;
  /** Bytes that are not durable yet, at most (one write may exceed it). */
  readonly queueBytes: number;
  /** The group's volumes as of all that is durable. */
  readonly opening: () => Opening;
  readonly onSegment: (segment: LiveSegment) => void;
  /** In order, before anybody is told; `head` is the new durable end. */
  readonly onDurable: (frames: readonly PlacedFrame[], head: LogHead) => void;
  readonly onEnded: (head: LogHead) => void;
}

export interface Captured {
  readonly sequence: number;
  readonly timeMs: number;
  /** Resolves when the record and all before it are durable. Errors: `store.full` (not applied), `store.failing` (unknown). */
  readonly durable: Promise<void>;
}

/** One call of `writev` takes about so much. */
const writeBytes = 8 * 1024 * 1024;
/** How often idleness and age are looked at. */
const tickMs = 25;

export class SegmentAppender {
  readonly #options: AppenderOptions;
  #nextSequence: number;
  #timeMs: number;
  #head: LogHead;
  readonly #queue: FrameQueue;
  #live: LiveSegment | undefined;
  /** Handed to the file, and not yet known to be there. */
  #inWriting: readonly PendingFrame[] = [];
  #written: WrittenFrame[] = [];
  #writing: Promise<void> | undefined;
  #kicked = false;
  #syncing: Promise<void> | undefined;
  #ticking: Promise<void> | undefined;
  #quietTicks = 0;
  #stopTicks = new AbortController();
  #queuedBytes = 0;
  #roomWaiters: (() => void)[] = [];
  #failed: OperationalError | undefined;
  #closed = false;

  constructor(options: AppenderOptions) {
    this.#options = options;
    this.#head = options.head;
    this.#nextSequence = options.head.nextSequence;
    this.#timeMs = options.head.timeMs;
    this.#queue = new FrameQueue({ ...options, monotonicMs: () => options.clock.monotonicMs() });
  }

  get head(): LogHead {
    return this.#head;
  }

  /** Sequence and time of the last record taken, durable or not. */
  get last(): { readonly sequence: number; readonly timeMs: number } {
    return { sequence: this.#nextSequence - 1, timeMs: this.#timeMs };
  }

  get queuedBytes(): number {
    return this.#queuedBytes;
  }

  get failed(): OperationalError | undefined {
    return this.#failed;
  }

  /** Resolves when the queue has room. */
  async room(signal?: AbortSignal): Promise<void> {
    while (this.#queuedBytes >= this.#options.queueBytes && this.#failed === undefined) {
      signal?.throwIfAborted();
      const waiter = Promise.withResolvers<void>();
      const abort = (): void => waiter.reject(signal?.reason as Error);
      signal?.addEventListener("abort", abort, { once: true });
      this.#roomWaiters.push(waiter.resolve);
      try {
        await waiter.promise;
      } finally {
        signal?.removeEventListener("abort", abort);
      }
    }
  }

  /** Takes the record at once; `data` is the caller's again when this returns. Errors: `store.failing` after a failure. */
  append(
    record: {
      readonly volume: number;
      readonly kind: RecordKind;
      readonly offset: number;
      readonly length: number;
    },
    data?: Uint8Array,
  ): Captured {
    if (this.#failed !== undefined) throw this.#failed;
    invariant(!this.#closed, "an append to a closed log");
    const dataBytes = data?.length ?? 0;
    const timeMs = Math.max(Math.floor(this.#options.clock.now()), this.#timeMs);
    const frame = this.#queue.frameFor(dataBytes, timeMs);
    this.#ticking ??= this.#tick();
    const sequence = this.#nextSequence;
    this.#nextSequence += 1;
    this.#timeMs = timeMs;
    frame.builder.add({ ...record, sequence, timeMs }, data);
    frame.plan.bytes += dataBytes;
    this.#queuedBytes += dataBytes;
    this.#kick();
    return { sequence, timeMs, durable: frame.durable.promise };
  }

  /** Records that are not in the index yet; a reader of what they touch waits for them. */
  *pending(): Iterable<LogRecord> {
    for (const written of this.#written) yield* written.frame.records;
    for (const frame of this.#inWriting) yield* frame.builder.records;
    yield* this.#queue.records();
  }

  /** All that was appended before the call is durable. Errors: as `Captured.durable`. */
  async flush(): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    const last = this.#queue.lastFrame ?? this.#inWriting.at(-1) ?? this.#written.at(-1)?.pending;
    await last?.durable.promise;
  }

  /** Ends the present segment, so that it can be shipped. Resolves when that is done, or nothing was to do. */
  async endSegment(): Promise<void> {
    if (this.#queue.plan !== undefined) {
      this.#queue.endPlan();
      this.#kick();
    }
    await this.settle();
  }

  /** Waits until nothing is under way. Never rejects: whoever appended has been told. */
  async settle(): Promise<void> {
    for (;;) {
      const work = this.#writing ?? this.#syncing;
      if (work !== undefined) await work;
      else if (this.#kicked) await new Promise((resolve) => void setImmediate(resolve));
      else return;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    if (this.#failed === undefined) await this.endSegment();
    this.#closed = true;
    this.#stopTicks.abort();
    await this.settle();
    await this.#ticking;
    await this.#live?.file.close();
    this.#live = undefined;
  }

  /** Everything that is appended in this turn of the event loop shares a frame. */
  #kick(): void {
    this.#quietTicks = 0;
    if (this.#kicked || this.#writing !== undefined) return;
    this.#kicked = true;
    setImmediate(() => {
      this.#kicked = false;
      this.#writing ??= this.#write().finally(() => {
        this.#writing = undefined;
        if (this.#failed === undefined && this.#hasWork()) this.#kick();
      });
    });
  }

  #hasWork(): boolean {
    return this.#queue.first !== undefined || (this.#queue.hasPartial && this.#syncing === undefined);
  }

  async #write(): Promise<void> {
    try {
      while (this.#failed === undefined && this.#hasWork()) {
        // A partial frame waits for the flush that runs, and collects meanwhile.
        if (this.#syncing === undefined) this.#queue.closeFrame();
        await this.#writeNext();
      }
    } catch (error) {
      if (isOperational(error, "store.full")) await this.#refuseAll(error);
      else this.#fail(error);
    }
  }

  async #writeNext(): Promise<void> {
    const job = this.#queue.first;
    if (job === undefined) return;
    if (job.type === "frame") {
      if (this.#live?.plan !== job.plan)
        await this.#createSegment(job.plan, job.builder.records[0]?.timeMs ?? this.#timeMs);
      await this.#writeFrames();
      this.#startSync();
      return;
    }
    this.#queue.shift();
    const live = this.#live;
    if (live === undefined || live.plan !== job.plan) return;
    if (job.type === "end") await this.#endLive(live);
    else if (!live.isMarked) await live.writePlain(frameType.mark, this.#durableEnd(live));
  }

  async #writeFrames(): Promise<void> {
    const live = this.#live;
    invariant(live !== undefined, "a segment to write to");
    const frames: PendingFrame[] = [];
    let bytes = 0;
    // Enough for one call; the rest follows while this much may already be flushed.
    for (let job = this.#queue.first; bytes < writeBytes; job = this.#queue.first) {
      if (job?.type !== "frame" || job.plan !== live.plan) break;
      this.#queue.shift();
      frames.push(job);
      bytes += job.builder.dataBytes;
    }
    this.#inWriting = frames;
    const written = await live.writeFrames(frames, this.#durableEnd(live));
    this.#inWriting = [];
    if (this.#failed === undefined) this.#written.push(...written);
  }

  #durableEnd(live: LiveSegment): number {
    return this.#head.number === live.number ? this.#head.position : 0;
  }

  async #endLive(live: LiveSegment): Promise<void> {
    await this.#syncWritten();
    await live.writePlain(frameType.seal, this.#durableEnd(live));
    await this.#syncNow();
    await live.file.close();
    this.#live = undefined;
    this.#options.onEnded(this.#head);
  }

  async #createSegment(plan: SegmentPlan, timeMs: number): Promise<void> {
    invariant(this.#live === undefined, "the segment before was ended");
    const { folder, fingerprint } = this.#options;
    const header: SegmentHeader = {
      number: this.#head.number + 1,
      firstSequence: this.#head.nextSequence,
      timeMs: Math.max(this.#head.timeMs, Math.min(timeMs, this.#timeMs)),
      previousEnd: this.#head.position,
      previousTag: this.#head.tag,
      salt: plan.salt,
      fingerprint,
    };
    const live = await LiveSegment.create({ folder, plan, header, opening: this.#options.opening() });
    this.#live = live;
    const { number, position, tag } = live;
    this.#head = { number, position, tag, nextSequence: header.firstSequence, timeMs: header.timeMs };
    this.#options.onSegment(live);
    this.#options.onDurable([], this.#head);
    await folder.syncEntries();
  }

  #startSync(): void {
    if (this.#syncing !== undefined || this.#failed !== undefined) return;
    this.#syncing = this.#syncNow()
      .catch((error: unknown) => this.#fail(error))
      .finally(() => {
        this.#syncing = undefined;
        if (this.#failed !== undefined) return;
        if (this.#written.length > 0) this.#startSync();
        if (this.#hasWork()) this.#kick();
      });
  }

  /** One flush, for everything written before it. */
  async #syncNow(): Promise<void> {
    const live = this.#live;
    invariant(live !== undefined, "a segment to flush");
    const frames = this.#written.slice();
    const { position, tag } = live;
    try {
      await live.file.sync();
    } catch (error) {
      this.#fail(error);
    }
    if (this.#failed !== undefined) throw this.#failed;
    this.#written = this.#written.slice(frames.length);
    const last = frames.at(-1)?.frame.records.at(-1);
    this.#head = {
      number: live.number,
      position,
      tag,
      nextSequence: last === undefined ? this.#head.nextSequence : last.sequence + 1,
      timeMs: last?.timeMs ?? this.#head.timeMs,
    };
    this.#options.onDurable(
      frames.map(({ frame }) => frame),
      this.#head,
    );
    for (const { frame, pending } of frames) {
      this.#release(frame.dataBytes);
      pending.durable.resolve();
    }
  }

  async #syncWritten(): Promise<void> {
    while (this.#syncing !== undefined) await this.#syncing;
    if (this.#failed !== undefined) throw this.#failed;
    if (this.#written.length > 0) await this.#syncNow();
  }

  #release(bytes: number): void {
    this.#queuedBytes -= bytes;
    if (this.#queuedBytes >= this.#options.queueBytes) return;
    for (const wake of this.#roomWaiters.splice(0)) wake();
  }

  #fail(cause: unknown): void {
    this.#failed ??= new OperationalError(
      "store.failing",
      `the write log in ${this.#options.folder.name} cannot be written: look at the disk, then open it anew`,
      { outcome: "unknown", cause, ...(cause instanceof Error ? { detail: cause.message } : {}) },
    );
    this.#rejectPending(this.#failed);
  }

  #rejectPending(error: OperationalError): void {
    const waiting = new Set([
      ...this.#written.map(({ pending }) => pending),
      ...this.#inWriting,
      ...this.#queue.drop(),
    ]);
    this.#written = [];
    this.#inWriting = [];
    this.#queuedBytes = 0;
    for (const wake of this.#roomWaiters.splice(0)) wake();
    for (const pending of waiting) pending.durable.reject(error);
  }

  /**
   * The disk is full: what was written whole is flushed and acknowledged, the segment is cut behind it, and the rest is refused. The next
   * append begins a new segment, with a new key, and is refused as well until there is space for it.
   */
  async #refuseAll(full: OperationalError): Promise<void> {
    try {
      await this.#syncWritten();
      const live = this.#live;
      this.#live = undefined;
      if (live !== undefined) {
        await live.file.truncate(this.#head.position);
        await live.file.sync();
        await live.file.close();
        this.#options.onEnded(this.#head);
      }
    } catch (error) {
      this.#fail(error);
      return;
    }
    this.#nextSequence = this.#head.nextSequence;
    this.#timeMs = this.#head.timeMs;
    this.#rejectPending(full);
  }

  /** While a segment is open: marks it when it falls idle, ends it when it is old enough to be shipped. */
  async #tick(): Promise<void> {
    const { clock, segmentAgeMs } = this.#options;
    try {
      while (this.#failed === undefined && !this.#closed) {
        await clock.sleep(tickMs, this.#stopTicks.signal);
        const { plan } = this.#queue;
        if (plan === undefined) break;
        if (clock.monotonicMs() - plan.startedMs >= segmentAgeMs) {
          this.#queue.endPlan();
          this.#kick();
          continue;
        }
        this.#quietTicks += 1;
        const live = this.#live;
        if (this.#quietTicks === 2 && live?.plan === plan && !live.isMarked) this.#markIdle(plan);
      }
    } catch {
      // Closing.
    } finally {
      this.#ticking = undefined;
    }
  }

  #markIdle(plan: SegmentPlan): void {
    this.#queue.mark(plan);
    const quiet = this.#quietTicks;
    this.#kick();
    this.#quietTicks = quiet;
  }
}
