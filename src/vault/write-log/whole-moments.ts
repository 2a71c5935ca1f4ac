/** Which moments of a log can be offered: those at which every volume of the group was whole. */
import { applyEvent, type LogVolume } from "./log-event.ts";
import type { LogHistory } from "./open-moment.ts";
import type { ScannedFrame } from "./scan-segment.ts";
import type { Segment } from "./segment-shelf.ts";

export interface WholeMoment {
  readonly sequence: number;
  readonly timeMs: number;
}

export function isWhole(table: Iterable<LogVolume>): boolean {
  let members = 0;
  for (const { state } of table) {
    if (state === "synchronising") return false;
    if (state === "continuous") members += 1;
  }
  return members > 0;
}

/** Calls `moment` for each moment in the segment, in order; the first is that before its first record. */
async function walkMoments(
  history: LogHistory,
  segment: Segment,
  moment: (at: WholeMoment, whole: boolean) => "stop" | void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const table = new Map<number, LogVolume>();
  const visit = (frame: ScannedFrame): "stop" | void => {
    if (frame.opening !== undefined) {
      for (const volume of frame.opening.volumes) table.set(volume.index, volume);
      const { firstSequence, timeMs } = segment.header;
      return moment({ sequence: firstSequence - 1, timeMs }, isWhole(table.values()));
    }
    for (const record of frame.records) {
      const event = frame.events.get(record.sequence);
      if (event !== undefined) applyEvent(table, event, record.sequence);
      const whole = isWhole(table.values());
      if (moment({ sequence: record.sequence, timeMs: record.timeMs }, whole) === "stop") return "stop";
    }
  };
  await history.shelf.scan(segment, "directory", visit, signal);
}

/** The last whole moment at or before the time; of all without one. Reads one segment where the group is whole. */
export async function lastWholeMoment(
  history: LogHistory,
  atMs?: number,
  signal?: AbortSignal,
): Promise<WholeMoment | undefined> {
  const limit = atMs ?? Number.POSITIVE_INFINITY;
  const release = history.shelf.lease(0);
  try {
    for (const segment of history.shelf.segments.slice().reverse()) {
      if (segment.header.timeMs > limit) continue;
      let last: WholeMoment | undefined;
      await walkMoments(
        history,
        segment,
        (at, whole) => {
          if (at.timeMs > limit) return "stop";
          if (whole) last = at;
          return undefined;
        },
        signal,
      );
      if (last !== undefined && last.sequence > 0) return last;
    }
    return undefined;
  } finally {
    release();
  }
}

/** The first record at which every volume has a base: a point that the log still reaches, or its own beginning in the log. */
async function firstNameable(history: LogHistory, volumes: Iterable<LogVolume>): Promise<number> {
  const first = history.shelf.segments[0]?.header.firstSequence ?? 1;
  let sequence = first - 1;
  for (const { id, state, added } of volumes) {
    if (state === "released") continue;
    const points = await history.points.list(history.group, id);
    const base = points.find((point) => point.sequence >= Math.max(first - 1, added));
    const own = added >= first ? added : Number.POSITIVE_INFINITY;
    sequence = Math.max(sequence, Math.min(own, base?.sequence ?? Number.POSITIVE_INFINITY));
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
        (at, whole) => {
          if (!whole || at.sequence < from) return undefined;
          oldest = at;
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
