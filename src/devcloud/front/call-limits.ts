/** Latency and rate limits of calls, as a cloud far away and busy has them. */
import { z } from "zod";
import type { Clock } from "#kernel/clock.ts";
import type { Random } from "#kernel/random.ts";

export const latencySpec = z.strictObject({
  /** Milliseconds added to each call. */
  fixedMs: z.number().min(0).max(60_000).default(0),
  /** Up to so many more, evenly spread. */
  jitterMs: z.number().min(0).max(60_000).default(0),
});
export type LatencySpec = z.infer<typeof latencySpec>;

export function latencyMs(spec: LatencySpec, random: Random): number {
  return spec.fixedMs + (spec.jitterMs === 0 ? 0 : random.fraction() * spec.jitterMs);
}

/** By operation; `*` is the bucket of the whole account. */
export const rateLimitSpec = z.record(
  z.string().min(1).max(100),
  z.strictObject({ perSecond: z.number().positive(), burst: z.number().min(1) }),
);
export type RateLimitSpec = z.infer<typeof rateLimitSpec>;

interface Bucket {
  readonly perSecond: number;
  readonly burst: number;
  tokens: number;
  at: number;
}

export class RateLimits {
  readonly #clock: Clock;
  #spec: RateLimitSpec = {};
  #buckets = new Map<string, Bucket>();

  constructor(clock: Clock, spec: RateLimitSpec) {
    this.#clock = clock;
    this.set(spec);
  }

  get spec(): RateLimitSpec {
    return this.#spec;
  }

  set(spec: RateLimitSpec): void {
    const at = this.#clock.monotonicMs();
    this.#spec = spec;
    this.#buckets = new Map(
      Object.entries(spec).map(([name, limit]) => [name, { ...limit, tokens: limit.burst, at }]),
    );
  }

  /** Null: the call may pass. Else how long until one may, in milliseconds. A refused call takes no token. */
  take(operation: string): number | null {
    const held = [this.#buckets.get(operation), this.#buckets.get("*")].filter((each) => each !== undefined);
    const now = this.#clock.monotonicMs();
    let waitMs = 0;
    for (const bucket of held) {
      bucket.tokens = Math.min(bucket.burst, bucket.tokens + ((now - bucket.at) / 1000) * bucket.perSecond);
      bucket.at = now;
      if (bucket.tokens < 1) waitMs = Math.max(waitMs, ((1 - bucket.tokens) / bucket.perSecond) * 1000);
    }
    if (waitMs > 0) return waitMs;
    for (const bucket of held) bucket.tokens -= 1;
    return null;
  }
}
