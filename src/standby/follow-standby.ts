/** Keeps the reserve: whatever the environment becomes, the standby follows as the policy says. */
import type { Journal } from "#journal/contract.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Gap } from "#model/gap.ts";
import type { ReservePolicy } from "#model/policy.ts";
import type { Statement } from "#store/contract.ts";
import { replaceGaps } from "#environment/gaps.ts";
import type { JournalFollower } from "#environment/follow-journal.ts";
import { moveReader, readerPosition } from "#environment/load-state.ts";
import { assessedCodes, assessGaps } from "./assess-gaps.ts";
import type { ConvergencePlan } from "./convergence-plan.ts";
import type { ConvergePorts, ConvergenceReport } from "./converge.ts";
import { converge } from "./converge.ts";
import type { Pairings } from "./pairings.ts";
import { loadPairings } from "./pairings.ts";
import { planConvergence } from "./plan-convergence.ts";
import { reserveResources } from "./select-reserve.ts";
import type { Translation } from "./translate.ts";

/** The name of the reader whose position the standby has followed to. */
export const standbyReader = "standby";

export interface FollowStandbyOptions extends ConvergePorts {
  readonly environment: EnvironmentId;
  readonly journal: Journal;
  readonly follower: JournalFollower;
  readonly policy: ReservePolicy;
  /** Asked before each round, since catalogues are refreshed; `undefined`: not known yet. */
  readonly translation: () => Promise<Translation | undefined>;
  /** Goes with every write; asked before each round. */
  readonly guard: () => Promise<readonly Statement[]>;
  /** Not moving for so long, while there is something to follow, is an alarm; default a minute. */
  readonly alarmAfterMs?: number;
}

export interface StandbyLag {
  /** Journal positions that the standby has not followed yet. */
  readonly positions: number;
  /** For how long there has been something to follow. */
  readonly seconds: number;
  /** Why it should move and does not; null while all is well. */
  readonly alarm: string | null;
  readonly paused: boolean;
  /** The last round that went to its end. */
  readonly lastReport: ConvergenceReport | null;
}

const retryMs = { least: 2_000, most: 60_000 };
const defaultAlarmMs = 60_000;

export class StandbyFollower {
  readonly #options: FollowStandbyOptions;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;
  #round: AbortController | undefined;
  #roundEnds: Promise<void> = Promise.resolve();
  #paused = 0;
  #resume: () => void = () => {};
  #resumed: AbortController | undefined;
  #position: number;
  /** The follower's version that the last complete round was made from. */
  #version = -1;
  #behindSince: number | null = null;
  #lastError: string | null = null;
  #lastReport: ConvergenceReport | null = null;
  #failure: unknown;
  readonly #waiters = new Set<() => void>();

  constructor(options: FollowStandbyOptions, position: number) {
    this.#options = options;
    this.#position = position;
    this.#loop = this.#run();
  }

  /** Every command up to here has been followed, as far as the policy and the site let it. */
  get position(): number {
    return this.#position;
  }

  /** What ended the loop, if it ended by itself. */
  get failure(): unknown {
    return this.#failure;
  }

