/** Which moments of a log can be offered: those at which every volume that had ever been whole was. */
import { applyEvent, isJoining, type LogVolume } from "./log-event.ts";
import type { LogHistory } from "./open-moment.ts";
import type { ScannedFrame } from "./scan-segment.ts";
import type { Segment } from "./segment-shelf.ts";

export interface WholeMoment {
  readonly sequence: number;
  /** The instant that it shows. Where content came as images of the disks, that is the oldest image's, however late it came. */
  readonly timeMs: number;
}

interface WalkedMoment extends WholeMoment {
  /** When the record was taken. */
  readonly recordMs: number;
  /** Nothing in it is younger. */
  readonly youngestMs: number;
  readonly whole: boolean;
  /** Some content is an image, so that the moment may be older than its record. */
  readonly pictured: boolean;
}

function lookAt(table: Iterable<LogVolume>, sequence: number, recordMs: number): WalkedMoment {
  let youngestMs = 0;
  let pictured = false;
  const members = [...table];
  for (const { state, image } of members) {
    pictured ||= image !== undefined;
    if (state === "continuous") youngestMs = Math.max(youngestMs, image?.atMs ?? recordMs);
  }
  const timeMs = Math.min(recordMs, oldestImageMs(members));
  return { sequence, timeMs, recordMs, youngestMs, whole: isWhole(members), pictured };
}

/** Of the volumes that are in a moment, the instant of the oldest image; infinite where their writes came by themselves. */
export function oldestImageMs(table: Iterable<LogVolume>): number {
  let oldest = Number.POSITIVE_INFINITY;
  for (const { state, image } of table)
    if (state === "continuous" && image !== undefined) oldest = Math.min(oldest, image.atMs);
  return oldest;
}

export function isWhole(table: Iterable<LogVolume>): boolean {
  let members = 0;
  for (const volume of table) {
    if (volume.state === "continuous") members += 1;
    else if (volume.state === "synchronising" && !isJoining(volume)) return false;
  }
  return members > 0;
}

/** Calls `moment` for each moment in the segment, in order; the first is that before its first record. */
async function walkMoments(
  history: LogHistory,
  segment: Segment,
  moment: (at: WalkedMoment) => "stop" | void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const table = new Map<number, LogVolume>();
  const visit = (frame: ScannedFrame): "stop" | void => {
    if (frame.opening !== undefined) {
      for (const volume of frame.opening.volumes) table.set(volume.index, volume);
      const { firstSequence, timeMs } = segment.header;
      return moment(lookAt(table.values(), firstSequence - 1, timeMs));
    }
    for (const record of frame.records) {
      const event = frame.events.get(record.sequence);
      if (event !== undefined) applyEvent(table, event, record.sequence);
      if (moment(lookAt(table.values(), record.sequence, record.timeMs)) === "stop") return "stop";
    }
  };
  await history.shelf.scan(segment, "directory", visit, signal);
}

/**
 * The last whole moment with nothing in it younger than the time; of all without one. Reads one segment where the group is whole and its
 * writes came by themselves. An image may have come long after its instant: then the segments after the time are looked at too.
 */
export async function lastWholeMoment(
  history: LogHistory,
  atMs?: number,
  signal?: AbortSignal,
): Promise<WholeMoment | undefined> {
  const limit = atMs ?? Number.POSITIVE_INFINITY;
  const release = history.shelf.lease(0);
  try {
    // Of the segment that comes after: what it says of its beginning is true at the end of the one before.
    let pictured = true;
    let after: Segment | undefined;
    for (const segment of history.shelf.segments.slice().reverse()) {
      // But for where records were lost between the two.
      if (after !== undefined && after.header.firstSequence > segment.end.nextSequence) pictured = true;
      after = segment;
      if (segment.header.timeMs > limit && !pictured) continue;
      let last: WalkedMoment | undefined;
      let first: WalkedMoment | undefined;
      await walkMoments(
        history,
        segment,
        (at) => {
          first ??= at;
          if (at.whole && at.youngestMs <= limit) last = at;
          return at.recordMs > limit && !at.pictured && !pictured ? "stop" : undefined;
        },
        signal,
      );
      if (last !== undefined && last.sequence > 0) return { sequence: last.sequence, timeMs: last.timeMs };
      pictured = first?.pictured === true;
    }
    return undefined;
  } finally {
    release();
  }
}

/** The first record at which every volume that was there has a base: a point that the log still reaches, or its own beginning in the log. */
async function firstNameable(history: LogHistory, volumes: Iterable<LogVolume>): Promise<number> {
  const first = history.shelf.segments[0]?.header.firstSequence ?? 1;
  let sequence = first - 1;
  for (const { id, state, added } of volumes) {
    // Of one that came later there was nothing before: it holds up no moment.
    if (state === "released" || added >= first) continue;
    const points = await history.points.list(history.group, id);
    const base = points.find((point) => point.sequence >= first - 1 && !history.shelf.isLost(point.sequence));
    sequence = Math.max(sequence, base?.sequence ?? Number.POSITIVE_INFINITY);
  }
  return sequence;
}

/** The first whole moment that can be opened for all of these volumes. */
export async function oldestWholeMoment(
  history: LogHistory,
  volumes: Iterable<LogVolume>,
  signal?: AbortSignal,
): Promise<WholeMoment | undefined> {
  const from = await firstNameable(history, volumes);
  if (!Number.isFinite(from)) return undefined;
  const release = history.shelf.lease(0);
  try {
    for (const segment of history.shelf.from(from)) {
      let oldest: WholeMoment | undefined;
      await walkMoments(
        history,
        segment,
        (at) => {
          if (!at.whole || at.sequence < from) return undefined;
          oldest = { sequence: at.sequence, timeMs: at.timeMs };
          return "stop";
        },
        signal,
      );
      if (oldest !== undefined) return oldest;
    }
    return undefined;
  } finally {
    release();
  }
}
