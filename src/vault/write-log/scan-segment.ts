/**
 * Walks a segment's frames in order and checks them: checksums, tags, the chain, numbers, sequence and time. Decides what an end is: the end, a
 * torn tail, or damage (docs/spec/write-log.md, "Opening").
 */
import type { KeyObject } from "node:crypto";
import { crc32 } from "node:zlib";
import { logDamaged } from "./log-damage.ts";
import { decodeEvent, decodeOpening, type LogEvent, type Opening } from "./log-event.ts";
import { readChunks, readFrameRange, unsealDirectory } from "./read-chunk.ts";
import type { SegmentFile } from "./segment-folder.ts";
import {
  chunkBytes,
  chunkCount,
  decodeFrameHeader,
  decodeRecords,
  frameBytes,
  type FrameHeader,
  frameHeaderBytes,
  frameType,
  type LogRecord,
  recordBytes,
  recordKind,
  sectorBytes,
  type SegmentHeader,
  segmentHeaderBytes,
  tagBytes,
} from "./segment-format.ts";

/** `directory`: what a reader at a moment needs. `checksum`: every byte. `authenticate`: every byte, and every chunk's tag. */
export type ScanDepth = "directory" | "checksum" | "authenticate";

export interface ScannedFrame {
  readonly header: FrameHeader;
  readonly position: number;
  readonly dataPosition: number;
  readonly records: readonly LogRecord[];
  /** By sequence. */
  readonly events: ReadonlyMap<number, LogEvent>;
  readonly opening: Opening | undefined;
}

export interface SegmentEnd {
  /** Behind the last frame that counts. */
  readonly position: number;
  readonly tag: Buffer;
  readonly nextSequence: number;
  readonly lastTimeMs: number;
  readonly sealed: boolean;
  /** What was cut behind it, and why; only in a log's last segment. */
  readonly torn: { readonly bytes: number; readonly why: string } | undefined;
}

export interface ScanSegment {
  readonly file: SegmentFile;
  readonly name: string;
  readonly header: SegmentHeader;
  /** What the opening frame must name as its predecessor. */
  readonly link: Buffer;
  readonly key: KeyObject;
  readonly depth: ScanDepth;
  /** What the successor says, or what is already known; without it this is the last segment, which may have a torn tail. */
  readonly expected?:
    | { readonly position: number; readonly tag: Buffer; readonly nextSequence: number }
    | undefined;
  /** `stop` ends the scan early; the answer then is the end of what was visited. */
  readonly visit: (frame: ScannedFrame) => "stop" | void;
  readonly signal?: AbortSignal | undefined;
}

interface Problem {
  readonly why: string;
  /** Nothing but a deliberate change or a fault of the storage explains it, also at the end. */
  readonly certain?: boolean;
}

interface Walk {
  position: number;
  tag: Buffer;
  frameNumber: number;
  nextSequence: number;
  timeMs: number;
  sealed: boolean;
  /** A mark or seal was seen behind the last numbered frame. */
  marked: boolean;
}

const windowBytes = 65_536;

/** Reads ahead a little, so that small frames cost no read each. */
class Window {
  readonly #file: SegmentFile;
  readonly #buffer = Buffer.allocUnsafe(windowBytes);
  #start = 0;
  #length = 0;

  constructor(file: SegmentFile) {
    this.#file = file;
  }

