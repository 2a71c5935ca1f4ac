/** The segments that there are: their facts in memory, their files opened as needed, and who stands on them. */
import type { KeyObject } from "node:crypto";
import { invariant } from "#kernel/invariant.ts";
import { follows, mayHaveLost } from "./after-loss.ts";
import { logDamaged, logKeyWrong } from "./log-damage.ts";
import { chunkLength, chunkPosition, type FrameData, readChunks } from "./read-chunk.ts";
import { type ScanDepth, type ScannedFrame, scanSegment, type SegmentEnd } from "./scan-segment.ts";
import { type SegmentFile, type SegmentFolder, segmentName, segmentNumber } from "./segment-folder.ts";
import {
  decodeSegmentHeader,
  frameHeaderBytes,
  decodeFrameHeader,
  groupFingerprint,
  headerLink,
  type SegmentHeader,
  segmentHeaderBytes,
  segmentKey,
} from "./segment-format.ts";

export interface Segment {
  readonly name: string;
  readonly header: SegmentHeader;
  /** What its opening frame names as its predecessor. */
  readonly link: Buffer;
  readonly key: KeyObject;
  /** The durable end. */
  end: {
    readonly position: number;
    readonly tag: Buffer;
    readonly nextSequence: number;
    readonly lastTimeMs: number;
  };
  /** Nothing is appended to it any more. */
  ended: boolean;
}

interface OpenFile {
  readonly file: Promise<SegmentFile>;
  users: number;
  /** To be closed by its last user. */
  leaving: boolean;
}

/** Open files at most: a reader over a long history opens one after another. */
const maxOpenFiles = 128;
/** Decrypted chunks at most, 64 KiB each. */
const maxChunks = 64;

export class SegmentShelf {
  readonly folder: SegmentFolder;
  readonly #segments: Segment[] = [];
  readonly #files = new Map<number, OpenFile>();
  readonly #chunks = new Map<string, Buffer>();
  /** Lowest segment number that a reader needs. */
  readonly #leases = new Set<{ readonly from: number }>();
  /** One after the other, so that none goes before the one before it. */
  #removing: Promise<unknown> = Promise.resolve();

  constructor(folder: SegmentFolder) {
    this.folder = folder;
  }

  get segments(): readonly Segment[] {
    return this.#segments;
  }

  add(segment: Segment): void {
    this.#segments.push(segment);
  }

  get(number: number): Segment | undefined {
    const first = this.#segments[0];
    return first === undefined ? undefined : this.#segments[number - first.header.number];
  }

  /** Where a scan for what comes after `sequence` starts: the last segment whose first sequence is at most the one after it. */
  from(sequence: number): readonly Segment[] {
    const index = this.#segments.findLastIndex((segment) => segment.header.firstSequence <= sequence + 1);
    return this.#segments.slice(Math.max(index, 0));
  }

  /** Whether the record was given a number, and lost before the log was brought back from the store (`after-loss.ts`). */
  isLost(sequence: number): boolean {
    const index = this.#segments.findLastIndex((segment) => segment.header.firstSequence <= sequence);
    const segment = this.#segments[index];
    return (
      segment !== undefined && this.#segments[index + 1] !== undefined && sequence >= segment.end.nextSequence
    );
  }

  /** Keeps the segments from `from` on. */
  lease(from: number): () => void {
    const lease = { from };
    this.#leases.add(lease);
    return () => void this.#leases.delete(lease);
  }

