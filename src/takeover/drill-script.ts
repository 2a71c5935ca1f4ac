/** Drill: the whole environment is made in the standby site, in isolation, verified, and removed to the last piece. */
import { OperationalError } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import { type EnvironmentState, resourceKey } from "#model/environment-state.ts";
import { boundEvidence, type Evidence } from "#model/evidence.ts";
import { neededBy } from "#model/needed-resources.ts";
import type { Resource } from "#model/resource.ts";
import { keepEvidence, markVerified } from "#recovery/recovery-points.ts";
import type { Statement } from "#store/contract.ts";
import { findLeftovers, removeLeftovers } from "#standby/remove-leftovers.ts";
import { convergeSite, describeReport, runningServers } from "#takeover/converge-site.ts";
import { moveInput, progressSpeaker } from "#takeover/failover-script.ts";
import { chooseMoment, momentOf, noMomentOf } from "#takeover/choose-moment.ts";
import { describeWithheld, seedDisks, withoutWithheld } from "#takeover/seed-disks.ts";
import type { Conclusion, RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { StoredRun } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";
import { describeFailures } from "#takeover/examine-servers.ts";
import { examineCounterparts, verifyCounterparts } from "#takeover/verify-counterparts.ts";
import { describeChecks } from "#takeover/verify-servers.ts";

export function drillScope(run: StoredRun): string {
  return run.id;
}

export function drillScript(stage: Stage, run: StoredRun): RunScript {
  return {
    steps: [
      ...diskSteps(stage),
      { name: "build", execute: (context) => build(stage, context) },
      { name: "verify", execute: (context) => verify(stage, context) },
      { name: "hold", execute: (context) => hold(stage, context) },
      { name: "clean-up", execute: (context) => cleanUp(stage, context) },
    ],
    rollback: [{ name: "undo: clean up", execute: (context) => cleanUp(stage, context) }],
    patienceMs: 60_000,
    conclude: (results, ended) => conclude(stage, run, results, ended),
  };
}

/** In the drill's own scope: what is written to these disks is gone with them. */
function diskSteps(stage: Stage): readonly Step[] {
  if (stage.disks === undefined) return [];
  return [
    {
      name: "choose-moment",
      execute: (context) => {
        const { at, sequence } = moveInput(context.run.input);
        const wanted = { atMs: at ?? null, sequence, settled: false, fence: null, atAnyRate: true };
        return chooseMoment(stage, context, wanted);
      },
    },
    {
      name: "seed-disks",
      execute: async (context) => {
        const { run, results } = context;
        const { from, to } = moveInput(run.input);
        const scope = drillScope(run);
        const moment = momentOf(results, "choose-moment");
        const none = noMomentOf(results, "choose-moment");
        const nameSuffix = `-${run.id}`;
        const converge = { from, to, scope, sizing: "fit" as const, nameSuffix, epoch: run.epoch };
        const state = await stage.settledState(context.signal);
        const only = new Set(partOf(state, run).flatMap((one) => (one.kind === "volume" ? [one.id] : [])));
        return seedDisks(stage, context, { to, scope, moment, none, converge, only });
      },
    },
  ];
}

/** What is built: everything, or the named servers with what they need. */
function partOf(state: EnvironmentState, run: StoredRun): readonly Resource[] {
  const { servers } = moveInput(run.input);
  return servers === undefined ? [...state.resources()] : neededBy(state, new Set(servers));
}

async function build(stage: Stage, { run, results, signal, say }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const state = await stage.settledState(signal);
  // The record goes on following the journal while this builds.
  const part = partOf(state, run);
  const desired = withoutWithheld(part, results, state);
  const built = new Set(part.map(({ kind, id }) => resourceKey(kind, id)));
  const servers = runningServers(state).flatMap(({ kind, id }) =>
    built.has(resourceKey(kind, id)) ? [id] : [],
  );
  const report = await convergeSite(
    stage,
    {
      from,
      to,
      scope: drillScope(run),
      desired,
      sizing: "fit",
      nameSuffix: `-${run.id}`,
      epoch: run.epoch,
      onProgress: progressSpeaker(stage, say),
    },
    signal,
  );
  return {
    summary: describeReport(report),
    result: {
      created: report.created,
      servers,
      failed: report.failed + report.skipped,
      ms: report.elapsedMs,
      calls: report.calls,
    },
  };
}

/** What was built is what is verified: the environment goes on changing meanwhile. */
async function verify(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { to } = moveInput(run.input);
  const { servers } = results.get("build") as { servers: readonly string[] };
  const at = { to, scope: drillScope(run), only: new Set(servers) };
  const checks = await verifyCounterparts(stage, at, signal);
  const examined = await examineCounterparts(stage, at, signal);
  const failures = describeFailures(examined);
  const down = checks.filter(({ problem }) => problem !== null).map(({ id }) => id);
  const failing = examined.filter(({ verdicts }) => verdicts.some(({ problem }) => problem !== null));
  const bad = new Set([...down, ...failing.map(({ id }) => id)]).size;
  const held = examined.reduce((count, { verdicts }) => count + verdicts.length, 0);
  const more = failures ?? (held === 0 ? null : `${held} checks hold`);
  const named = [describeChecks(checks), ...(more === null ? [] : [more])].join("; ");
  const seenAt = stage.clock.now();
  const evidence = boundEvidence({ at: seenAt, good: bad === 0, summary: named, servers: examined });
  return {
    summary: named,
    result: { servers: checks.length, bad, named, at: seenAt },
    effects: evidenceOn(stage, run, results, evidence),
  };
}

/** Beside the points of its moment, also where it is bad: what failed is what is to be looked at. */
function evidenceOn(
  stage: Stage,
  run: StoredRun,
  results: ReadonlyMap<string, Json>,
  evidence: Evidence,
): readonly Statement[] {
  const moment = results.has("choose-moment") ? momentOf(results, "choose-moment") : null;
  if (moment === null || moveInput(run.input).servers !== undefined) return [];
  return [keepEvidence(stage.store, environmentId(stage.settings.id), moment.sequence, evidence)];
}

/** A copy of the environment, isolated, for people to look at. What is restarted meanwhile keeps to the time that was asked for. */
async function hold(stage: Stage, { run, results, signal, say }: StepContext): Promise<StepResult> {
  const { holdMs = 0, to } = moveInput(run.input);
  if (holdMs === 0) return { summary: "nothing is to be looked at" };
  const { at } = results.get("verify") as { readonly at: number };
  const until = at + holdMs;
  await say(`stands at ${to} to be looked at until ${new Date(until).toISOString()}`);
  await stage.clock.sleep(Math.max(0, until - stage.clock.now()), signal);
  return { summary: `stood at ${to} for ${Math.round(holdMs / 1000)} s` };
}

/** By the pairings first, then by the scope that everything made for the drill bears: nothing of it may stay. */
export async function cleanUp(
  stage: Stage,
  { run, signal }: Pick<StepContext, "run" | "signal">,
): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const report = await convergeSite(
    stage,
    {
      from,
      to,
      scope: drillScope(run),
      desired: [],
      sizing: "fit",
      nameSuffix: `-${run.id}`,
      epoch: run.epoch,
    },
    signal,
  );
  const { cloud, limiter } = stage.site(to);
  const leftovers = await findLeftovers(
    cloud,
    limiter,
    `${stage.settings.id}/${drillScope(run)}`,
    new Map(),
    signal,
  );
  const kept = await removeLeftovers(cloud, limiter, leftovers, signal);
  if (report.failed + kept.length > 0) {
    const why = report.failures[0]?.message ?? kept.map(({ kind, id }) => `${kind} ${id}`).join(", ");
    throw new OperationalError("cloud.conflict", `the drill's resources are not all removed yet: ${why}`);
  }
  return {
    summary: `${report.deleted + leftovers.length} resources removed, nothing of the drill is left at ${to}`,
    result: { deleted: report.deleted, leftovers: leftovers.length },
  };
}

