/**
 * The write log of a consistency group (docs/spec/write-log.md): every write of every volume, in one order, durable before it counts.
 * One process owns a log's folder. What was written is read back from disk; memory holds an index of what came after the last committed point.
 */
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Extent } from "#model/block-device.ts";
import type { LiveSegment, PlacedFrame } from "./live-segment.ts";
import { applyRecord } from "./apply-record.ts";
import { type LiveVolume, SharedReader, applyToVolumes } from "./live-volume.ts";
import {
  encodeEvent,
  isJoining,
  type LogEvent,
  type LogVolume,
  type SynchronisingReason,
  type VolumeImage,
} from "./log-event.ts";
import { LastWhole } from "./last-whole.ts";
import { type LogHistory } from "./open-moment.ts";
import type { CommittedPoint, PointStore } from "./point-store.ts";
import { checkRange, extentsOfLayers, type Layers, readLayers } from "./read-layers.ts";
import { type Captured, type LogHead, SegmentAppender } from "./segment-appender.ts";
import type { SegmentFolder } from "./segment-folder.ts";
import {
  groupFingerprint,
  groupIndex,
  type LogRecord,
  maxRecordData,
  type RecordKind,
  recordKind,
} from "./segment-format.ts";
import type { Segment, SegmentShelf } from "./segment-shelf.ts";
import type { WholeMoment } from "./whole-moments.ts";

export interface WriteLogLimits {
  /** A segment is ended, and can be shipped, at this size or this long after its first record. */
  readonly segmentBytes: number;
  readonly segmentAgeMs: number;
  /** A frame of so much is written at once; smaller ones wait for the flush that runs. */
  readonly fullFrameBytes: number;
  /** Bytes taken and not yet durable; beyond it writers wait. */
  readonly queueBytes: number;
  /** Extents in memory (52 bytes each) after which a fold is asked for; beyond twice as many, writers wait for it. */
  readonly extents: number;
}

export const defaultLimits: WriteLogLimits = {
  // Shipping holds one in memory.
  segmentBytes: 32 * 1024 * 1024,
  segmentAgeMs: 1000,
  fullFrameBytes: 1024 * 1024,
  queueBytes: 32 * 1024 * 1024,
  extents: 1_000_000,
};

export interface OpenWriteLogOptions {
  readonly folder: SegmentFolder;
  /** Letters, digits, `.`, `_` and `-`. */
  readonly group: string;
  /** 32 bytes, from the vault's key. */
  readonly logKey: Buffer;
  readonly clock: Clock;
  readonly points: PointStore;
  readonly limits?: Partial<WriteLogLimits>;
  /** Where a log that is begun in an empty folder starts, when points of an earlier one exist. */
  readonly startAfter?: { readonly sequence: number; readonly timeMs: number };
  /** It was brought back from the store, and its newest part is lost: it goes on with numbers that were never given, and no volume is whole. */
  readonly afterLoss?: boolean;
  readonly signal?: AbortSignal;
}

/** What opening found behind the last record that counts. */
export interface TornTail {
  readonly segment: string;
  readonly position: number;
  readonly bytes: number;
  readonly why: string;
}

/** What `openWriteLog` found. */
export interface OpenedLog {
  readonly shelf: SegmentShelf;
  readonly head: LogHead;
  readonly table: Map<number, LogVolume>;
  readonly live: Map<number, LiveVolume>;
  readonly tornTail: TornTail | undefined;
}

function reasonFor(volume: LogVolume, reason: SynchronisingReason): SynchronisingReason {
  if (volume.state === "released") return "taken_again";
  return isJoining(volume) ? volume.reason : reason;
}

export class WriteLog implements LogHistory, AsyncDisposable {
  readonly group: string;
  readonly shelf: SegmentShelf;
  readonly points: PointStore;
  readonly clock: Clock;
  readonly limits: WriteLogLimits;
  readonly tornTail: TornTail | undefined;
  /** Called with each segment that has ended, oldest first. */
  onSegmentEnded: (segment: Segment) => void = () => {};
  /** Called when memory asks for a fold. */
  onFoldWanted: () => void = () => {};
  readonly #folder: SegmentFolder;
  readonly #appender: SegmentAppender;
  readonly #table: Map<number, LogVolume>;
  readonly #live: Map<number, LiveVolume>;
  /** Events on their way, by sequence. */
  readonly #events = new Map<number, LogEvent>();
  readonly #lastWhole: LastWhole;
  #extents: number;
  #foldWaiters: (() => void)[] = [];
  #closed = false;

