/**
 * Carries out a plan in the target site: in parallel, in the plan's order, as fast as the site allows. Killed at any
 * moment and started again with a fresh plan, it ends with each resource existing exactly once.
 */
import type { Cloud, Observed } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ErrorCode } from "#kernel/errors.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant, unreachable } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { RetryPolicy } from "#kernel/retry.ts";
import type { Gap } from "#model/gap.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { CallLimiter } from "./call-limiter.ts";
import type { ActionType, ConvergenceAction, ConvergencePlan, CreateAction } from "./convergence-plan.ts";
import { PairingBook } from "./pairing-book.ts";
import type { Pairings, PairingScope } from "./pairings.ts";
import { Performer } from "./perform-action.ts";
import { ReadinessWatch } from "./readiness-watch.ts";

export interface ConvergeTarget extends PairingScope {
  /** The scope that what is created bears in the site, e.g. `shop` or `shop/drill-7f3a`. */
  readonly cloudScope: string;
  /** Statements that go with every write, e.g. the check of a fencing epoch. */
  readonly guard?: readonly Statement[];
  /** How long a server may take to work; default ten minutes. */
  readonly readyTimeoutMs?: number;
  readonly retry?: RetryPolicy;
}

export interface ConvergePorts {
  readonly cloud: Cloud;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limiter: CallLimiter;
  readonly onProgress?: (progress: ConvergenceProgress) => void;
}

export interface ConvergenceProgress {
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly skipped: number;
}

export interface ActionFailure {
  readonly type: ActionType;
  readonly kind: ResourceKind;
  readonly activeId: ResourceId;
  readonly code: ErrorCode;
  readonly message: string;
}

export interface ConvergenceReport {
  readonly created: number;
  readonly updated: number;
  readonly retagged: number;
  readonly deleted: number;
  readonly confirmed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Calls of the target, repeated ones and listings included. */
  readonly calls: number;
  readonly elapsedMs: number;
  readonly failures: readonly ActionFailure[];
  /** What was not tried, since what it depends on failed. */
  readonly skips: readonly {
    readonly kind: ResourceKind;
    readonly activeId: ResourceId;
    readonly reason: string;
  }[];
  /** Those of the plan, and one `standby.refused` per failure. */
  readonly gaps: readonly Gap[];
}

const defaultRetry: RetryPolicy = { attempts: 8, baseMs: 250, capMs: 10_000 };
const defaultReadyTimeoutMs = 600_000;

/**
 * Rejects with the signal's reason when it aborts, and with `store.*` or `state.fenced` when nothing can be recorded any more; whatever
 * the site refuses is in the report.
 */
export async function converge(
  plan: ConvergencePlan,
  pairings: Pairings,
  target: ConvergeTarget,
  ports: ConvergePorts,
  signal: AbortSignal,
): Promise<ConvergenceReport> {
  signal.throwIfAborted();
  return new Convergence(plan, pairings, target, ports, signal).run();
}

type ActionState = "waiting" | "running" | "done" | "ready" | "failed" | "skipped";

class Convergence {
  readonly #plan: ConvergencePlan;
  readonly #ports: ConvergePorts;
  readonly #book: PairingBook;
  readonly #performer: Performer;
  readonly #watch: ReadinessWatch;
  readonly #stop = new AbortController();
  readonly #states: ActionState[];
  readonly #missing: number[];
  readonly #dependants: { readonly index: number; readonly until: "done" | "ready" }[][];
  readonly #counts: Record<ActionType, number> = { create: 0, update: 0, retag: 0, delete: 0, confirm: 0 };
  readonly #failures: ActionFailure[] = [];
  readonly #skips: { kind: ResourceKind; activeId: ResourceId; reason: string }[] = [];
  readonly #signal: AbortSignal;
  #calls = 0;
  #settled = 0;
  /** Actions under way, and servers that are being waited for. */
  #running = 0;
  /** Indexes of actions that the target has yet to accept or refuse. */
  readonly #unaccepted: Set<number>;
  #finish: () => void = () => {};
  #bug: { readonly error: unknown } | undefined;

