/** How long points are kept, and how densely. Pure: what to do about it is `applyRetention`'s. */

export interface RetentionRule {
  /** One point for each span of so many milliseconds since the epoch, or for each calendar month or year (UTC). */
  readonly every: number | "month" | "year";
  /** Points older than this, in milliseconds, are not kept by this rule. */
  readonly forMs: number;
}

export interface RetentionPolicy {
  /** All points younger than this are kept. */
  readonly keepAllMs: number;
  readonly rules: readonly RetentionRule[];
}

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;

/** Every 10 minutes for an hour, hourly for a day, daily for two weeks, weekly for two months, monthly for a year, yearly for seven. */
export const defaultRetention: RetentionPolicy = {
  keepAllMs: 10 * minute,
  rules: [
    { every: 10 * minute, forMs: hour },
    { every: hour, forMs: day },
    { every: day, forMs: 14 * day },
    { every: 7 * day, forMs: 62 * day },
    { every: "month", forMs: 366 * day },
    { every: "year", forMs: 7 * 366 * day },
  ],
};

export interface RetainedPoint {
  readonly id: string;
  readonly timeMs: number;
}

export interface RetentionPlan<Point extends RetainedPoint> {
  readonly keep: readonly { readonly point: Point; readonly because: string }[];
  readonly remove: readonly Point[];
}

/**
 * For the points of one volume. The first point of each span stays, so that a point once chosen stays chosen until its rule ends. The newest
 * point always stays, and so does whatever lies in the future (a clock that was wrong must not cost points).
 */
export function planRetention<Point extends RetainedPoint>(
  points: readonly Point[],
  policy: RetentionPolicy,
  nowMs: number,
): RetentionPlan<Point> {
  const sorted = points.toSorted((a, b) => a.timeMs - b.timeMs || (a.id < b.id ? -1 : 1));
  const because = new Map<Point, string>();
  const newest = sorted.at(-1);
  if (newest !== undefined) because.set(newest, "newest");
  for (const point of sorted)
    if (nowMs - point.timeMs <= policy.keepAllMs && !because.has(point)) because.set(point, "recent");
  for (const rule of policy.rules) {
    const chosen = new Set<number>();
    for (const point of sorted) {
      const span = spanOf(rule.every, point.timeMs);
      if (chosen.has(span)) continue;
      chosen.add(span);
      if (nowMs - point.timeMs <= rule.forMs && !because.has(point)) because.set(point, nameOf(rule.every));
    }
  }
  return {
    keep: sorted.flatMap((point) => {
      const reason = because.get(point);
      return reason === undefined ? [] : [{ point, because: reason }];
    }),
    remove: sorted.filter((point) => !because.has(point)),
  };
}

function spanOf(every: RetentionRule["every"], timeMs: number): number {
  const date = new Date(timeMs);
  if (every === "year") return date.getUTCFullYear();
  if (every === "month") return date.getUTCFullYear() * 12 + date.getUTCMonth();
  return Math.floor(timeMs / every);
}

function nameOf(every: RetentionRule["every"]): string {
  if (typeof every === "string") return `one a ${every}`;
  if (every % day === 0) return `one every ${every / day} d`;
  if (every % hour === 0) return `one every ${every / hour} h`;
  return `one every ${every / minute} min`;
}
