/** The segment that is being written. Its position and tag move on only when the bytes are in the file. */
import { invariant } from "#kernel/invariant.ts";
import { type SealedFrame, sealPlainFrame } from "./frame-builder.ts";
import type { PendingFrame, SegmentPlan } from "./frame-queue.ts";
import { encodeOpening, type Opening } from "./log-event.ts";
import { type SegmentFile, type SegmentFolder, segmentName } from "./segment-folder.ts";
import {
  directoryLength,
  encodeSegmentHeader,
  frameHeaderBytes,
  frameType,
  headerLink,
  type LogRecord,
  type SegmentHeader,
} from "./segment-format.ts";

/** A frame's place in the log. */
export interface PlacedFrame {
  readonly segment: number;
  readonly frameNumber: number;
  readonly dataPosition: number;
  readonly dataBytes: number;
  readonly records: readonly LogRecord[];
}

export interface WrittenFrame {
  readonly frame: PlacedFrame;
  readonly pending: PendingFrame;
}

export interface NewSegment {
  readonly folder: SegmentFolder;
  readonly plan: SegmentPlan;
  readonly header: SegmentHeader;
  readonly opening: Opening;
}

/** Leaves no file behind when the disk is full. */
async function createFile(
  folder: SegmentFolder,
  name: string,
  buffers: readonly Buffer[],
): Promise<SegmentFile> {
  const file = await folder.create(name);
  try {
    await file.write(buffers, 0);
    await file.sync();
    return file;
  } catch (error) {
    await file.close();
    await folder.remove(name);
    throw error;
  }
}

export class LiveSegment {
  readonly plan: SegmentPlan;
  readonly header: SegmentHeader;
  readonly name: string;
  /** What its opening frame names as its predecessor. */
  readonly link: Buffer;
  readonly file: SegmentFile;
  #position: number;
  #tag: Buffer;
  #frameNumber = 0;
  #nextSequence: number;
  #timeMs: number;
  #marked = false;

  private constructor(segment: NewSegment, link: Buffer, file: SegmentFile, position: number, tag: Buffer) {
    const { plan, header } = segment;
    this.plan = plan;
    this.header = header;
    this.name = segmentName(header.number);
    this.link = link;
    this.file = file;
    this.#position = position;
    this.#tag = tag;
    this.#nextSequence = header.firstSequence;
    this.#timeMs = header.timeMs;
  }

  /** Header and opening frame are durable when it returns; the folder's entry is not yet. Errors: `store.full`, `store.failing`. */
  static async create(segment: NewSegment): Promise<LiveSegment> {
    const { folder, plan, header } = segment;
    const headerBytes = encodeSegmentHeader(header);
    const link = headerLink(headerBytes);
    const opening = sealPlainFrame(plan.key, {
      type: frameType.opening,
      frameNumber: 0,
      firstSequence: header.firstSequence,
      timeMs: header.timeMs,
      previousTag: link,
      durableEnd: 0,
      directory: encodeOpening(segment.opening),
    });
    const file = await createFile(folder, segmentName(header.number), [headerBytes, ...opening.buffers]);
    return new LiveSegment(segment, link, file, headerBytes.length + opening.lengthBytes, opening.tag);
  }

  get number(): number {
    return this.header.number;
  }

  /** Behind the last frame that was written, durable or not. */
  get position(): number {
    return this.#position;
  }

  get tag(): Buffer {
    return this.#tag;
  }

  get isMarked(): boolean {
    return this.#marked;
  }

  async writeFrames(frames: readonly PendingFrame[], durableEnd: number): Promise<WrittenFrame[]> {
    const buffers: Buffer[] = [];
    let [position, previousTag] = [this.#position, this.#tag];
    const placed = frames.map((pending): WrittenFrame => {
      const { records, dataBytes, frameNumber } = pending.builder;
      const dataPosition = position + frameHeaderBytes + directoryLength(records.length, dataBytes);
      const sealed = pending.builder.seal({ previousTag, durableEnd });
      buffers.push(...sealed.buffers);
      position += sealed.lengthBytes;
      previousTag = sealed.tag;
      return { pending, frame: { segment: this.number, frameNumber, dataPosition, dataBytes, records } };
    });
    await this.file.write(buffers, this.#position);
    this.#position = position;
    this.#tag = previousTag;
    const last = placed.at(-1)?.frame;
    const record = last?.records.at(-1);
    invariant(last !== undefined && record !== undefined, "frames with records");
    this.#frameNumber = last.frameNumber;
    this.#nextSequence = record.sequence + 1;
    this.#timeMs = record.timeMs;
    this.#marked = false;
    return placed;
  }

  /** At most one of each behind a frame: a second would use its nonce again. */
  async writePlain(type: typeof frameType.mark | typeof frameType.seal, durableEnd: number): Promise<void> {
    invariant(type === frameType.seal || !this.#marked, "one mark behind a frame");
    const sealed: SealedFrame = sealPlainFrame(this.plan.key, {
      type,
      frameNumber: this.#frameNumber,
      firstSequence: this.#nextSequence,
      timeMs: this.#timeMs,
      previousTag: this.#tag,
      durableEnd,
    });
    this.#marked = true;
    await this.file.write(sealed.buffers, this.#position);
    this.#position += sealed.lengthBytes;
    this.#tag = sealed.tag;
  }
}
