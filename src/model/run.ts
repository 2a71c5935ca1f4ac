/** A run is one durable execution of a failover, failback, migration, swap, drill or restore. */
import type { EnvironmentId, RunId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";

export const runKinds = ["failover", "failback", "migrate", "swap", "drill", "restore"] as const;
export type RunKind = (typeof runKinds)[number];

/**
 * `incomplete`: it moved the environment, and some resources are named as missing. `rolled_back`: it undid what it had begun.
 * `failed`: it stopped and undid nothing; the error says what a person must do.
 */
export type RunState = "running" | "succeeded" | "incomplete" | "rolled_back" | "failed";

/** Where an environment stands between runs. */
export type EnvironmentPhase =
  /** The active site serves; the standby holds the reserve. */
  | "protected"
  /** The active site is fenced; users belong to the standby, which is being brought to full scale. */
  | "failing_over"
  /** The roles are exchanged: the former standby is active. The former active site is kept for a return. */
  | "failed_over"
  /** The former active site is being brought up to date; the active site still serves, and takes no commands. */
  | "failing_back"
  /** The standby is being made ready to serve for good; the active site still serves, and takes no commands. */
  | "migrating";

export interface Run {
  readonly id: RunId;
  readonly environment: EnvironmentId;
  readonly kind: RunKind;
  readonly state: RunState;
  /** Who or what started it, and why. */
  readonly trigger: string;
  readonly reason: string;
  /** The fencing epoch that the run took. */
  readonly epoch: number;
  readonly startedAt: number;
  readonly finishedAt: number | null;
  /** Public message of what ended it, if it did not succeed. */
  readonly error: string | null;
}

export interface RunStep {
  readonly run: RunId;
  /** 1-based. */
  readonly ordinal: number;
  readonly name: string;
  readonly state: "running" | "done" | "failed";
  readonly attempts: number;
  readonly startedAt: number;
  readonly finishedAt: number | null;
  /** One line for the timeline. */
  readonly summary: string | null;
  /** What later steps and people may want to know of it: figures, ids. */
  readonly result: Json | null;
}
