import type { LogVolume } from "./log-event.ts";
import type { CommittedPoint } from "./point-store.ts";
import type { Segment } from "./segment-shelf.ts";
import type { WholeMoment } from "./whole-moments.ts";
import type { WriteLog } from "./write-log.ts";

export interface LogWindow {
  /** How far back any moment can be named. */
  readonly windowMs: number;
  /** At most this much log, even if the window is then shorter. What no point holds yet stays all the same. */
  readonly windowBytes: number;
}

/** Index of the first segment inside the window. */
export function planWindow(
  segments: readonly { readonly bytes: number; readonly lastTimeMs: number }[],
  window: LogWindow,
  nowMs: number,
): number {
  let bytes = 0;
  let first = segments.length;
  while (first > 0) {
    const segment = segments[first - 1];
    if (segment === undefined || segment.lastTimeMs < nowMs - window.windowMs) break;
    bytes += segment.bytes;
    if (bytes > window.windowBytes && first < segments.length) break;
    first -= 1;
  }
  return first;
}

/** The newest point of each volume on which the window's first moment can stand; none for a volume that has none. */
async function basesAt(log: WriteLog, sequence: number): Promise<(CommittedPoint | undefined)[]> {
  const bases: (CommittedPoint | undefined)[] = [];
  for (const volume of log.volumes()) {
    if (volume.added > sequence) continue;
    const points = await log.points.list(log.group, volume.id);
    bases.push(points.findLast((point) => point.sequence <= sequence && isBase(log, volume, point)));
  }
  return bases;
}

function isBase(log: WriteLog, volume: LogVolume, { sequence }: CommittedPoint): boolean {
  return sequence >= volume.added && !log.shelf.isLost(sequence);
}

export interface Pruned {
  readonly segments: number;
  readonly bytes: number;
  /** Points that moments of the window stand on: they must not be deleted from the vault. */
  readonly needed: readonly CommittedPoint[];
}

export interface PruneOptions {
  /** Called before a segment goes, for its copies elsewhere: those then stay contiguous too. */
  readonly removing?: (segment: Segment) => Promise<void>;
  /**
   * The window begins after the last moment at which the group was whole, and so does not reach it any more: called before anything goes
   * that it stands on, so that a point may hold it.
   */
  readonly leaving?: (moment: WholeMoment) => Promise<void>;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Deletes segments that the window does not need, oldest first. Never one whose records are not all in committed points, nor one that a reader
 * stands on, nor the one that is written.
 */
export async function pruneLog(
  log: WriteLog,
  window: LogWindow,
  { removing, leaving, signal }: PruneOptions = {},
): Promise<Pruned> {
  const { shelf } = log;
  const facts = shelf.segments.map(({ end }) => ({ bytes: end.position, lastTimeMs: end.lastTimeMs }));
  const inside = shelf.segments[planWindow(facts, window, log.clock.now())];
  const start = (inside?.header.firstSequence ?? log.lastRecord.sequence + 1) - 1;
  const bases = await basesAt(log, start);
  const needed = bases.filter((base) => base !== undefined);
  if (needed.length < bases.length) return { segments: 0, bytes: 0, needed };
  const last = await log.lastWhole(signal);
  if (last !== undefined && last.sequence < start && log.reaches(last.sequence)) await leaving?.(last);
  const held = Math.min(start, ...needed.map(({ sequence }) => sequence));
  let [segments, bytes] = [0, 0];
  for (
    let first = shelf.segments[0];
    first !== undefined && shelf.segments.length > 1;
    first = shelf.segments[0]
  ) {
    const gone = first.ended && first.end.nextSequence - 1 <= held && first.header.number < shelf.firstLeased;
    if (!gone) break;
    await removing?.(first);
    // Someone may have come to stand on it meanwhile. Another time then, also its copies elsewhere: they are gone already.
    if (!(await shelf.removeFirst(first))) break;
    segments += 1;
    bytes += first.end.position;
  }
  return { segments, bytes, needed };
}
