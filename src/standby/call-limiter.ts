/**
 * One gate in front of a site, shared by all who call it. It finds out by itself how many calls the site takes: additive
 * increase, multiplicative decrease (Chiu and Jain 1989) of a pace in calls per second, and a window of calls in
 * flight that grows while the site answers no slower (as TCP Vegas does, Brakmo and Peterson 1995).
 */
import type { CloudFacts } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";

export interface LimiterFigures {
  /** Calls that were let through, throttled ones included. */
  readonly calls: number;
  readonly throttled: number;
  /** What the site is believed to take, in calls per second; null before anything is known of it. */
  readonly callsPerSecond: number | null;
  readonly window: number;
  readonly latencyMs: number | null;
}

export interface Turn {
  readonly priority: number;
  readonly signal: AbortSignal;
  /** The call can't be repeated as it is, e.g. the next page of an iteration that has ended. */
  readonly once?: boolean;
}

export interface CallLimiter {
  /**
   * Runs `call` when its turn comes: higher priority first, then in the order of asking. A throttled call was not applied and
   * is repeated here, after the time that the site asked for (unless `once`); every other error is the caller's.
   */
  run<T>(call: () => Promise<T>, turn: Turn): Promise<T>;
  readonly figures: LimiterFigures;
}

interface Waiting {
  readonly priority: number;
  readonly order: number;
  readonly start: () => void;
}

const measureMs = 1000;
/** A rate that was found is approached to this part of it, then probed slowly. */
const backOff = 0.94;
const probePerSecond = 0.015;
/** The longer a pace holds, the bolder the probe (as in CUBIC, RFC 9438): it doubles every second up to this. */
const boldestProbePerSecond = 0.25;
const largestWindow = 512;
/** So many throttled answers to one call mean that the site does not recover. */
const throttledAttempts = 50;

class AdaptiveLimiter implements CallLimiter {
  readonly #clock: Clock;
  readonly #queue: Waiting[] = [];
  /** Times of successful answers within the last second. */
  readonly #answers: number[] = [];
  readonly #startedAt: number;
  #order = 0;
  #inFlight = 0;
  #window: number;
  #pace: number | null;
  readonly #published: number | null;
  #paceSetAt: number;
  /** Calls that began before this tell nothing new. */
  #paceSetFor = -Infinity;
  #nextAt: number;
  #timer = false;
  #calls = 0;
  #throttled = 0;
  #latencyMs: number | null = null;
  #leastLatencyMs = Infinity;

  constructor(facts: Pick<CloudFacts, "concurrency" | "callsPerSecond">, clock: Clock) {
    this.#clock = clock;
    this.#window = Math.max(1, facts.concurrency);
    this.#published = facts.callsPerSecond;
    this.#pace = facts.callsPerSecond;
    this.#startedAt = clock.monotonicMs();
    this.#paceSetAt = this.#startedAt;
    this.#nextAt = this.#startedAt;
  }

  get figures(): LimiterFigures {
    return {
      calls: this.#calls,
      throttled: this.#throttled,
      callsPerSecond: this.#pace,
      window: Math.floor(this.#window),
      latencyMs: this.#latencyMs,
    };
  }

  async run<T>(call: () => Promise<T>, turn: Turn): Promise<T> {
    const { signal } = turn;
    let { priority } = turn;
    for (let attempt = 1; ; attempt += 1) {
      await this.#turn(priority, signal);
      const startedAt = this.#clock.monotonicMs();
      let waitMs = 0;
      this.#calls += 1;
      try {
        const answer = await call();
        this.#answered(startedAt);
        return answer;
      } catch (error) {
        if (!isOperational(error) || error.retry !== "throttled") {
          this.#failed(error, startedAt);
          throw error;
        }
        this.#slowDown(startedAt);
        const repeatable = error.outcome === "not_applied" && turn.once !== true;
        if (!repeatable || attempt >= throttledAttempts) throw error;
        // A repeated call has waited longest: its place is before others of its priority.
        priority += 1;
        waitMs = Math.max(error.retryAfterMs ?? 0, this.#spacingMs());
      } finally {
        this.#inFlight -= 1;
        this.#dispatch();
      }
      await this.#clock.sleep(waitMs, signal);
    }
  }

  /** Resolves with a place in flight taken. */
  #turn(priority: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => {
        const at = this.#queue.indexOf(waiting);
        if (at < 0) return;
        this.#queue.splice(at, 1);
        reject(signal.reason as Error);
      };
      const waiting: Waiting = {
        priority,
        order: (this.#order += 1),
        start: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      insertByPriority(this.#queue, waiting);
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0 && this.#inFlight < Math.floor(this.#window)) {
      const waitMs = this.#nextAt - this.#clock.monotonicMs();
      if (waitMs > 0) return this.#wakeAfter(waitMs);
      this.#nextAt = this.#afterThisCall();
      this.#inFlight += 1;
      this.#queue.pop()?.start();
    }
  }

  /** A timer's lateness is made up for by the next calls, up to a tenth of a second's worth. */
  #afterThisCall(): number {
    if (this.#pace === null) return this.#nextAt;
    this.#probe();
    const earliest = this.#clock.monotonicMs() - 25;
    return Math.max(this.#nextAt, earliest) + this.#spacingMs();
  }

  #spacingMs(): number {
    return this.#pace === null ? 0 : 1000 / this.#pace;
  }

  #wakeAfter(ms: number): void {
    if (this.#timer) return;
    this.#timer = true;
    void this.#clock.sleep(ms).then(() => {
      this.#timer = false;
      this.#dispatch();
    });
  }

