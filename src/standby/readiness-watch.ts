/** Waits for many resources to work at the price of one listing now and then, not of one question each. */
import type { Cloud, Observed } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { CallLimiter } from "./call-limiter.ts";

/** `undefined`: the target no longer has it. */
export type Readiness = { readonly ready: true } | { readonly ready: false; readonly fault: string };

interface Watched {
  readonly kind: ResourceKind;
  readonly id: ResourceId;
  readonly deadline: number;
  /** Not in the last listing: a listing may lag behind a create, so once is no proof. */
  absences: number;
  readonly settle: (readiness: Readiness) => void;
}

export interface ReadinessOptions {
  readonly cloud: Cloud;
  readonly limiter: CallLimiter;
  readonly clock: Clock;
  /** The scope that its creations bear in the target. */
  readonly scope: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
  readonly onCall: () => void;
  readonly onBug: (error: unknown) => void;
}

/** Each call of a listing earns so long a pause: listing takes at most ten calls a second. */
const pausePerCallMs = 100;
const leastPauseMs = 250;
/** Up to so many, the target is asked for these alone. */
const askedByName = 100;
const absencesAllowed = 3;
/** Before any other call: one listing tells about hundreds. */
const listPriority = Number.MAX_SAFE_INTEGER;

export class ReadinessWatch {
  readonly #options: ReadinessOptions;
  readonly #watched = new Map<string, Watched>();
  #urgent = 0;
  #draining = false;
  #polling = false;

  constructor(options: ReadinessOptions) {
    this.#options = options;
  }

  /** Resolves when the target says whether it works. Not `urgent`: the question may wait until `drain`. */
  async wait(kind: ResourceKind, id: ResourceId, urgent: boolean): Promise<Readiness> {
    if (urgent) this.#urgent += 1;
    try {
      return await new Promise<Readiness>((settle) => {
        const deadline = this.#options.clock.monotonicMs() + this.#options.timeoutMs;
        this.#watched.set(resourceKey(kind, id), { kind, id, deadline, absences: 0, settle });
        this.#poll();
      });
    } finally {
      if (urgent) this.#urgent -= 1;
    }
  }

  /** From now on everything is asked about. */
  drain(): void {
    this.#draining = true;
    this.#poll();
  }

  #poll(): void {
    if (this.#polling || !this.#due()) return;
    this.#polling = true;
    void this.#loop()
      .catch(this.#options.onBug)
      .finally(() => {
        this.#polling = false;
        if (!this.#options.signal.aborted) this.#poll();
      });
  }

  #due(): boolean {
    return this.#watched.size > 0 && (this.#draining || this.#urgent > 0);
  }

  async #loop(): Promise<void> {
    const { clock, signal } = this.#options;
    while (this.#due()) {
      let calls = 0;
      for (const kind of new Set([...this.#watched.values()].map((one) => one.kind))) {
        calls += await this.#list(kind);
      }
      if (this.#due()) await clock.sleep(Math.max(leastPauseMs, calls * pausePerCallMs), signal);
    }
  }

  async #list(kind: ResourceKind): Promise<number> {
    const { cloud, limiter, scope, signal, onCall } = this.#options;
    const pending = [...this.#watched.values()].filter((one) => one.kind === kind);
    const named = pending.length <= askedByName ? { ids: pending.map(({ id }) => id) } : {};
    const pages = cloud.list(kind, { scope, ...named }, signal)[Symbol.asyncIterator]();
    const seen = new Map<string, Observed>();
    let calls = 0;
    try {
      for (;;) {
        const page = await limiter.run(() => pages.next(), { priority: listPriority, signal, once: true });
        if (page.done === true) break;
        calls += 1;
        onCall();
        for (const observed of page.value) seen.set(observed.resource.id, observed);
      }
    } catch (error) {
      // The next listing asks again; a target that stays silent runs into the deadlines.
      if (!isOperational(error) || error.retry === "never") throw error;
      this.#expire(pending, error.message);
      return calls + 1;
    }
    for (const watched of pending) this.#judge(watched, seen.get(watched.id));
    this.#expire(pending, "it did not become ready in time");
    return calls;
  }

  #judge(watched: Watched, observed: Observed | undefined): void {
    if (observed === undefined) {
      watched.absences += 1;
      if (watched.absences >= absencesAllowed) {
        this.#settle(watched, { ready: false, fault: "the site no longer lists it" });
      }
      return;
    }
    watched.absences = 0;
    if (observed.status === "ready" || observed.status === "stopped") {
      this.#settle(watched, { ready: true });
    } else if (observed.status === "failed" || observed.status === "deleting") {
      this.#settle(watched, { ready: false, fault: observed.fault ?? `its status is ${observed.status}` });
    }
  }

  #expire(pending: readonly Watched[], fault: string): void {
    const now = this.#options.clock.monotonicMs();
    for (const watched of pending) {
      if (now >= watched.deadline) this.#settle(watched, { ready: false, fault });
    }
  }

  #settle(watched: Watched, readiness: Readiness): void {
    if (this.#watched.delete(resourceKey(watched.kind, watched.id))) watched.settle(readiness);
  }
}