  async lag(): Promise<StandbyLag> {
    const { journal, environment, clock, alarmAfterMs = defaultAlarmMs } = this.#options;
    const positions = Math.max(0, (await journal.head(environment)) - this.#position);
    const behindMs = positions === 0 || this.#behindSince === null ? 0 : clock.now() - this.#behindSince;
    const stuck = this.#paused === 0 && behindMs > alarmAfterMs;
    const ended = this.#failure === undefined ? null : publicMessage(this.#failure);
    const alarm =
      ended ??
      (stuck
        ? `the standby has not moved for ${Math.round(behindMs / 1000)} s: ${this.#lastError ?? "a round is still running"}`
        : null);
    return {
      positions,
      seconds: behindMs / 1000,
      alarm,
      paused: this.#paused > 0,
      lastReport: this.#lastReport,
    };
  }

  /** Ends the round that is under way; nothing touches the site until `resume`. Pauses nest. */
  async pause(): Promise<void> {
    this.#paused += 1;
    this.#round?.abort(new Error("the standby is paused"));
    await this.#roundEnds;
  }

  resume(): void {
    invariant(this.#paused > 0, "only what was paused is resumed");
    this.#paused -= 1;
    // The run may have changed everything.
    this.#version = -1;
    if (this.#paused > 0) return;
    this.#resume();
    this.#resumed?.abort();
  }

  /** Resolves once the standby has followed to `position`. */
  waitFor(position: number, signal: AbortSignal): Promise<void> {
    const ends = AbortSignal.any([signal, this.#stop.signal]);
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        if (this.#position < position && !ends.aborted) return;
        this.#waiters.delete(settle);
        ends.removeEventListener("abort", settle);
        if (this.#position >= position) resolve();
        else reject(ends.reason as Error);
      };
      this.#waiters.add(settle);
      ends.addEventListener("abort", settle, { once: true });
      settle();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the standby is no longer kept"));
    this.#resume();
    await this.#loop;
  }

  async #run(): Promise<void> {
    try {
      await this.#keep();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#failure = error;
      const { log, environment } = this.#options;
      // A run has moved the environment: whoever started it opens a new follower when it is over.
      if (isOperational(error, "state.fenced")) log.info({ environment }, "the standby is kept no longer");
      else log.error({ environment, err: error }, "keeping the standby ended");
      this.#stop.abort(error);
    }
  }

  async #keep(): Promise<void> {
    const { follower, clock } = this.#options;
    const { signal } = this.#stop;
    for (let pauseMs = retryMs.least; !signal.aborted;) {
      await this.#unpaused();
      if (follower.version <= this.#version) {
        this.#behindSince = null;
        await this.#changedOrResumed();
        continue;
      }
      this.#behindSince ??= clock.now();
      const went = await this.#oneRound();
      if (went) pauseMs = retryMs.least;
      else if (this.#paused === 0) {
        await clock.sleep(pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, retryMs.most);
      }
    }
  }

  async #unpaused(): Promise<void> {
    while (this.#paused > 0 && !this.#stop.signal.aborted) {
      await new Promise<void>((resolve) => {
        this.#resume = resolve;
      });
    }
  }

  async #changedOrResumed(): Promise<void> {
    const resumed = new AbortController();
    this.#resumed = resumed;
    const signal = AbortSignal.any([resumed.signal, this.#stop.signal]);
    try {
      await this.#options.follower.changed(this.#version, signal);
    } catch (error) {
      if (!resumed.signal.aborted || this.#stop.signal.aborted) throw error;
    } finally {
      this.#resumed = undefined;
    }
  }

  /** Answers whether it went to its end without anything that is worth an early repetition. */
  async #oneRound(): Promise<boolean> {
    const round = new AbortController();
    this.#round = round;
    const ended = Promise.withResolvers<void>();
    this.#roundEnds = ended.promise;
    try {
      return await this.#converge(AbortSignal.any([round.signal, this.#stop.signal]));
    } catch (error) {
      if (round.signal.aborted) return false;
      if (this.#stop.signal.aborted || !isOperational(error) || error.code === "state.fenced") throw error;
      this.#lastError = publicMessage(error);
      this.#options.log.warn({ code: error.code }, `the standby was not followed: ${this.#lastError}`);
      return false;
    } finally {
      this.#round = undefined;
      ended.resolve();
    }
  }

  async #converge(signal: AbortSignal): Promise<boolean> {
    const { environment, follower, policy, store, clock } = this.#options;
    const translation = await this.#options.translation();
    if (translation === undefined) {
      this.#lastError = "what the sites offer is not known yet";
      return false;
    }
    const of = { environment, scope: "main" };
    const pairings = await loadPairings(store, of);
    const guard = await this.#options.guard();
    // From here to the plan without an await: state, position and version belong together.
    const { version, position } = follower;
    const sizing = policy.smallerTypes ? "smallest" : "fit";
    const whole = [...follower.state.resources()];
    const plan = planReserve(follower, policy, pairings, { ...translation, sizing });
    const gaps = assessGaps(whole, translation, policy.recovered ?? null);
    const target = { ...of, cloudScope: environment, guard };
    const report = await converge(plan, pairings, target, this.#options, signal);
    await this.#recordGaps([...gaps, ...refusals(report)]);
    await store.commit([...guard, moveReader(store, environment, standbyReader, position)]);
    this.#position = position;
    this.#lastReport = report;
    this.#lastError = report.failures[0]?.message ?? null;
    this.#behindSince = version < follower.version ? clock.now() : null;
    for (const settle of this.#waiters) settle();
    const passing = report.failures.some(({ code }) => passingCodes.has(code));
    if (!passing) this.#version = version;
    return !passing;
  }

  async #recordGaps(gaps: readonly Gap[]): Promise<void> {
    const { store, environment, clock } = this.#options;
    await replaceGaps(store, environment, [...assessedCodes, "standby.refused"], gaps, clock.now());
  }
}

/** Failures that a later round may well not meet again. */
const passingCodes: ReadonlySet<string> = new Set([
  "cloud.unreachable",
  "cloud.timeout",
  "cloud.failing",
  "cloud.throttled",
  "cloud.conflict",
  "cloud.protocol",
]);

function refusals(report: ConvergenceReport): Gap[] {
  return report.gaps.filter(({ code }) => code === "standby.refused");
}

function planReserve(
  follower: JournalFollower,
  policy: ReservePolicy,
  pairings: Pairings,
  translation: Translation,
): ConvergencePlan {
  const paired = new Set([...pairings].filter(([, { state }]) => state !== "deleting").map(([key]) => key));
  const desired = reserveResources(follower.state, policy, paired);
  return planConvergence({ desired, pairings, translation });
}

export async function openStandbyFollower(options: FollowStandbyOptions): Promise<StandbyFollower> {
  const position = await readerPosition(options.store, options.environment, standbyReader);
  return new StandbyFollower(options, position);
}
