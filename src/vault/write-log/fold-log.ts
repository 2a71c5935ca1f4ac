/** Folding: a prefix of the log becomes points of the vault, and what the window does not need goes. */
import type { Consistency } from "./log-event.ts";
import { openMoment } from "./open-moment.ts";
import type { CommittedPoint } from "./point-store.ts";
import type { WriteLog } from "./write-log.ts";

export interface FoldOptions {
  /** The points hold the group as of this record. Default: the last durable one. */
  readonly sequence?: number;
  readonly consistency?: Consistency;
  readonly signal?: AbortSignal;
}

export interface Fold {
  readonly sequence: number;
  readonly points: readonly CommittedPoint[];
}

/**
 * Makes a point of each volume at one and the same record. Killed anywhere, it is done again, and what it had committed counts.
 * Errors: those of the vault, and `vault.damaged`.
 */
export async function foldLog(log: WriteLog, options: FoldOptions = {}): Promise<Fold> {
  const { signal, consistency = "crash" } = options;
  const sequence = options.sequence ?? log.lastRecord.sequence;
  const points: CommittedPoint[] = [];
  for (const { id, added } of log.volumes()) {
    signal?.throwIfAborted();
    if (added > sequence) continue;
    const base = log.baseOf(id);
    if (base !== undefined && base.sequence >= sequence) {
      if (base.sequence === sequence) points.push(base);
      continue;
    }
    const point = await foldVolume(log, id, sequence, consistency, signal);
    await log.adoptPoint(point);
    points.push(point);
  }
  return { sequence, points };
}

async function foldVolume(
  log: WriteLog,
  volumeId: string,
  sequence: number,
  consistency: Consistency,
  signal: AbortSignal | undefined,
): Promise<CommittedPoint> {
  const options = { evenIncomplete: true, ...(signal === undefined ? {} : { signal }) };
  await using moment = await openMoment(log, volumeId, { sequence }, options);
  const { timeMs, sizeBytes, base } = moment;
  const whole = moment.volume.state === "continuous";
  // Awaited here: the moment must stay open until the point is written.
  return await log.points.write(
    {
      group: log.group,
      volumeId,
      sequence,
      timeMs,
      sizeBytes,
      whole,
      consistency,
      base,
      source: moment,
      changed: moment.changed(),
    },
    signal,
  );
}