  /** A published rate is kept to; one that was found by trying is tried again, little by little. */
  #probe(): void {
    if (this.#pace === null) return;
    const now = this.#clock.monotonicMs();
    const elapsedS = (now - this.#paceSetAt) / 1000;
    this.#paceSetAt = now;
    const heldS = Math.max(0, now - this.#paceSetFor) / 1000;
    const probe = Math.min(boldestProbePerSecond, probePerSecond * 2 ** Math.min(heldS, 10));
    const grown = this.#pace * (1 + probe * elapsedS);
    this.#pace = this.#published === null ? grown : Math.min(this.#published, grown);
  }

  #answered(startedAt: number): void {
    const now = this.#clock.monotonicMs();
    const latency = now - startedAt;
    this.#leastLatencyMs = Math.min(this.#leastLatencyMs, latency);
    this.#latencyMs = this.#latencyMs === null ? latency : this.#latencyMs * 0.9 + latency * 0.1;
    this.#answers.push(now);
    while ((this.#answers[0] ?? now) < now - measureMs) this.#answers.shift();
    const full = this.#inFlight >= Math.floor(this.#window) - 1;
    const slower = this.#latencyMs > 3 * this.#leastLatencyMs + 5;
    if (full && !slower) this.#window = Math.min(largestWindow, this.#window + 1);
  }

  /** At most once for the calls that were in flight together, since they all tell of the same moment. */
  #slowDown(startedAt: number): void {
    this.#throttled += 1;
    if (startedAt < this.#paceSetFor) return;
    const now = this.#clock.monotonicMs();
    this.#paceSetFor = now;
    this.#paceSetAt = now;
    const measured = this.#measuredRate(now);
    const current = this.#pace ?? Infinity;
    this.#pace = Math.max(1, Math.min(current, measured) * backOff);
  }

  #measuredRate(now: number): number {
    while ((this.#answers[0] ?? now) < now - measureMs) this.#answers.shift();
    const spanMs = Math.min(measureMs, Math.max(now - (this.#answers[0] ?? now), 50));
    return Math.max(1, (this.#answers.length * 1000) / spanMs);
  }

  /** A site that times out or breaks gets fewer calls at once. */
  #failed(error: unknown, startedAt: number): void {
    if (!isOperational(error) || error.retry !== "later" || error.code === "cloud.conflict") return;
    if (startedAt < this.#paceSetFor) return;
    this.#paceSetFor = this.#clock.monotonicMs();
    this.#window = Math.max(1, this.#window * 0.7);
  }
}

/** Lowest first, so that the next one is popped off the end. */
function insertByPriority(queue: Waiting[], waiting: Waiting): void {
  let [low, high] = [0, queue.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const other = queue[middle];
    const goesAfter =
      other !== undefined &&
      (other.priority < waiting.priority ||
        (other.priority === waiting.priority && other.order > waiting.order));
    if (goesAfter) low = middle + 1;
    else high = middle;
  }
  queue.splice(low, 0, waiting);
}

export function createCallLimiter(
  facts: Pick<CloudFacts, "concurrency" | "callsPerSecond">,
  clock: Clock,
): CallLimiter {
  return new AdaptiveLimiter(facts, clock);
}