  get firstLeased(): number {
    return Math.min(Number.POSITIVE_INFINITY, ...[...this.#leases].map(({ from }) => from));
  }

  /** Runs `work` with the segment's file, which is not closed meanwhile. */
  async withFile<T>(segment: Segment, work: (file: SegmentFile) => Promise<T>): Promise<T> {
    const open = this.#openFile(segment);
    open.users += 1;
    try {
      return await work(await open.file);
    } finally {
      open.users -= 1;
      if (open.leaving && open.users === 0) await closeQuietly(open);
    }
  }

  /** A decrypted chunk. Errors: `vault.damaged`. */
  async chunk(number: number, frame: FrameData, chunk: number, signal?: AbortSignal): Promise<Buffer> {
    const id = `${number}:${frame.dataPosition}:${chunk}`;
    const known = this.#chunks.get(id);
    if (known !== undefined) {
      this.#chunks.delete(id);
      this.#chunks.set(id, known);
      return known;
    }
    signal?.throwIfAborted();
    const segment = this.get(number);
    invariant(segment !== undefined, `segment ${number} is on the shelf`);
    const [plain] = await this.chunks(segment, frame, chunk, chunk);
    invariant(plain !== undefined, "one chunk was asked for");
    this.#chunks.set(id, plain);
    const oldest = this.#chunks.size > maxChunks ? this.#chunks.keys().next().value : undefined;
    if (oldest !== undefined) this.#chunks.delete(oldest);
    return plain;
  }

  /** Chunks `first` to `last` in one read, past the cache. Errors: `vault.damaged`. */
  async chunks(segment: Segment, frame: FrameData, first: number, last: number): Promise<Buffer[]> {
    const plain = await this.withFile(segment, (file) => readChunks(file, segment.key, frame, first, last));
    return plain.map((chunk, index) => {
      if (chunk !== undefined && chunk.length === chunkLength(frame, first + index)) return chunk;
      const at = chunkPosition(frame, first + index);
      const what = `data chunk ${first + index} of frame ${frame.frameNumber} does not authenticate`;
      throw logDamaged(segment.name, at, what);
    });
  }

  async scan(
    segment: Segment,
    depth: ScanDepth,
    visit: (frame: ScannedFrame) => "stop" | void,
    signal?: AbortSignal,
  ): Promise<SegmentEnd> {
    const { end: expected } = segment;
    return this.withFile(segment, (file) =>
      scanSegment({ ...segment, file, depth, expected, visit, signal }),
    );
  }

  /**
   * Takes the oldest segment away; durable when it returns. From the call on, no reader finds it. False, and nothing is done, if it is not
   * the oldest any more, the only one, or if a reader has come to stand on it.
   */
  removeFirst(segment: Segment): Promise<boolean> {
    const done = this.#removing.then(() => this.#removeIfFirst(segment));
    this.#removing = done.catch(() => {});
    return done;
  }

  async #removeIfFirst(segment: Segment): Promise<boolean> {
    const [first] = this.#segments;
    if (first !== segment || this.#segments.length === 1 || segment.header.number >= this.firstLeased)
      return false;
    invariant(first.ended, "what is being written is not removed");
    this.#segments.shift();
    try {
      await this.#closeFile(first.header.number);
      await this.folder.remove(first.name);
      await this.folder.syncEntries();
      return true;
    } catch (error) {
      // The next to go is this one again: a later one that went before it would leave a hole.
      this.#segments.unshift(first);
      throw error;
    }
  }

  async close(): Promise<void> {
    for (const number of this.#files.keys()) await this.#closeFile(number);
    this.#chunks.clear();
  }

  #openFile(segment: Segment): OpenFile {
    const { number } = segment.header;
    const known = this.#files.get(number);
    if (known !== undefined) {
      this.#files.delete(number);
      this.#files.set(number, known);
      return known;
    }
    const open: OpenFile = { file: this.folder.open(segment.name), users: 0, leaving: false };
    this.#files.set(number, open);
    open.file.catch(() => this.#files.delete(number));
    const oldest = this.#files.size > maxOpenFiles ? this.#files.keys().next().value : undefined;
    if (oldest !== undefined) void this.#closeFile(oldest);
    return open;
  }

  async #closeFile(number: number): Promise<void> {
    const open = this.#files.get(number);
    this.#files.delete(number);
    if (open === undefined) return;
    open.leaving = true;
    if (open.users === 0) await closeQuietly(open);
  }
}

/** A file that was only read: that it cannot be closed, or could not be opened, changes nothing. */
async function closeQuietly(open: OpenFile): Promise<void> {
  await open.file.then((file) => file.close()).catch(() => {});
}

interface FoundSegment {
  readonly name: string;
  readonly header: SegmentHeader;
  readonly headerBytes: Buffer;
}

async function holdsFrames(file: SegmentFile): Promise<boolean> {
  const size = await file.sizeBytes();
  const head = Buffer.allocUnsafe(frameHeaderBytes);
  // Frame 1 and what follows: an opening frame alone holds no record.
  for (let at = segmentHeaderBytes; at + frameHeaderBytes <= size; at += 512) {
    await file.read(head, at);
    const header = decodeFrameHeader(head);
    if (header !== undefined && header.frameNumber > 0) return true;
  }
  return false;
}

async function readHeader(
  folder: SegmentFolder,
  name: string,
  isLast: boolean,
): Promise<FoundSegment | "unfinished"> {
  const file = await folder.open(name);
  try {
    const headerBytes = Buffer.alloc(segmentHeaderBytes);
    const got = await file.read(headerBytes, 0);
    const header = got === segmentHeaderBytes ? decodeSegmentHeader(headerBytes) : undefined;
    if (header !== undefined && header.number === (segmentNumber(name) ?? header.number))
      return { name, header, headerBytes };
    if (header !== undefined) throw logDamaged(name, 8, `it says that it is segment ${header.number}`);
    if (isLast && !(await holdsFrames(file))) return "unfinished";
    throw logDamaged(name, 0, "no segment header is here");
  } finally {
    await file.close();
  }
}

async function readHeaders(
  folder: SegmentFolder,
): Promise<{ found: FoundSegment[]; unfinished: string | undefined }> {
  const names = (await folder.list()).sort();
  const found: FoundSegment[] = [];
  let unfinished: string | undefined;
  for (const [index, name] of names.entries()) {
    const one = await readHeader(folder, name, index === names.length - 1);
    if (one === "unfinished") unfinished = name;
    else found.push(one);
  }
  return { found: found.sort((a, b) => a.header.number - b.header.number), unfinished };
}

function checkNeighbours(before: FoundSegment, after: FoundSegment): void {
  if (after.header.number !== before.header.number + 1)
    throw logDamaged(segmentName(before.header.number + 1), 0, "the segment is missing");
  if (after.header.firstSequence < before.header.firstSequence || after.header.timeMs < before.header.timeMs)
    throw logDamaged(after.name, 16, "it does not continue the segment before it");
}

export interface OpenedShelf {
  readonly shelf: SegmentShelf;
  /** How the last segment ends; without segments nothing. */
  readonly last: SegmentEnd | undefined;
}

/**
 * Reads the headers and the whole of the last segment.
 * Errors: `vault.key` when the key is another one's, `vault.damaged`.
 */
export async function openSegmentShelf(
  folder: SegmentFolder,
  logKey: Buffer,
  group: string,
  signal?: AbortSignal,
): Promise<OpenedShelf> {
  const { found, unfinished } = await readHeaders(folder);
  const fingerprint = groupFingerprint(logKey, group);
  const shelf = new SegmentShelf(folder);
  for (const [index, { name, header, headerBytes }] of found.entries()) {
    if (!header.fingerprint.equals(fingerprint)) throw logKeyWrong(folder.name);
    const next = found[index + 1];
    if (next !== undefined) checkNeighbours({ name, header, headerBytes }, next);
    const following = next?.header;
    shelf.add({
      name,
      header,
      link: headerLink(headerBytes),
      key: segmentKey(logKey, header.salt, group),
      end: {
        position: following?.previousEnd ?? 0,
        tag: following?.previousTag ?? Buffer.alloc(0),
        nextSequence: following?.firstSequence ?? header.firstSequence,
        lastTimeMs: following?.timeMs ?? header.timeMs,
      },
      ended: true,
    });
  }
  await findLosses(shelf, signal);
  const segment = shelf.segments.at(-1);
  const last = segment === undefined ? undefined : await scanLast(shelf, segment, signal);
  if (segment !== undefined && last !== undefined) segment.end = last;
  if (unfinished !== undefined) {
    await folder.remove(unfinished);
    await folder.syncEntries();
  }
  return { shelf, last };
}

/** A segment's end is its successor's beginning, but for where records were lost between the two. */
async function findLosses(shelf: SegmentShelf, signal: AbortSignal | undefined): Promise<void> {
  for (const [index, segment] of shelf.segments.entries()) {
    const next = shelf.segments[index + 1]?.header;
    if (next === undefined || !mayHaveLost(segment.header.firstSequence, next.firstSequence)) continue;
    const end = await shelf.withFile(segment, (file) =>
      scanSegment({ ...segment, file, depth: "directory", visit: () => {}, signal }),
    );
    const isEnd = end.position === next.previousEnd && end.tag.equals(next.previousTag);
    if (!isEnd || !follows(next.firstSequence, end.nextSequence))
      throw logDamaged(segment.name, end.position, "the next segment does not follow its last frame");
    segment.end = { ...segment.end, nextSequence: end.nextSequence };
  }
}

/** Without an end that is known: this one may have a torn tail. */
async function scanLast(
  shelf: SegmentShelf,
  segment: Segment,
  signal: AbortSignal | undefined,
): Promise<SegmentEnd> {
  return shelf.withFile(segment, (file) =>
    scanSegment({ ...segment, file, depth: "checksum", visit: () => {}, signal }),
  );
}