  /** Fewer bytes than asked only at the file's end. Valid until the next call. */
  async at(position: number, length: number): Promise<Buffer> {
    if (length > windowBytes) {
      const large = Buffer.allocUnsafe(length);
      return large.subarray(0, await this.#file.read(large, position));
    }
    if (position < this.#start || position + length > this.#start + this.#length) {
      this.#length = await this.#file.read(this.#buffer, position);
      this.#start = position;
    }
    const from = position - this.#start;
    return this.#buffer.subarray(from, Math.min(from + length, this.#length));
  }
}

async function bodyChecksum(
  file: SegmentFile,
  from: number,
  to: number,
  signal: AbortSignal | undefined,
): Promise<number | undefined> {
  const buffer = Buffer.allocUnsafe(Math.min(1024 * 1024, Math.max(to - from, 1)));
  let crc = 0;
  for (let at = from; at < to;) {
    signal?.throwIfAborted();
    const part = buffer.subarray(0, Math.min(buffer.length, to - at));
    if ((await file.read(part, at)) < part.length) return undefined;
    crc = crc32(part, crc);
    at += part.length;
  }
  return crc;
}

async function chunkProblem(
  scan: ScanSegment,
  frame: FrameHeader,
  dataPosition: number,
  tags: Buffer,
): Promise<string | undefined> {
  const data = { frameNumber: frame.frameNumber, dataPosition, dataBytes: frame.dataBytes };
  for (let chunk = 0; chunk < chunkCount(frame.dataBytes); chunk += 1) {
    scan.signal?.throwIfAborted();
    const [plain] = await readChunks(scan.file, scan.key, data, chunk, chunk);
    if (plain === undefined) return `data chunk ${chunk} of frame ${frame.frameNumber} does not authenticate`;
    const tag = Buffer.allocUnsafe(tagBytes);
    await scan.file.read(tag, dataPosition + chunk * (chunkBytes + tagBytes) + plain.length);
    if (!tag.equals(tags.subarray(chunk * tagBytes, (chunk + 1) * tagBytes)))
      return `data chunk ${chunk} of frame ${frame.frameNumber} is not the one that its directory names`;
  }
  return undefined;
}

async function readEvents(
  scan: ScanSegment,
  frame: FrameHeader,
  dataPosition: number,
  records: readonly LogRecord[],
): Promise<Map<number, LogEvent> | Problem> {
  const events = new Map<number, LogEvent>();
  const data = { frameNumber: frame.frameNumber, dataPosition, dataBytes: frame.dataBytes };
  for (const record of records) {
    if (record.kind !== recordKind.event) continue;
    const bytes = await readFrameRange(scan.file, scan.key, data, record.at, record.length);
    const event = bytes === undefined ? undefined : decodeEvent(bytes);
    if (event === undefined) return { why: `event ${record.sequence} cannot be read` };
    events.set(record.sequence, event);
  }
  return events;
}

/** What ties a frame to the one before it. */
function linkProblem(walk: Walk, frame: FrameHeader): Problem | undefined {
  if (!frame.previousTag.equals(walk.tag)) return { why: "the frame does not follow the one before it" };
  const numbered = frame.type === frameType.opening || frame.type === frameType.records;
  const ordered =
    frame.frameNumber === walk.frameNumber + (numbered ? 1 : 0) &&
    (frame.type === frameType.opening) === (frame.frameNumber === 0 && numbered) &&
    frame.firstSequence === walk.nextSequence &&
    frame.timeMs >= walk.timeMs &&
    frame.durableEnd <= walk.position &&
    !(walk.marked && !numbered && frame.type === frameType.mark) &&
    !walk.sealed;
  return ordered ? undefined : { why: "the frame's numbers do not continue those before it", certain: true };
}

async function readFrame(
  scan: ScanSegment,
  window: Window,
  walk: Walk,
  limit: number,
): Promise<ScannedFrame | Problem> {
  const { position } = walk;
  const head = Buffer.from(await window.at(position, frameHeaderBytes));
  const header = decodeFrameHeader(head);
  if (header === undefined)
    return {
      why: head.length < frameHeaderBytes ? "the file ends in a frame's header" : "no frame's header is here",
    };
  const end = position + frameBytes(header);
  if (end > limit) return { why: "the file ends in the midst of a frame" };
  const unlinked = linkProblem(walk, header);
  if (unlinked !== undefined) return unlinked;
  const directoryAt = position + frameHeaderBytes;
  const checked = scan.depth !== "directory" || header.type === frameType.opening;
  if (checked && (await bodyChecksum(scan.file, directoryAt, end, scan.signal)) !== header.bodyCrc)
    return { why: "the frame's checksum does not fit" };
  const sealed = await window.at(directoryAt, header.directoryBytes);
  const directory =
    sealed.length === header.directoryBytes ? unsealDirectory(scan.key, header, head, sealed) : undefined;
  if (directory === undefined)
    return { why: "the frame's directory does not authenticate", certain: checked };
  const dataPosition = directoryAt + header.directoryBytes;
  const base = { header, position, dataPosition };
  if (header.type === frameType.opening) {
    const opening = decodeOpening(directory);
    if (opening === undefined) return { why: "the opening frame cannot be read", certain: true };
    return { ...base, records: [], events: new Map(), opening };
  }
  const records = decodeRecords(directory, header);
  if (records === undefined) return { why: "the frame's records cannot be read", certain: true };
  if (scan.depth === "authenticate") {
    const why = await chunkProblem(
      scan,
      header,
      dataPosition,
      directory.subarray(header.recordCount * recordBytes),
    );
    if (why !== undefined) return { why, certain: true };
  }
  const events = await readEvents(scan, header, dataPosition, records);
  return "why" in events ? events : { ...base, records, events, opening: undefined };
}

/** Does a later frame prove that what was at `position` had been durable? */
async function isProvenDurable(scan: ScanSegment, position: number, limit: number): Promise<boolean> {
  const window = new Window(scan.file);
  for (let at = position + sectorBytes; at + frameHeaderBytes <= limit; at += sectorBytes) {
    const head = Buffer.from(await window.at(at, frameHeaderBytes));
    const header = decodeFrameHeader(head);
    if (header === undefined || header.durableEnd <= position) continue;
    const sealed = await window.at(at + frameHeaderBytes, header.directoryBytes);
    if (sealed.length < header.directoryBytes) continue;
    if (unsealDirectory(scan.key, header, head, sealed) !== undefined) return true;
  }
  return false;
}

function advance(walk: Walk, frame: ScannedFrame): void {
  const { header } = frame;
  walk.position = frame.position + frameBytes(header);
  walk.tag = header.tag;
  walk.frameNumber = header.frameNumber;
  walk.nextSequence = header.firstSequence + header.recordCount;
  walk.timeMs = frame.records.at(-1)?.timeMs ?? header.timeMs;
  walk.sealed = header.type === frameType.seal;
  walk.marked = header.type === frameType.mark;
}

const endOf = (walk: Walk, torn: SegmentEnd["torn"]): SegmentEnd => ({
  position: walk.position,
  tag: walk.tag,
  nextSequence: walk.nextSequence,
  lastTimeMs: walk.timeMs,
  sealed: walk.sealed,
  torn,
});

/** Errors: `vault.damaged`, naming file, position and what is wrong. */
export async function scanSegment(scan: ScanSegment): Promise<SegmentEnd> {
  const { expected, header } = scan;
  const fileBytes = await scan.file.sizeBytes();
  const limit = expected?.position ?? fileBytes;
  if (limit > fileBytes) throw logDamaged(scan.name, fileBytes, `it should be ${limit} bytes long`);
  const window = new Window(scan.file);
  const walk: Walk = {
    position: segmentHeaderBytes,
    tag: scan.link,
    frameNumber: -1,
    nextSequence: header.firstSequence,
    timeMs: header.timeMs,
    sealed: false,
    marked: false,
  };
  while (walk.position < limit) {
    scan.signal?.throwIfAborted();
    const frame = await readFrame(scan, window, walk, limit);
    if ("why" in frame) {
      const cut = expected === undefined && frame.certain !== true;
      if (!cut || (await isProvenDurable(scan, walk.position, fileBytes)))
        throw logDamaged(scan.name, walk.position, frame.why);
      return endOf(walk, { bytes: fileBytes - walk.position, why: frame.why });
    }
    advance(walk, frame);
    if (scan.visit(frame) === "stop") return endOf(walk, undefined);
  }
  if (
    expected !== undefined &&
    (!walk.tag.equals(expected.tag) || walk.nextSequence !== expected.nextSequence)
  )
    throw logDamaged(scan.name, walk.position, "the next segment does not follow its last frame");
  return endOf(walk, undefined);
}
