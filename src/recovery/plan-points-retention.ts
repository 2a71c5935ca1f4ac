/** Which recovery points, and which points of the vault, are let go. Pure. */
import { planRetention, type RetentionPolicy } from "#vault/plan-retention.ts";
import type { CommittedPoint } from "#vault/write-log/point-store.ts";
import type { StoredPoint } from "#recovery/kept-points.ts";

export interface PointsRetentionInput {
  readonly recoveryPoints: readonly StoredPoint[];
  /** Of each volume. */
  readonly volumes: ReadonlyMap<string, readonly CommittedPoint[]>;
  /** Ids of points that moments of the log's window stand on, or that the log builds on. */
  readonly needed: ReadonlySet<string>;
  readonly policy: RetentionPolicy;
  readonly nowMs: number;
}

export interface PointsRetentionPlan {
  readonly recoveryPoints: readonly StoredPoint[];
  readonly points: readonly CommittedPoint[];
}

/**
 * What to remove. A recovery point that stays keeps the points that hold its disks. A point that was made in the midst of a copy is nothing to
 * recover: it stays only where it is needed, or is its volume's newest, which the next one builds on.
 */
export function planPointsRetention(input: PointsRetentionInput): PointsRetentionPlan {
  const { recoveryPoints, volumes, policy, nowMs } = input;
  const timed = recoveryPoints.map((point) => ({ id: point.id, timeMs: point.at, point }));
  const plan = planRetention(timed, policy, nowMs);
  const held = new Set(input.needed);
  for (const { point } of plan.keep) {
    for (const id of Object.values(point.point.disks)) held.add(id);
  }
  const gone: CommittedPoint[] = [];
  for (const points of volumes.values()) {
    const newest = points.reduce<CommittedPoint | undefined>(
      (last, point) => (last === undefined || point.sequence > last.sequence ? point : last),
      undefined,
    );
    const whole = points.filter((point) => point.whole);
    const removable = [
      ...planRetention(whole, policy, nowMs).remove,
      ...points.filter((point) => !point.whole),
    ];
    gone.push(...removable.filter((point) => point !== newest && !held.has(point.id)));
  }
  return { recoveryPoints: plan.remove.map(({ point }) => point), points: gone };
}
