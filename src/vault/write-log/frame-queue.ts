/** What was appended and is not written yet: frames in order, and where segments end between them. */
import { type KeyObject, randomBytes } from "node:crypto";
import { FrameBuilder } from "./frame-builder.ts";
import { type LogRecord, maxFrameData, maxFrameRecords, segmentKey } from "./segment-format.ts";

/** A segment as its frames see it: they are encrypted before its file exists. */
export interface SegmentPlan {
  readonly salt: Buffer;
  readonly key: KeyObject;
  readonly startedMs: number;
  nextFrame: number;
  bytes: number;
}

export interface PendingFrame {
  readonly type: "frame";
  readonly plan: SegmentPlan;
  readonly builder: FrameBuilder;
  readonly durable: PromiseWithResolvers<void>;
}

/** `end`: the plan's segment ends here. `mark`: it fell idle. */
export type WriteJob = PendingFrame | { readonly type: "end" | "mark"; readonly plan: SegmentPlan };

export interface FrameQueueOptions {
  readonly logKey: Buffer;
  readonly group: string;
  readonly segmentBytes: number;
  readonly fullFrameBytes: number;
  readonly monotonicMs: () => number;
}

export class FrameQueue {
  readonly #options: FrameQueueOptions;
  #jobs: WriteJob[] = [];
  #partial: PendingFrame | undefined;
  #plan: SegmentPlan | undefined;

  constructor(options: FrameQueueOptions) {
    this.#options = options;
  }

  /** The segment that the next record goes to; undefined: one of its own. */
  get plan(): SegmentPlan | undefined {
    return this.#plan;
  }

  get first(): WriteJob | undefined {
    return this.#jobs[0];
  }

  get hasPartial(): boolean {
    return this.#partial !== undefined;
  }

  get lastFrame(): PendingFrame | undefined {
    return this.#partial ?? this.#jobs.findLast((job) => job.type === "frame");
  }

  *records(): Iterable<LogRecord> {
    for (const job of this.#jobs) if (job.type === "frame") yield* job.builder.records;
    if (this.#partial !== undefined) yield* this.#partial.builder.records;
  }

  /** The frame that takes a record with so much data now. */
  frameFor(dataBytes: number, timeMs: number): PendingFrame {
    if (this.#partial !== undefined) {
      const { builder } = this.#partial;
      const fits =
        builder.dataBytes < this.#options.fullFrameBytes &&
        builder.dataBytes + dataBytes <= maxFrameData &&
        builder.records.length < maxFrameRecords &&
        timeMs - (builder.records[0]?.timeMs ?? timeMs) < 2 ** 31;
      if (fits) return this.#partial;
      this.closeFrame();
    }
    if (this.#plan !== undefined && this.#plan.bytes >= this.#options.segmentBytes) this.endPlan();
    const plan = (this.#plan ??= this.#newPlan());
    const builder = new FrameBuilder(plan.key, plan.nextFrame);
    plan.nextFrame += 1;
    const durable = Promise.withResolvers<void>();
    // Whoever waits sees the failure; nobody has to wait.
    durable.promise.catch(() => {});
    this.#partial = { type: "frame", plan, builder, durable };
    return this.#partial;
  }

  /** The partial frame takes nothing more. */
  closeFrame(): void {
    if (this.#partial !== undefined) this.#jobs.push(this.#partial);
    this.#partial = undefined;
  }

  /** The next record begins a new segment. */
  endPlan(): void {
    this.closeFrame();
    if (this.#plan !== undefined) this.#jobs.push({ type: "end", plan: this.#plan });
    this.#plan = undefined;
  }

  mark(plan: SegmentPlan): void {
    this.#jobs.push({ type: "mark", plan });
  }

  shift(): WriteJob | undefined {
    return this.#jobs.shift();
  }

  /** Empties the queue and gives up its segment: none of its keys encrypts anything more. */
  drop(): PendingFrame[] {
    this.closeFrame();
    const frames = this.#jobs.filter((job) => job.type === "frame");
    this.#jobs = [];
    this.#plan = undefined;
    return frames;
  }

  #newPlan(): SegmentPlan {
    const salt = randomBytes(32);
    const key = segmentKey(this.#options.logKey, salt, this.#options.group);
    return { salt, key, startedMs: this.#options.monotonicMs(), nextFrame: 1, bytes: 0 };
  }
}
