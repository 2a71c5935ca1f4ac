/** What is to be done in a target site, as data: made by `planConvergence`, carried out by `converge`. */
import type { ResourceId } from "#kernel/ids.ts";
import type { Gap } from "#model/gap.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import type { Content } from "./pairings.ts";

/** A desired resource that has a counterpart. */
export interface Wanted {
  readonly resource: Resource;
  readonly target: Content;
}

export interface Dependency {
  /** Index of the action that comes first. */
  readonly on: number;
  /** `done`: the target accepted it. `ready`: and says that it works, which takes a server a while. */
  readonly until: "done" | "ready";
}

interface ActionBase {
  /** Its place in `plan.actions`. */
  readonly index: number;
  readonly key: string;
  readonly kind: ResourceKind;
  readonly activeId: ResourceId;
  /** Filled while the plan is made. */
  readonly waitsFor: Dependency[];
  /** Higher goes first among those that are ready: the longest way to the end. */
  priority: number;
}

export interface CreateAction extends ActionBase {
  readonly type: "create";
  /** The active side that it is made after. */
  readonly source: Content;
  /** Translated, its references still in the active side's ids. */
  readonly target: Content;
  /** The token of an earlier attempt that may have reached the target. */
  readonly resume: string | null;
}

export interface UpdateAction extends ActionBase {
  readonly type: "update";
  readonly source: Content;
  readonly target: Content;
  /** Fields of the target's spec that differ. */
  readonly fields: readonly string[];
}

export interface RetagAction extends ActionBase {
  readonly type: "retag";
  readonly source: Content;
  readonly set: Readonly<Record<string, string>>;
  readonly remove: readonly string[];
}

export interface DeleteAction extends ActionBase {
  readonly type: "delete";
  /** It ends with another resource: nothing is asked of the target. */
  readonly implied: boolean;
}

/** Nothing to ask but whether it works: an earlier run ended before the target said so. */
export interface ConfirmAction extends ActionBase {
  readonly type: "confirm";
  readonly source: Content;
  readonly target: Content;
}

export type ConvergenceAction = CreateAction | UpdateAction | RetagAction | DeleteAction | ConfirmAction;
export type ActionType = ConvergenceAction["type"];

export interface ConvergencePlan {
  readonly actions: readonly ConvergenceAction[];
  /** What cannot be as it is on the active side, and why. */
  readonly gaps: readonly Gap[];
  /** Calls of the target that it takes at least, without waiting for readiness. */
  readonly calls: number;
  /** Calls that must follow each other. */
  readonly depth: number;
}