/** Only what was booted and probed is called verified: all of it. */
function verdictOn(stage: Stage, run: StoredRun, results: ReadonlyMap<string, Json>): readonly Statement[] {
  if (moveInput(run.input).servers !== undefined) return [];
  const moment = results.has("choose-moment") ? momentOf(results, "choose-moment") : null;
  if (moment === null) return [];
  const { named } = results.get("verify") as { readonly named: string };
  const verdict = { at: stage.clock.now(), summary: named };
  return [markVerified(stage.store, environmentId(stage.settings.id), moment.sequence, verdict)];
}

function conclude(
  stage: Stage,
  run: StoredRun,
  results: ReadonlyMap<string, Json>,
  ended: "done" | "rolled_back" | "failed",
): Conclusion {
  if (ended !== "done") return { state: ended, error: null, effects: [] };
  const built = results.get("build") as { failed: number };
  const verified = results.get("verify") as { bad: number; named: string };
  const withheld = describeWithheld(results);
  if (built.failed === 0 && verified.bad === 0 && withheld === null) {
    return { state: "succeeded", error: null, effects: verdictOn(stage, run, results) };
  }
  return {
    state: "incomplete",
    error: `a takeover now would not be whole: ${built.failed} resources could not be made; ${verified.named}${withheld === null ? "" : `; ${withheld}`}`,
    effects: [],
  };
}
