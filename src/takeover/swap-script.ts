/**
 * Swap: the roles are exchanged for good. After a failover there is little left to do; from a protected environment it is a
 * planned failover that ends with the roles as they then are.
 */
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import { forgetKept } from "#takeover/commit-exchange.ts";
import { moveEnvironment } from "#takeover/environment-record.ts";
import { scaleDown } from "#takeover/failback-script.ts";
import { failoverScript } from "#takeover/failover-script.ts";
import type { Conclusion, RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

/** A site that has answered nothing for this long is not waited for, in milliseconds. */
const answerWithinMs = 2000;
/** One that answers, if only to ask for patience, is asked so often, a little later each time. */
const attempts = 5;
const pauseMs = 200;

/** @param planned the environment was protected when the run began, and has to be moved first */
export function swapScript(stage: Stage, planned: boolean): RunScript {
  const release: Step = { name: "release-old-site", execute: (context) => releaseOldSite(stage, context) };
  if (planned) {
    const move = failoverScript(stage);
    return { ...move, steps: [...move.steps, release] };
  }
  return {
    steps: [{ name: "commit-roles", execute: () => commitRoles(stage) }, release],
    patienceMs: 60_000,
    conclude: concludeRoles,
  };
}

async function commitRoles(stage: Stage): Promise<StepResult> {
  const record = await stage.record();
  const move = moveEnvironment(stage.store, stage.clock, record, { phase: "protected" });
  return {
    summary: `${record.activeSite} is the active site for good, ${record.standbySite} its standby`,
    effects: [move, forgetKept(stage.store, stage.settings.id)],
  };
}

/**
 * The old site may be gone for days, or refuse: its reserve is then kept in order by its own follower, from when it answers.
 * Nothing that fails here undoes the roles, which are exchanged already.
 */
async function releaseOldSite(stage: Stage, context: StepContext): Promise<StepResult> {
  for (let attempt = 1; ; attempt += 1) {
    const released = await tryRelease(stage, context);
    if ("summary" in released) return released;
    const { standbySite } = await stage.record();
    const { why, answers } = released;
    if (!answers || attempt >= attempts) {
      return {
        summary: `${standbySite} is scaled down to a reserve when it answers (${why})`,
        result: { failed: 0 },
        effects: [forgetKept(stage.store, stage.settings.id)],
      };
    }
    await stage.clock.sleep(attempt * pauseMs, context.signal);
  }
}

/** `answers`: it is there, and may do on another day what it would not do now. */
async function tryRelease(
  stage: Stage,
  context: StepContext,
): Promise<StepResult | { readonly why: string; readonly answers: boolean }> {
  const { standbySite } = await stage.record();
  const { cloud } = stage.site(standbySite);
  const patience = deadlineAfter(stage.clock, answerWithinMs);
  try {
    await cloud.identify(AbortSignal.any([context.signal, patience.signal]));
    patience.cancel();
    return await scaleDown(stage, context);
  } catch (error) {
    context.signal.throwIfAborted();
    if (!isOperational(error) && !patience.signal.aborted) throw error;
    if (!isOperational(error)) return { why: `no answer within ${answerWithinMs} ms`, answers: false };
    const answers = error.retry !== "never" && error.code !== "cloud.unreachable";
    return { why: publicMessage(error), answers };
  } finally {
    patience.cancel();
  }
}

function concludeRoles(
  _results: ReadonlyMap<string, Json>,
  ended: "done" | "rolled_back" | "failed",
): Conclusion {
  return { state: ended === "done" ? "succeeded" : ended, error: null, effects: [] };
}