  /** Use `openWriteLog`. */
  constructor(options: OpenWriteLogOptions, opened: OpenedLog) {
    this.group = options.group;
    this.shelf = opened.shelf;
    this.points = options.points;
    this.clock = options.clock;
    this.limits = { ...defaultLimits, ...options.limits };
    this.tornTail = opened.tornTail;
    this.#folder = options.folder;
    this.#table = opened.table;
    this.#live = opened.live;
    this.#extents = this.#countExtents();
    const { nextSequence, timeMs } = opened.head;
    this.#lastWhole = new LastWhole(this.#table, { sequence: nextSequence - 1, timeMs });
    this.#appender = new SegmentAppender({
      ...this.limits,
      folder: options.folder,
      logKey: options.logKey,
      group: options.group,
      fingerprint: groupFingerprint(options.logKey, options.group),
      clock: options.clock,
      head: opened.head,
      opening: () => ({ group: this.group, volumes: [...this.#table.values()] }),
      onSegment: (segment) => this.#addSegment(segment),
      onDurable: (frames, head) => this.#onDurable(frames, head),
      onEnded: () => this.#endSegment(),
    });
  }

  /** The last durable record; 0 where there is none. */
  get lastRecord(): { readonly sequence: number; readonly timeMs: number } {
    const { nextSequence, timeMs } = this.#appender.head;
    return { sequence: nextSequence - 1, timeMs };
  }

  /** The last record taken; durable after a flush. */
  get lastTaken(): { readonly sequence: number; readonly timeMs: number } {
    return this.#appender.last;
  }

  /**
   * The last durable moment at which the group was whole; undefined while there was none. It may have left the log: then a point
   * holds it, or nothing does.
   */
  lastWhole(signal?: AbortSignal): Promise<WholeMoment | undefined> {
    return this.#lastWhole.find(this, signal);
  }

  /** Whether the moment after the record is still within the log. */
  reaches(sequence: number): boolean {
    return sequence + 1 >= (this.shelf.segments[0]?.header.firstSequence ?? 1);
  }

  get queuedBytes(): number {
    return this.#appender.queuedBytes;
  }

  /** Extents held in memory. */
  get extents(): number {
    return this.#extents;
  }

  /** Why nothing can be appended any more, if so. */
  get failed(): OperationalError | undefined {
    return this.#appender.failed;
  }

  /** As of the last durable record. */
  volumes(): readonly LogVolume[] {
    return [...this.#table.values()];
  }

  /** Errors: `not_found`. */
  volume(id: string): LogVolume {
    const volume = this.volumes().find((one) => one.id === id);
    if (volume === undefined)
      throw new OperationalError("not_found", `group ${this.group} has no volume ${id}`);
    return volume;
  }

  /**
   * Durable when it returns; the volume is being synchronised until `markContinuous`.
   * Errors: `state.conflict` if it exists, or if points of it have numbers that this log is yet to give.
   */
  async addVolume(id: string, sizeBytes: number): Promise<LogVolume> {
    if (this.volumes().some((volume) => volume.id === id))
      throw new OperationalError("state.conflict", `group ${this.group} has a volume ${id} already`);
    const newest = (await this.points.list(this.group, id)).at(-1);
    if (newest !== undefined && newest.sequence >= this.lastTaken.sequence)
      throw new OperationalError(
        "state.conflict",
        `a point of ${id} holds record ${newest.sequence}, and this log is at ${this.lastTaken.sequence}: it was begun anew. ` +
          `Stop the vault, then: understudy vault restore-log ${this.group}`,
      );
    const index = Math.max(-1, ...this.#table.keys()) + 1;
    await this.appendEvent({ type: "volume_added", index, id, sizeBytes });
    return this.volume(id);
  }

  /** Content beyond a smaller size is gone. */
  async resizeVolume(id: string, sizeBytes: number): Promise<void> {
    await this.appendEvent({ type: "volume_resized", index: this.volume(id).index, sizeBytes });
  }

  /** One that was not whole yet stays one that was not. */
  async markSynchronising(id: string, reason: SynchronisingReason): Promise<number> {
    const volume = this.volume(id);
    const event = { type: "synchronising", index: volume.index, reason: reasonFor(volume, reason) } as const;
    return (await this.appendEvent(event)).sequence;
  }

  async markContinuous(id: string, movedBytes: number): Promise<number> {
    const { index } = this.volume(id);
    return (await this.appendEvent({ type: "continuous", index, movedBytes })).sequence;
  }

  /** So much of the image has come. A first copy that was broken off stays one. */
  async markImage(id: string, image: VolumeImage): Promise<void> {
    const volume = this.volume(id);
    const reason = reasonFor(volume, "snapshot");
    await this.appendEvent({ type: "synchronising", index: volume.index, reason, image });
  }

  /** All of it has come, and what came is durable. */
  async markImageWhole(id: string, image: VolumeImage): Promise<void> {
    const { index, sizeBytes } = this.volume(id);
    const whole = { ...image, throughBytes: sizeBytes };
    await this.appendEvent({ type: "continuous", index, movedBytes: 0, image: whole });
  }

  /** It is captured no longer; what was captured stays for as long as the window says. */
  async releaseVolume(id: string): Promise<number> {
    return (await this.appendEvent({ type: "volume_released", index: this.volume(id).index })).sequence;
  }

  /** Durable when it returns, with the event's place. */
  async appendEvent(event: LogEvent): Promise<{ readonly sequence: number; readonly timeMs: number }> {
    this.#checkOpen();
    await this.#appender.room();
    const data = encodeEvent(event);
    const record = { volume: groupIndex, kind: recordKind.event, offset: 0, length: data.length };
    const { sequence, timeMs, durable } = this.#appender.append(record, data);
    this.#events.set(sequence, event);
    try {
      await durable;
    } finally {
      this.#events.delete(sequence);
    }
    return { sequence, timeMs };
  }

  /**
   * Takes a write. When it resolves, the write has its place in the sequence and the data is the caller's again; it is captured when
   * `durable` resolves. Waits while the queue is full. Errors: `disk.range`, `input.too_large`, `store.failing`.
   */
  async write(id: string, offset: number, data: Uint8Array, signal?: AbortSignal): Promise<Captured> {
    if (data.length > maxRecordData)
      throw new OperationalError(
        "input.too_large",
        `a write of ${data.length} bytes: at most ${maxRecordData} at once`,
      );
    return this.#take(id, recordKind.data, offset, data.length, data, signal);
  }

  async zero(id: string, offset: number, length: number, signal?: AbortSignal): Promise<Captured> {
    return this.#take(id, recordKind.zero, offset, length, undefined, signal);
  }

  /** The range reads as zeroes afterwards. */
  async trim(id: string, offset: number, length: number, signal?: AbortSignal): Promise<Captured> {
    return this.#take(id, recordKind.trim, offset, length, undefined, signal);
  }

  /** Everything taken before the call is durable. */
  flush(): Promise<void> {
    return this.#appender.flush();
  }

  /** The present content, with every write taken before the call. */
  async read(id: string, offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    return this.#present(id, offset, length, (layers) => readLayers(layers, offset, length, signal));
  }

  async extentsOf(id: string, offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    return this.#present(id, offset, length, (layers) => extentsOfLayers(layers, offset, length, signal));
  }

  /** The newest committed point that the volume's index stands on. */
  baseOf(id: string): CommittedPoint | undefined {
    return this.#live.get(this.volume(id).index)?.base;
  }

  /** A point was committed: what it holds leaves memory. */
  async adoptPoint(point: CommittedPoint): Promise<void> {
    const live = this.#live.get(this.volume(point.volumeId).index);
    invariant(live !== undefined, "a volume has its index");
    if ((live.base?.sequence ?? 0) >= point.sequence) return;
    const before = live.baseReader;
    live.base = point;
    live.baseReader = undefined;
    live.index.dropThrough(point.sequence);
    this.#extents = this.#countExtents();
    for (const wake of this.#foldWaiters.splice(0)) wake();
    await before?.retire();
  }

  /** Ends the present segment now, so that it can be shipped. */
  endSegment(): Promise<void> {
    return this.#appender.endSegment();
  }

  /** Reads and authenticates every byte. Errors: `vault.damaged`, for the first thing found. */
  async verify(signal?: AbortSignal): Promise<{ segments: number; records: number }> {
    let records = 0;
    const segments = this.shelf.segments.slice();
    const release = this.shelf.lease(segments[0]?.header.number ?? 0);
    try {
      for (const segment of segments) {
        const visit = (frame: { records: readonly LogRecord[] }): void =>
          void (records += frame.records.length);
        await this.shelf.scan(segment, "authenticate", visit, signal);
      }
      return { segments: segments.length, records };
    } finally {
      release();
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    for (const wake of this.#foldWaiters.splice(0)) wake();
    await this.#appender.close();
    for (const live of this.#live.values()) await live.baseReader?.retire();
    await this.shelf.close();
    await this.#folder.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #take(
    id: string,
    kind: RecordKind,
    offset: number,
    length: number,
    data: Uint8Array | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Captured> {
    this.#checkOpen();
    const volume = this.volume(id);
    checkRange(volume.sizeBytes, offset, length);
    if (length === 0) return { ...this.lastTaken, durable: Promise.resolve() };
    if (this.#extents > 2 * this.limits.extents) await this.#foldProgress(signal);
    if (this.#appender.queuedBytes >= this.limits.queueBytes) await this.#appender.room(signal);
    this.#checkOpen();
    return this.#appender.append({ volume: volume.index, kind, offset, length }, data);
  }

  #checkOpen(): void {
    if (this.#closed)
      throw new OperationalError("state.conflict", `the write log of ${this.group} is closed`);
  }

  async #foldProgress(signal: AbortSignal | undefined): Promise<void> {
    while (this.#extents > 2 * this.limits.extents && !this.#closed) {
      this.onFoldWanted();
      const waiter = Promise.withResolvers<void>();
      const abort = (): void => waiter.reject(signal?.reason as Error);
      if (signal?.aborted === true) abort();
      signal?.addEventListener("abort", abort, { once: true });
      this.#foldWaiters.push(waiter.resolve);
      try {
        await waiter.promise;
      } finally {
        signal?.removeEventListener("abort", abort);
      }
    }
  }

  /** Reads the present content; waits for the writes under way that the range would see. */
  async #present<T>(
    id: string,
    offset: number,
    length: number,
    work: (layers: Layers) => Promise<T>,
  ): Promise<T> {
    this.#checkOpen();
    const volume = this.volume(id);
    const live = this.#live.get(volume.index);
    invariant(live !== undefined, "a volume has its index");
    for (const record of this.#appender.pending())
      if (
        record.volume === volume.index &&
        record.offset < offset + length &&
        record.offset + record.length > offset
      ) {
        // What is refused is not seen: the content is what is durable.
        await this.#appender.flush().catch(() => {});
        break;
      }
    for (;;) {
      const { base } = live;
      const layers = { shelf: this.shelf, index: live.index, sizeBytes: volume.sizeBytes };
      if (base === undefined) return work({ ...layers, base: undefined });
      const shared = (live.baseReader ??= this.#openBase(live, base));
      // A fold may end while the base is opened: the index has lost then what only the new base holds. `work` looks the index up
      // before it waits for anything, so that it sees both as they were at one moment.
      const result = await shared.use(async (reader) =>
        live.base === base ? { value: await work({ ...layers, base: reader }) } : undefined,
      );
      if (result !== undefined) return result.value;
    }
  }

  /** For all readers: none of them ends it by going. */
  #openBase(live: LiveVolume, base: CommittedPoint): SharedReader {
    const opening = this.points.open(base);
    const shared = new SharedReader(opening);
    opening.catch(() => {
      if (live.baseReader === shared) live.baseReader = undefined;
    });
    return shared;
  }

  #countExtents(): number {
    let count = 0;
    for (const { index } of this.#live.values()) count += index.count;
    return count;
  }

  #addSegment(segment: LiveSegment): void {
    const { name, header, link } = segment;
    const { key } = segment.plan;
    const end = {
      position: 0,
      tag: link,
      nextSequence: header.firstSequence,
      lastTimeMs: header.timeMs,
    };
    this.shelf.add({ name, header, link, key, end, ended: false });
  }

  #onDurable(frames: readonly PlacedFrame[], head: LogHead): void {
    for (const frame of frames) for (const record of frame.records) this.#apply(frame, record);
    const segment = this.shelf.get(head.number);
    invariant(segment !== undefined, "the head's segment is on the shelf");
    const { position, tag, nextSequence, timeMs: lastTimeMs } = head;
    segment.end = { position, tag, nextSequence, lastTimeMs };
    this.#extents = this.#countExtents();
    if (this.#extents > this.limits.extents) this.onFoldWanted();
  }

  #apply(frame: PlacedFrame, record: LogRecord): void {
    if (record.kind !== recordKind.event) {
      const live = this.#live.get(record.volume);
      invariant(live !== undefined, "a record's volume has its index");
      applyRecord(live.index, record, frame);
    } else {
      const event = this.#events.get(record.sequence);
      invariant(event !== undefined, "an event that was appended is known");
      applyToVolumes(this.#table, this.#live, event, record.sequence);
    }
    this.#lastWhole.recorded(record.sequence, record.timeMs, record.kind === recordKind.event);
  }

  #endSegment(): void {
    const segment = this.shelf.segments.at(-1);
    if (segment === undefined || segment.ended) return;
    segment.ended = true;
    this.onSegmentEnded(segment);
  }
}
