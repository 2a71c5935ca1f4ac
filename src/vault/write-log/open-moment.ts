/** A volume as it was at any moment of the window: the last point before it, and the log up to it. */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockReader, Extent } from "#model/block-device.ts";
import { applyRecord, applyResize } from "./apply-record.ts";
import { ExtentIndex } from "./extent-index.ts";
import { applyEvent, type LogVolume } from "./log-event.ts";
import type { CommittedPoint, PointStore } from "./point-store.ts";
import { extentsOfLayers, type Layers, readLayers } from "./read-layers.ts";
import { logDamaged } from "./log-damage.ts";
import type { LogRecord } from "./segment-format.ts";
import type { ScannedFrame } from "./scan-segment.ts";
import type { Segment, SegmentShelf } from "./segment-shelf.ts";

/** A record of the log, or a time: the last record at or before it. */
export type Moment = { readonly sequence: number } | { readonly timeMs: number };

/** A log that can be read back: the live one, or what was shipped of it. */
export interface LogHistory {
  readonly group: string;
  readonly shelf: SegmentShelf;
  readonly points: PointStore;
  /** The last durable record. */
  readonly lastRecord: { readonly sequence: number; readonly timeMs: number };
}

export interface MomentReader extends BlockReader {
  /** The last record that it holds. */
  readonly sequence: number;
  readonly timeMs: number;
  readonly volume: LogVolume;
  readonly base: CommittedPoint | undefined;
  /** What the log holds over the base: where the content may differ from it. In order, disjoint. */
  readonly changed: () => Extent[];
}

export interface OpenMomentOptions {
  /** Also while the volume is being synchronised, when its content is no state that it ever had. */
  readonly evenIncomplete?: boolean;
  readonly signal?: AbortSignal;
}

const isWithin = (moment: Moment, record: { readonly sequence: number; readonly timeMs: number }): boolean =>
  "sequence" in moment ? record.sequence <= moment.sequence : record.timeMs <= moment.timeMs;

export const describeMoment = (moment: Moment): string =>
  "sequence" in moment ? `record ${moment.sequence}` : new Date(moment.timeMs).toISOString();

/** What a scan has seen so far. */
interface Replay {
  readonly volumeId: string;
  readonly base: CommittedPoint | undefined;
  readonly index: ExtentIndex;
  readonly table: Map<number, LogVolume>;
  sequence: number;
  timeMs: number;
}

function replayFrame(replay: Replay, segment: Segment, frame: ScannedFrame, moment: Moment): "stop" | void {
  if (frame.opening !== undefined) {
    replay.table.clear();
    for (const volume of frame.opening.volumes) replay.table.set(volume.index, volume);
  }
  for (const record of frame.records) {
    if (!isWithin(moment, record)) return "stop";
    replayRecord(replay, segment, frame, record);
  }
}

function replayRecord(replay: Replay, segment: Segment, frame: ScannedFrame, record: LogRecord): void {
  replay.sequence = record.sequence;
  replay.timeMs = record.timeMs;
  const beyondBase = record.sequence > (replay.base?.sequence ?? 0);
  const event = frame.events.get(record.sequence);
  if (event !== undefined) {
    const before = "index" in event ? replay.table.get(event.index) : undefined;
    if (!applyEvent(replay.table, event, record.sequence))
      throw logDamaged(
        segment.name,
        frame.position,
        `event ${record.sequence} does not fit what was before it`,
      );
    if (before?.id !== replay.volumeId || event.type !== "volume_resized" || !beyondBase) return;
    applyResize(replay.index, before.sizeBytes, event.sizeBytes, record.sequence);
    return;
  }
  if (!beyondBase || replay.table.get(record.volume)?.id !== replay.volumeId) return;
  const { header, dataPosition } = frame;
  const place = { segment: segment.header.number, frameNumber: header.frameNumber, dataPosition };
  applyRecord(replay.index, record, { ...place, dataBytes: header.dataBytes });
}

function tooOld(moment: Moment): OperationalError {
  return new OperationalError(
    "not_found",
    `the write log does not reach back to ${describeMoment(moment)}: choose a later moment, or a point`,
  );
}

function lostRecord(sequence: number): OperationalError {
  return new OperationalError(
    "not_found",
    `record ${sequence} was lost before it was shipped, when the write log was brought back from the store: choose another moment`,
  );
}

/** The newest point that the moment can stand on, and the segments from there on. */
async function findStart(
  history: LogHistory,
  volumeId: string,
  moment: Moment,
  signal: AbortSignal | undefined,
): Promise<{ base: CommittedPoint | undefined; segments: readonly Segment[] }> {
  const points = await history.points.list(history.group, volumeId, signal);
  const first = history.shelf.segments[0]?.header.firstSequence ?? 1;
  // A point that the log does not reach back to is no base, nor is one of what was lost.
  const { shelf, lastRecord } = history;
  const isBase = ({ sequence }: CommittedPoint): boolean =>
    sequence + 1 >= first && sequence <= lastRecord.sequence && !shelf.isLost(sequence);
  const base = points.findLast((point) => isWithin(moment, point) && isBase(point));
  return { base, segments: history.shelf.from(base?.sequence ?? 0) };
}

