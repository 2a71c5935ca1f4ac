/** What a takeover would still have to do now, counted. */
import type { ResourceKind } from "#model/resource.ts";
import type { LimiterFigures } from "./call-limiter.ts";
import type { ActionType, ConvergencePlan } from "./convergence-plan.ts";
import type { ConvergenceInput } from "./plan-convergence.ts";
import { planConvergence } from "./plan-convergence.ts";

export interface RemainingQueue {
  readonly creates: number;
  readonly updates: number;
  readonly deletes: number;
  readonly byKind: Readonly<Partial<Record<ResourceKind, Readonly<Partial<Record<ActionType, number>>>>>>;
  /** Keys of the active side's resources that are not yet, or not yet as they should be, on the standby. */
  readonly keys: ReadonlySet<string>;
  readonly calls: number;
  /** At the site's rate as far as it is known, without the time that servers take to start. */
  readonly estimatedSeconds: number;
}

/** A call's time where nothing has been measured yet. */
const assumedLatencyMs = 500;

/** @param input what all of the environment would be: `desired` is its whole state. */
export function remainingQueue(
  input: ConvergenceInput,
  figures: Pick<LimiterFigures, "callsPerSecond" | "latencyMs" | "window">,
): RemainingQueue {
  return countQueue(planConvergence(input), figures);
}

export function countQueue(
  plan: ConvergencePlan,
  figures: Pick<LimiterFigures, "callsPerSecond" | "latencyMs" | "window">,
): RemainingQueue {
  const byKind: Partial<Record<ResourceKind, Partial<Record<ActionType, number>>>> = {};
  const totals: Record<ActionType, number> = { create: 0, update: 0, retag: 0, delete: 0, confirm: 0 };
  const keys = new Set<string>();
  for (const { type, kind, key } of plan.actions) {
    totals[type] += 1;
    const counts = (byKind[kind] ??= {});
    counts[type] = (counts[type] ?? 0) + 1;
    keys.add(key);
  }
  const latencyMs = figures.latencyMs ?? assumedLatencyMs;
  const rate = figures.callsPerSecond ?? (figures.window * 1000) / latencyMs;
  return {
    creates: totals.create,
    updates: totals.update + totals.retag,
    deletes: totals.delete,
    byKind,
    keys,
    calls: plan.calls,
    estimatedSeconds: Math.max(plan.calls / rate, (plan.depth * latencyMs) / 1000),
  };
}
