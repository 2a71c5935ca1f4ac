import type { Random } from "#kernel/random.ts";

export interface RetryPolicy {
  readonly attempts: number;
  readonly baseMs: number;
  readonly capMs: number;
}

/** Full jitter (AWS architecture blog, "Exponential backoff and jitter"), never less than asked for by the peer. */
export function backoffMs(policy: RetryPolicy, attempt: number, random: Random, askedMs = 0): number {
  const ceiling = Math.min(policy.capMs, policy.baseMs * 2 ** (attempt - 1));
  return Math.max(askedMs, Math.round(random.fraction() * ceiling));
}