  constructor(
    plan: ConvergencePlan,
    pairings: Pairings,
    target: ConvergeTarget,
    ports: ConvergePorts,
    signal: AbortSignal,
  ) {
    this.#plan = plan;
    this.#ports = ports;
    this.#signal = AbortSignal.any([signal, this.#stop.signal]);
    this.#book = new PairingBook(ports.store, target, ports.clock, pairings, target.guard);
    const shared = {
      cloud: ports.cloud,
      limiter: ports.limiter,
      clock: ports.clock,
      scope: target.cloudScope,
      signal: this.#signal,
      onCall: (): void => {
        this.#calls += 1;
      },
    };
    this.#performer = new Performer({
      ...shared,
      random: ports.random,
      book: this.#book,
      retry: target.retry ?? defaultRetry,
    });
    this.#watch = new ReadinessWatch({
      ...shared,
      timeoutMs: target.readyTimeoutMs ?? defaultReadyTimeoutMs,
      onBug: (error) => this.#break(error),
    });
    this.#states = plan.actions.map(() => "waiting");
    this.#missing = plan.actions.map(({ waitsFor }) => waitsFor.length);
    this.#dependants = plan.actions.map(() => []);
    this.#unaccepted = new Set(plan.actions.keys());
    for (const { index, waitsFor } of plan.actions) {
      for (const { on, until } of waitsFor) this.#dependants[on]?.push({ index, until });
    }
  }

  async run(): Promise<ConvergenceReport> {
    const startedAt = this.#ports.clock.monotonicMs();
    const finished = new Promise<void>((resolve) => {
      this.#finish = resolve;
    });
    const first = this.#plan.actions.filter(({ waitsFor }) => waitsFor.length === 0);
    for (const action of first) this.#start(action);
    this.#checkEnd();
    const onAbort = (): void => this.#checkEnd();
    this.#signal.addEventListener("abort", onAbort, { once: true });
    await finished;
    this.#signal.removeEventListener("abort", onAbort);
    if (this.#bug !== undefined) throw this.#bug.error;
    this.#signal.throwIfAborted();
    return this.#report(this.#ports.clock.monotonicMs() - startedAt);
  }

  #start(action: ConvergenceAction): void {
    this.#states[action.index] = "running";
    this.#running += 1;
    void this.#perform(action)
      .catch((error: unknown) => this.#failed(action, error))
      .finally(() => {
        this.#running -= 1;
        this.#checkEnd();
      });
  }

  async #perform(action: ConvergenceAction): Promise<void> {
    switch (action.type) {
      case "create": {
        const observed = await this.#performer.create(action);
        return this.#afterCreate(action, observed);
      }
      case "update": {
        const result = await this.#performer.update(action);
        if (result !== "updated") {
          return this.#afterCreate({ ...action, type: "create", resume: null }, result.recreated);
        }
        break;
      }
      case "retag":
        await this.#performer.retag(action);
        break;
      case "delete":
        await this.#performer.remove(action);
        break;
      case "confirm": {
        this.#accepted(action);
        const { standbyId } = this.#book.expect(action.key);
        invariant(standbyId !== null, "what is confirmed has an id");
        return this.#untilReady(action, standbyId);
      }
      default:
        unreachable(action);
    }
    this.#reached(action, "ready");
  }

  async #afterCreate(action: CreateAction, observed: Observed): Promise<void> {
    const { status, resource } = observed;
    if (status === "ready" || status === "stopped") return this.#reached(action, "ready");
    this.#reached(action, "done");
    await this.#untilReady(action, resource.id);
  }

  /** A server that fails is deleted and made once more, with a token of its own. */
  async #untilReady(action: ConvergenceAction, id: ResourceId): Promise<void> {
    let current = id;
    for (const last of [false, true]) {
      const readiness = await this.#ready(action, current);
      if (readiness.ready) {
        await this.#book.write({ ...this.#book.expect(action.key), confirmed: true });
        return this.#reached(action, "ready");
      }
      const { log } = this.#ports;
      log.warn({ kind: action.kind, id: current, fault: readiness.fault, last }, "a new resource failed");
      if (last || !("target" in action)) return this.#failedToWork(action, readiness.fault);
      await this.#performer.remove({ ...action, implied: false });
      const again = await this.#performer.create({ ...action, resume: null });
      current = again.resource.id;
    }
  }

  async #ready(
    action: ConvergenceAction,
    id: ResourceId,
  ): Promise<{ readonly ready: true } | { readonly ready: false; readonly fault: string }> {
    const urgent = (this.#dependants[action.index] ?? []).some(({ until }) => until === "ready");
    const { promise, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(this.#signal.reason as Error);
    this.#signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([promise, this.#watch.wait(action.kind, id, urgent)]);
    } finally {
      this.#signal.removeEventListener("abort", onAbort);
    }
  }

  /** What never worked is taken away, so that the next plan makes it anew. */
  async #failedToWork(action: ConvergenceAction, fault: string): Promise<void> {
    await this.#performer.remove({ ...action, implied: false });
    this.#note(action, "cloud.refused", fault);
    this.#settle(action, "failed");
  }

  /** `done` lets those go on that need it to exist, `ready` those that need it to work. */
  #reached(action: ConvergenceAction, state: "done" | "ready"): void {
    const before = this.#states[action.index];
    this.#accepted(action);
    this.#states[action.index] = state;
    for (const { index, until } of this.#dependants[action.index] ?? []) {
      const now = state === "ready" ? until === "ready" || before === "running" : until === "done";
      if (now) this.#release(index);
    }
    if (state !== "ready") return;
    this.#counts[action.type] += 1;
    this.#ended();
  }

  #release(index: number): void {
    const left = (this.#missing[index] ?? 0) - 1;
    this.#missing[index] = left;
    const action = this.#plan.actions[index];
    if (left > 0 || action === undefined || this.#states[index] !== "waiting") return;
    if (!this.#signal.aborted) this.#start(action);
  }

  /** Once nothing is left to ask for, everything that is still pending is waited for. */
  #accepted(action: ConvergenceAction): void {
    this.#unaccepted.delete(action.index);
    if (this.#unaccepted.size === 0) this.#watch.drain();
  }

  #failed(action: ConvergenceAction, error: unknown): void {
    if (this.#signal.aborted) return;
    const fatal = !isOperational(error) || error.code.startsWith("store.") || error.code === "state.fenced";
    if (fatal) return this.#break(error);
    this.#note(action, error.code, publicMessage(error));
    this.#settle(action, "failed");
  }

  #note(action: ConvergenceAction, code: ErrorCode, message: string): void {
    const { type, kind, activeId } = action;
    this.#failures.push({ type, kind, activeId, code, message });
    this.#ports.log.warn({ type, kind, activeId, code }, message);
  }

  #settle(action: ConvergenceAction, state: "failed" | "skipped"): void {
    this.#states[action.index] = state;
    this.#accepted(action);
    this.#ended();
    for (const { index } of this.#dependants[action.index] ?? []) {
      const dependant = this.#plan.actions[index];
      if (dependant === undefined || this.#states[index] !== "waiting") continue;
      const reason = `it depends on ${action.kind} ${action.activeId}, which ${state === "failed" ? "failed" : "was skipped"}`;
      this.#skips.push({ kind: dependant.kind, activeId: dependant.activeId, reason });
      this.#settle(dependant, "skipped");
    }
  }

  #break(error: unknown): void {
    if (this.#signal.aborted) return;
    this.#bug = { error };
    this.#stop.abort(error);
  }

  #ended(): void {
    this.#settled += 1;
    const [failed, skipped] = [this.#failures.length, this.#skips.length];
    const done = this.#settled - failed - skipped;
    this.#ports.onProgress?.({ total: this.#plan.actions.length, done, failed, skipped });
  }

  #checkEnd(): void {
    if (this.#running > 0) return;
    if (!this.#signal.aborted) {
      invariant(this.#settled === this.#plan.actions.length, "every action of the plan was settled");
    }
    this.#finish();
  }

  #report(elapsedMs: number): ConvergenceReport {
    const { create, update, retag, delete: deleted, confirm } = this.#counts;
    return {
      created: create,
      updated: update,
      retagged: retag,
      deleted,
      confirmed: confirm,
      failed: this.#failures.length,
      skipped: this.#skips.length,
      calls: this.#calls,
      elapsedMs,
      failures: this.#failures,
      skips: this.#skips,
      gaps: [...this.#plan.gaps, ...this.#failures.map(refusal)],
    };
  }
}

function refusal(failure: ActionFailure): Gap {
  const { type, kind, activeId, message } = failure;
  const severity = type === "create" ? "lost" : type === "delete" ? "note" : "degraded";
  const text = `the standby site did not ${type} its ${kind} for ${activeId}: ${message}`;
  return { code: "standby.refused", severity, resource: { kind, id: activeId }, message: text };
}
