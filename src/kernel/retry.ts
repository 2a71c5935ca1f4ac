import type { Clock } from "#kernel/clock.ts";
import type { Random } from "#kernel/random.ts";
import { isOperational } from "#kernel/errors.ts";

export interface RetryPolicy {
  readonly attempts: number;
  readonly baseMs: number;
  readonly capMs: number;
}

export interface RetryPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly signal?: AbortSignal;
}

/** Full jitter (AWS architecture blog, "Exponential backoff and jitter"), never less than asked for by the peer. */
export function backoffMs(policy: RetryPolicy, attempt: number, random: Random, askedMs = 0): number {
  const ceiling = Math.min(policy.capMs, policy.baseMs * 2 ** (attempt - 1));
  return Math.max(askedMs, Math.round(random.fraction() * ceiling));
}

/**
 * Repeats `work` while its error's own class allows it. An error whose outcome is unknown is not
 * repeated here: only `work` knows how to ask what happened, so it must be idempotent and say so by
 * passing `idempotent`.
 */
export async function retrying<T>(
  policy: RetryPolicy & { readonly idempotent: boolean },
  ports: RetryPorts,
  work: (attempt: number) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work(attempt);
    } catch (error) {
      const repeatable =
        isOperational(error) &&
        error.retry !== "never" &&
        (policy.idempotent || error.outcome === "not_applied");
      if (!repeatable || attempt >= policy.attempts) throw error;
      await ports.clock.sleep(backoffMs(policy, attempt, ports.random, error.retryAfterMs), ports.signal);
    }
  }
}
