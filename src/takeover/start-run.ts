/** Which run may begin when, and what it takes with it from its first moment. Pure but for reading the clock. */
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { EnvironmentPhase, RunKind } from "#model/run.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { RunRequest } from "#takeover/control.ts";
import { moveEnvironment, type EnvironmentRecord } from "#takeover/environment-record.ts";
import type { MoveInput } from "#takeover/failover-script.ts";
import type { NewRun } from "#takeover/run-ledger.ts";

const allowed: Readonly<Record<RunKind, readonly EnvironmentPhase[]>> = {
  // A failover that failed half-way is begun anew from where it stands.
  failover: ["protected", "failing_over", "migrating"],
  failback: ["failed_over", "failing_back"],
  migrate: ["protected", "migrating"],
  swap: ["protected", "failed_over"],
  drill: ["protected"],
  restore: ["protected", "failed_over"],
};

const why: Readonly<Record<EnvironmentPhase, string>> = {
  protected: "it is served by its active site, and there is nothing to return from",
  failing_over: "a failover has moved it half-way: begin the failover again",
  failed_over: "it has failed over: return with a failback, or make the new roles final with a swap",
  failing_back: "a failback has stopped half-way: begin the failback again",
  migrating: "a migration has stopped half-way: begin it again, or begin a failover",
};

export interface PreparedRun {
  readonly run: NewRun;
  /** Part of the same commit as the run's first record. */
  readonly effects: readonly Statement[];
}

/** What of the environment it is about; absent: all of it. */
export interface RunPart {
  readonly volumes?: readonly ResourceId[];
  readonly servers?: readonly ResourceId[];
}

/** Errors: `state.conflict` when the environment's phase does not allow the run; `input.invalid` for force without a reason. */
export function prepareRun(
  store: Store,
  clock: Clock,
  record: EnvironmentRecord,
  request: RunRequest,
  part: RunPart = {},
): PreparedRun {
  const { kind, force } = request;
  if (!allowed[kind].includes(record.phase)) {
    throw new OperationalError(
      "state.conflict",
      `environment "${record.id}" cannot begin a ${kind} now: ${why[record.phase]}`,
    );
  }
  if (force && request.reason.trim().length < 3) {
    throw new OperationalError("input.invalid", "to force a run, say why: the reason is kept with it");
  }
  if (kind === "restore") checkRestore(request, part);
  else if (request.live === true || request.asItIs === true) {
    const means = request.live === true ? "live" : "asItIs";
    throw new OperationalError("input.invalid", `a ${kind} is no restore: \`${means}\` means nothing there`);
  }
  if (request.sequence !== undefined && request.at === undefined) {
    throw new OperationalError("input.invalid", "a write is named together with its time: give `at` too");
  }
  const forGood = kind === "swap" && record.phase === "protected";
  const input: MoveInput = {
    from: record.activeSite,
    to: record.standbySite,
    force,
    forGood,
    at: request.at ?? null,
    ...(request.sequence === undefined ? {} : { sequence: request.sequence }),
    ...(part.volumes === undefined ? {} : { volumes: part.volumes }),
    ...(part.servers === undefined ? {} : { servers: part.servers }),
    ...(request.live === undefined ? {} : { live: request.live }),
    ...(request.asItIs === undefined ? {} : { asItIs: request.asItIs }),
    ...(request.holdMs === undefined ? {} : { holdMs: request.holdMs }),
  };
  const phase = phaseDuring(kind, record.phase);
  const epoch = phase === null ? record.epoch : record.epoch + 1;
  return {
    run: {
      environment: record.id,
      kind,
      trigger: request.by,
      reason: request.reason,
      epoch,
      input: input as unknown as Json,
    },
    effects: phase === null ? [] : [moveEnvironment(store, clock, record, { phase, epoch })],
  };
}

function checkRestore({ at, live, asItIs }: RunRequest, { volumes }: RunPart): void {
  if (asItIs === true && (at !== undefined || live === true)) {
    throw new OperationalError(
      "input.invalid",
      "disks are taken as they are, or brought to a moment: not both at once",
    );
  }
  if (volumes === undefined || (at === undefined && asItIs !== true)) {
    throw new OperationalError("input.invalid", "a restore needs its volumes and its moment");
  }
}

/** What an environment in need does not wait for: nothing that serves hangs on it. */
export function givesWay(kind: RunKind): boolean {
  return kind === "drill" || kind === "restore";
}

/** Runs that a person may end on their way. One that leaves a site that may be lost has nowhere to go back to. */
export function canBeEnded(kind: RunKind): boolean {
  return kind !== "failover" && kind !== "swap";
}

/** Null: the environment is not moved. */
function phaseDuring(kind: RunKind, phase: EnvironmentPhase): EnvironmentPhase | null {
  switch (kind) {
    case "failover":
      return "failing_over";
    case "failback":
      return "failing_back";
    case "migrate":
      return "migrating";
    case "swap":
      return phase === "protected" ? "failing_over" : phase;
    case "drill":
    case "restore":
      return null;
  }
}