function checkVolume(
  replay: Replay,
  segments: readonly Segment[],
  moment: Moment,
  evenIncomplete: boolean,
): LogVolume {
  const volume = [...replay.table.values()].find(({ id }) => id === replay.volumeId);
  if (volume === undefined)
    throw new OperationalError(
      "not_found",
      `there was no volume ${replay.volumeId} at ${describeMoment(moment)}`,
    );
  // First of all: behind the window, the state is that of the window's beginning, which says nothing of the moment.
  const [first] = segments;
  if (replay.base === undefined && first !== undefined && volume.added < first.header.firstSequence)
    throw tooOld(moment);
  if (volume.state === "synchronising" && !evenIncomplete)
    throw new OperationalError(
      "state.conflict",
      `${replay.volumeId} was being synchronised at ${describeMoment(moment)} (${volume.reason}): its content was no state of the disk`,
    );
  if (volume.state === "released" && !evenIncomplete)
    throw new OperationalError(
      "state.conflict",
      `${replay.volumeId} was not captured any more at ${describeMoment(moment)}`,
    );
  return volume;
}

/**
 * Opens a volume at a moment. What it stands on is kept until it is disposed of.
 * Errors: `not_found` (before the window, after the end, no such volume), `state.conflict` (not whole then), `vault.damaged`.
 */
export async function openMoment(
  history: LogHistory,
  volumeId: string,
  moment: Moment,
  options: OpenMomentOptions = {},
): Promise<MomentReader> {
  const { signal } = options;
  if ("sequence" in moment && moment.sequence > history.lastRecord.sequence)
    throw new OperationalError("not_found", `the write log ends at record ${history.lastRecord.sequence}`);
  const release = history.shelf.lease(0);
  try {
    const { base, segments } = await findStart(history, volumeId, moment, signal);
    const first = segments[0]?.header.number ?? Number.POSITIVE_INFINITY;
    const narrow = history.shelf.lease(first);
    const replay: Replay = {
      volumeId,
      base,
      index: new ExtentIndex(),
      table: new Map(),
      sequence: base?.sequence ?? 0,
      timeMs: base?.timeMs ?? 0,
    };
    try {
      await replaySegments(history, segments, replay, moment, signal);
      const volume = checkVolume(replay, segments, moment, options.evenIncomplete ?? false);
      if ("sequence" in moment && replay.sequence !== moment.sequence) throw lostRecord(moment.sequence);
      // A point from before the volume was added anew (to a log that was begun anew) is no part of its content.
      const below = base !== undefined && base.sequence >= volume.added ? base : undefined;
      const baseReader = below === undefined ? undefined : await history.points.open(below, signal);
      return momentReader(history.shelf, replay, volume, below, baseReader, narrow);
    } catch (error) {
      narrow();
      throw error;
    }
  } finally {
    release();
  }
}

async function replaySegments(
  history: LogHistory,
  segments: readonly Segment[],
  replay: Replay,
  moment: Moment,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const [index, segment] of segments.entries()) {
    const { firstSequence, timeMs } = segment.header;
    // Of the first one, the opening frame is needed in any case: it says what volumes there were.
    if (index > 0 && !isWithin(moment, { sequence: firstSequence, timeMs })) return;
    let stopped = false;
    const visit = (frame: ScannedFrame): "stop" | void => {
      const answer = replayFrame(replay, segment, frame, moment);
      stopped = answer === "stop";
      return answer;
    };
    await history.shelf.scan(segment, "directory", visit, signal);
    if (stopped) return;
  }
}

function momentReader(
  shelf: SegmentShelf,
  replay: Replay,
  volume: LogVolume,
  base: CommittedPoint | undefined,
  baseReader: BlockReader | undefined,
  release: () => void,
): MomentReader {
  const { sizeBytes } = volume;
  const layers: Layers = { shelf, index: replay.index, base: baseReader, sizeBytes };
  return {
    sequence: replay.sequence,
    timeMs: replay.timeMs,
    volume,
    base,
    sizeBytes,
    changed: () =>
      replay.index
        .overlapping(0, sizeBytes)
        .map(({ offset, length, source }) => ({ offset, length, kind: source.kind })),
    read: (offset, length, signal) => readLayers(layers, offset, length, signal),
    extents: (offset, length, signal) => extentsOfLayers(layers, offset, length, signal),
    [Symbol.asyncDispose]: async () => {
      release();
      await baseReader?.[Symbol.asyncDispose]();
    },
  };
}
