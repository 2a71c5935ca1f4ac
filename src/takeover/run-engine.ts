/**
 * Executes a run's steps in order, each durable. Killed at any moment and started again, it goes on with the first step
 * that is not done; so every step must be safe to repeat from its beginning.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { RunState } from "#model/run.ts";
import type { Statement } from "#store/contract.ts";
import type { RunLedger, StoredRun } from "#takeover/run-ledger.ts";

export interface StepResult {
  /** One line for the timeline. */
  readonly summary: string;
  /** For later steps, also after a restart. */
  readonly result?: Json;
  /** Changes of durable state that happen exactly when the step is done. */
  readonly effects?: readonly Statement[];
}

export interface StepContext {
  readonly run: StoredRun;
  /** Results of the steps before, by name. */
  readonly results: ReadonlyMap<string, Json>;
  readonly signal: AbortSignal;
  /** A line on the timeline. */
  readonly say: (message: string, fields?: { readonly [key: string]: Json }) => Promise<void>;
}

export interface Step {
  readonly name: string;
  readonly execute: (context: StepContext) => Promise<StepResult>;
}

export interface Conclusion {
  readonly state: RunState;
  readonly error: string | null;
  readonly effects: readonly Statement[];
}

export interface RunScript {
  readonly steps: readonly Step[];
  /** Undoes what `steps` did, in this order, whichever of them were reached. Absent: a failed step ends the run as `failed`. */
  readonly rollback?: readonly Step[];
  /** How long a step is repeated while its error says that waiting may help, in milliseconds. */
  readonly patienceMs: number;
  /** What the results amount to, and what changes with the run's end. */
  readonly conclude: (
    results: ReadonlyMap<string, Json>,
    ended: "done" | "rolled_back" | "failed",
  ) => Promise<Conclusion> | Conclusion;
}

export interface RunEnginePorts {
  readonly ledger: RunLedger;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** After each step is durable: what the step's effects changed may have to be read anew. */
  readonly onStepDone: (signal: AbortSignal) => Promise<void>;
}

/** Why a run is ended before its own end. The reason of the signal that ends it. */
export class RunEnded extends Error {
  /** Whether what it did is undone first. */
  readonly undo: boolean;

  constructor(message: string, undo: boolean) {
    super(message);
    this.undo = undo;
  }
}

/** A rollback needs the site that was left; if that does not answer, a person decides. */
const undoPatienceMs = 60_000;

const stepRetry = { attempts: Number.POSITIVE_INFINITY, baseMs: 200, capMs: 5000 };

/**
 * Rejects only when the signal aborts or on a bug; a failed run is an ordinary end. `end` ends the run, with a `RunEnded` as its reason:
 * the step that is under way counts as failed.
 */
export async function executeRun(
  ports: RunEnginePorts,
  run: StoredRun,
  script: RunScript,
  signal: AbortSignal,
  end?: AbortSignal,
): Promise<RunState> {
  const { ledger } = ports;
  const before = await ledger.steps(run.id);
  const results = new Map(await ledger.results(run.id));
  const done = new Set(before.filter((step) => step.state === "done").map((step) => step.name));
  let failure = before.find((step) => step.state === "failed")?.summary ?? null;

  const executeAll = async (
    steps: readonly Step[],
    offset: number,
    patienceMs: number,
    until?: AbortSignal,
  ): Promise<string | null> => {
    for (const [index, step] of steps.entries()) {
      if (done.has(step.name)) continue;
      const error = await executeStep(ports, {
        run,
        step,
        ordinal: offset + index + 1,
        patienceMs,
        results,
        signal,
        ...(until === undefined ? {} : { end: until }),
      });
      if (error !== null) return error;
    }
    return null;
  };

  if (failure === null) failure = await executeAll(script.steps, 0, script.patienceMs, end);
  let ended: "done" | "rolled_back" | "failed" = failure === null ? "done" : "failed";
  const undo = end?.aborted !== true || (end.reason as RunEnded).undo;
  if (failure !== null && script.rollback !== undefined && undo) {
    const undoFailure = await executeAll(script.rollback, script.steps.length, undoPatienceMs);
    if (undoFailure === null) ended = "rolled_back";
    else failure = `${failure}; undoing it failed too: ${undoFailure}`;
  }
  const conclusion = await script.conclude(results, ended);
  await ledger.finish(run.id, conclusion.state, conclusion.error ?? failure, conclusion.effects);
  return conclusion.state;
}

interface StepExecution {
  readonly run: StoredRun;
  readonly step: Step;
  readonly ordinal: number;
  readonly patienceMs: number;
  readonly results: Map<string, Json>;
  readonly signal: AbortSignal;
  readonly end?: AbortSignal;
}

/** Returns the public message of the error that ended the step, or null when it is done. */
async function executeStep(ports: RunEnginePorts, execution: StepExecution): Promise<string | null> {
  const { ledger, clock, random, log } = ports;
  const { run, step, ordinal, results, signal, end } = execution;
  const either = end === undefined ? signal : AbortSignal.any([signal, end]);
  const begun = clock.monotonicMs();
  let lastMessage = "";
  const say: StepContext["say"] = (message, fields = {}) =>
    ledger.event({ environment: run.environment, run: run.id, severity: "info", message, fields });

  for (let attempt = 1; ; attempt += 1) {
    signal.throwIfAborted();
    try {
      await ledger.stepStarted(run.id, ordinal, step.name);
      either.throwIfAborted();
      const context = { run, results, signal: either, say };
      const { summary, result = null, effects = [] } = await step.execute(context);
      await ledger.stepDone(run.id, ordinal, summary, result, effects);
      results.set(step.name, result);
      lastMessage = summary;
      break;
    } catch (error) {
      signal.throwIfAborted();
      if (end?.aborted === true) {
        const { message } = end.reason as RunEnded;
        await ledger.stepFailed(run.id, ordinal, message);
        return `${step.name}: ${message}`;
      }
      if (!isOperational(error)) throw error;
      const message = publicMessage(error);
      log.warn({ run: run.id, step: step.name, attempt, code: error.code, detail: error.detail }, message);
      const patient = error.retry !== "never" && clock.monotonicMs() - begun < execution.patienceMs;
      if (!patient) {
        await ledger.stepFailed(run.id, ordinal, message);
        return `${step.name}: ${message}`;
      }
      if (message !== lastMessage) {
        await ledger.event({
          environment: run.environment,
          run: run.id,
          severity: "warning",
          message: `${step.name} is repeated: ${message}`,
          fields: { step: step.name, attempt },
        });
        lastMessage = message;
      }
      const restMs = backoffMs(stepRetry, Math.min(attempt, 10), random, error.retryAfterMs);
      // Ended meanwhile, the next attempt says so.
      await clock.sleep(restMs, either).catch(() => signal.throwIfAborted());
    }
  }
  // What is done is never begun anew, whatever goes wrong from here on: the next process goes on after it.
  await ports.onStepDone(signal);
  await say(`${step.name}: ${lastMessage}`, { step: step.name, ms: Math.round(clock.monotonicMs() - begun) });
  return null;
}
