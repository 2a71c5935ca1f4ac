/** Plain counters of a gateway; the API renders them for whoever scrapes. */
import type { CommandResult } from "#model/command.ts";
import type { Problem } from "./dialect.ts";

/** Upper bounds in milliseconds; the last bucket has none. */
export const latencyBoundsMs = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000] as const;

export interface GatewayStats {
  readonly requests: number;
  readonly reads: number;
  /** Changes by the outcome that was recorded for them. */
  readonly changes: Readonly<Record<CommandResult, number>>;
  /** Outcomes that came from asking the cloud afterwards. */
  readonly resolvedLater: number;
  /** Requests refused before authentication or by the dialect itself. */
  readonly refusedByDialect: number;
  readonly problems: Readonly<Partial<Record<Problem["kind"], number>>>;
  /** Reads that ended before the cloud's answer had been passed on whole. */
  readonly brokenReads: number;
  /** Now: requests in progress, changes among them, those that wait for a lock, commands without a known outcome. */
  readonly inProgress: number;
  readonly changesInProgress: number;
  readonly waiting: number;
  readonly open: number;
  readonly bufferedBodyBytes: number;
  /** From the request's head to the end of its answer; one more count than there are bounds. */
  readonly latency: {
    readonly boundsMs: readonly number[];
    readonly counts: readonly number[];
    readonly sumMs: number;
  };
}

export class StatsRecorder {
  requests = 0;
  reads = 0;
  brokenReads = 0;
  resolvedLater = 0;
  refusedByDialect = 0;
  inProgress = 0;
  bufferedBodyBytes = 0;
  readonly changes: Record<CommandResult, number> = { applied: 0, refused: 0, unknown: 0 };
  readonly problems: Partial<Record<Problem["kind"], number>> = {};
  readonly #counts: number[] = Array.from({ length: latencyBoundsMs.length + 1 }, () => 0);
  #sumMs = 0;

  problem(kind: Problem["kind"]): void {
    this.problems[kind] = (this.problems[kind] ?? 0) + 1;
  }

  latency(ms: number): void {
    let bucket = 0;
    while (bucket < latencyBoundsMs.length && ms > (latencyBoundsMs[bucket] ?? 0)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#sumMs += ms;
  }

  snapshot(now: Pick<GatewayStats, "changesInProgress" | "waiting" | "open">): GatewayStats {
    return {
      requests: this.requests,
      reads: this.reads,
      brokenReads: this.brokenReads,
      changes: { ...this.changes },
      resolvedLater: this.resolvedLater,
      refusedByDialect: this.refusedByDialect,
      problems: { ...this.problems },
      inProgress: this.inProgress,
      bufferedBodyBytes: this.bufferedBodyBytes,
      ...now,
      latency: { boundsMs: latencyBoundsMs, counts: [...this.#counts], sumMs: this.#sumMs },
    };
  }
}
