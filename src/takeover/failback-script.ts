/**
 * Failback: see what is left of the former active site, bring it up to date, exchange the roles again, route users back, and
 * scale the copy down to a reserve. The copy serves until the original is verified.
 */
import { clearGapsOfCode } from "#environment/gaps.ts";
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import { environmentId } from "#kernel/ids.ts";
import { forgetContents } from "#recovery/kept-contents.ts";
import type { ConvergenceReport } from "#standby/converge.ts";
import { loadPairings } from "#standby/pairings.ts";
import { reserveResources } from "#standby/select-reserve.ts";
import { exchangeStatements, forgetKept, mainScope } from "#takeover/commit-exchange.ts";
import { convergeSite, describeReport, type SiteConvergence } from "#takeover/converge-site.ts";
import { moveEnvironment } from "#takeover/environment-record.ts";
import { moveInput, progressSpeaker, routeAll } from "#takeover/failover-script.ts";
import type { Conclusion, RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import { describeProbes, probeApplication } from "#takeover/probe-application.ts";
import { chooseMoment, momentOf, settleDisks } from "#takeover/choose-moment.ts";
import {
  holdWrites,
  releaseWrites,
  restoreDisks,
  stopCounterparts,
  withKeptServersStopped,
} from "#takeover/recover-disks.ts";
import type { Stage } from "#takeover/stage.ts";
import { startStranded } from "#takeover/start-stranded.ts";
import { describeSurvey, surveyCounterparts } from "#takeover/survey-counterparts.ts";
import { verifyCounterparts } from "#takeover/verify-counterparts.ts";
import { describeChecks } from "#takeover/verify-servers.ts";

/** The copy serves meanwhile: a return that does not come about is rolled back, not waited for. */
const patienceMs = 5 * 60_000;
/** A site that has answered nothing for so long is taken for one that does not, in milliseconds. */
const answerWithinMs = 2000;

export function failbackScript(stage: Stage): RunScript {
  return {
    steps: [
      { name: "survey", execute: (context) => survey(stage, context) },
      { name: "bring-up-to-date", execute: (context) => bringUpToDate(stage, context) },
      ...diskSteps(stage),
      { name: "verify", execute: (context) => verify(stage, context) },
      { name: "exchange", execute: (context) => exchange(stage, context) },
      { name: "route-back", execute: (context) => routeAll(stage, context) },
      { name: "probe", execute: (context) => probe(stage, context) },
      { name: "scale-down", execute: (context) => scaleDown(stage, context) },
    ],
    rollback: [
      ...undoDisks(stage),
      {
        name: "undo: reopen",
        execute: async () => {
          const record = await stage.record();
          if (record.phase !== "failing_back") {
            // The roles are exchanged already: what is left to do is the reserve's own follower's work.
            return { summary: "the environment has returned; only its reserve is not in order yet" };
          }
          const move = moveEnvironment(stage.store, stage.clock, record, {
            phase: "failed_over",
            epoch: record.epoch + 1,
          });
          const forget = forgetContents(stage.store, stage.settings.id);
          return { summary: "the copy goes on serving and takes commands again", effects: [move, forget] };
        },
      },
    ],
    patienceMs,
    conclude: concludeReturn,
  };
}

export async function survey(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { to } = moveInput(run.input);
  const found = await surveyCounterparts(stage, stage.site(to), run.epoch, signal);
  return {
    summary: `${found.looked} resources looked up at ${to}: ${describeSurvey(found)}`,
    result: { looked: found.looked, missing: found.missing.length, stopped: found.stopped.length },
  };
}

/**
 * The copy's changes come home in two passes: the first while it serves, the second, of what little was written meanwhile, while
 * its servers with kept disks are stopped.
 */
function diskSteps(stage: Stage): readonly Step[] {
  if (stage.disks === undefined) return [];
  const restore =
    (moment: string): Step["execute"] =>
    (context) =>
      restoreDisks(stage, context, {
        to: moveInput(context.run.input).to,
        moment: momentOf(context.results, moment),
      });
  return [
    { name: "check-capture", execute: (context) => checkCapture(stage, context) },
    {
      name: "choose-moment",
      execute: (context) =>
        chooseMoment(stage, context, { atMs: null, settled: false, fence: null, atAnyRate: false }),
    },
    { name: "restore-disks", execute: restore("choose-moment") },
    {
      name: "hold-writes",
      execute: (context) => holdWrites(stage, context, moveInput(context.run.input).from),
    },
    {
      name: "choose-last-moment",
      execute: (context) => {
        const { answered } = context.results.get("hold-writes") as { readonly answered: boolean };
        const { force: atAnyRate } = moveInput(context.run.input);
        const fence = context.run.epoch;
        return chooseMoment(stage, context, { atMs: null, settled: answered, fence, atAnyRate });
      },
    },
    { name: "restore-last-writes", execute: restore("choose-last-moment") },
    { name: "start-servers", execute: (context) => startKept(stage, context) },
  ];
}

/** While everything runs: a capture that does not work, or a disk that has not come over yet, costs nobody a stop. */
async function checkCapture(stage: Stage, context: StepContext): Promise<StepResult> {
  const { from, force } = moveInput(context.run.input);
  if (!(await answers(stage, from, context.signal))) {
    return { summary: `${from} does not answer: its disks are as they were last captured` };
  }
  const { behind } = await settleDisks(stage, context, { volumes: null, goOn: force });
  return { summary: behind.length === 0 ? "what the disks are given is captured" : "forced to go on" };
}

async function answers(stage: Stage, site: string, signal: AbortSignal): Promise<boolean> {
  const patience = deadlineAfter(stage.clock, answerWithinMs);
  try {
    await stage.site(site).cloud.identify(AbortSignal.any([signal, patience.signal]));
    return true;
  } catch (error) {
    signal.throwIfAborted();
    if (patience.signal.aborted) return false;
    if (!isOperational(error)) throw error;
    return error.code !== "cloud.unreachable" && error.code !== "cloud.timeout";
  } finally {
    patience.cancel();
  }
}

/** Undone only before the roles are exchanged: after it, the copy's servers are no more what users want. */
export function undoDisks(stage: Stage): readonly Step[] {
  if (stage.disks === undefined) return [];
  const undo = (name: string, execute: (context: StepContext) => Promise<StepResult>): Step => ({
    name,
    execute: async (context) => {
      const record = await stage.record();
      if (record.activeSite === moveInput(context.run.input).from) return execute(context);
      return { summary: "the environment has moved: nothing is undone" };
    },
  });
  return [
    undo("undo: stop servers", (context) =>
      stopCounterparts(stage, context, moveInput(context.run.input).to),
    ),
    undo("undo: start servers", (context) =>
      releaseWrites(stage, context, moveInput(context.run.input).from),
    ),
  ];
}

export async function startKept(stage: Stage, { run, signal, say }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const desired = [...state.resources()];
  const report = await convergeWhole(stage, { from, to, desired, epoch: run.epoch }, say, signal);
  return { summary: describeReport(report) };
}

async function bringUpToDate(stage: Stage, { run, signal, say }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const desired = withKeptServersStopped(stage, state);
  const report = await convergeWhole(stage, { from, to, desired, epoch: run.epoch }, say, signal);
  const { started, gone } = await startStranded(stage, stage.site(to), signal);
  if (started.length > 0) await say(`started where they had stayed behind: ${started.join(", ")}`);
  if (gone.length > 0) await say(`could not follow, and are gone from ${to} too: ${gone.join(", ")}`);
  return {
    summary: describeReport(report),
    result: { created: report.created, updated: report.updated, calls: report.calls, gone },
  };
}

/** Errors: `environment.incomplete` unless everything came about. */
export async function convergeWhole(
  stage: Stage,
  wanted: Pick<SiteConvergence, "from" | "to" | "desired" | "epoch">,
  say: StepContext["say"],
  signal: AbortSignal,
): Promise<ConvergenceReport> {
  const report = await convergeSite(
    stage,
    {
      ...wanted,
      scope: mainScope,
      sizing: "fit",
      nameSuffix: "",
      onProgress: progressSpeaker(stage, say),
    },
    signal,
  );
  await stage.recordGaps(report.gaps);
  if (report.failed + report.skipped === 0) return report;
  const [first] = report.failures;
  const why = first === undefined ? "" : `: ${first.message}`;
  throw new OperationalError(
    "environment.incomplete",
    `${report.failed + report.skipped} resources could not be brought up to date at ${wanted.to}${why}; ${wanted.from} goes on serving`,
  );
}

export async function verify(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { to } = moveInput(run.input);
  const checks = await verifyCounterparts(stage, { to, scope: mainScope }, signal);
  const bad = checks.filter(({ problem }) => problem !== null);
  if (bad.length > 0) {
    throw new OperationalError(
      "environment.incomplete",
      `${to} is not fit to serve yet: ${describeChecks(checks)}`,
      {
        retry: "later",
      },
    );
  }
  return { summary: describeChecks(checks), result: { servers: checks.length } };
}

export async function exchange(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const { store, clock, settings } = stage;
  await stage.settledState(signal);
  const record = await stage.record();
  if (record.activeSite === to) return { summary: `${to} is the active site already` };
  const exchanged = await exchangeStatements(store, clock, environmentId(settings.id));
  const move = moveEnvironment(store, clock, record, {
    phase: "protected",
    activeSite: to,
    standbySite: from,
  });
  return {
    summary: `${to} is the active site, with ${exchanged.resources} resources`,
    result: { resources: exchanged.resources },
    effects: [
      move,
      ...exchanged.statements,
      forgetContents(store, settings.id),
      clearGapsOfCode(store, environmentId(settings.id), "data.withheld"),
    ],
  };
}

/** The copy is not taken down before users are answered at home: until then, there is still something to look at. */
export async function probe(stage: Stage, { signal }: StepContext): Promise<StepResult> {
  const { applicationProbes: probes } = stage.settings;
  const failures = await probeApplication({ probes, clock: stage.clock, patienceMs: 30_000, signal });
  const summary = describeProbes(probes, failures);
  if (failures.length === 0) return { summary };
  throw new OperationalError("environment.incomplete", `what served before is kept: ${summary}`, {
    retry: "later",
  });
}

/** The way back down: what the takeover added beyond the reserve is removed. */
export async function scaleDown(stage: Stage, { run, signal, say }: StepContext): Promise<StepResult> {
  const record = await stage.record();
  const { settings } = stage;
  const state = await stage.settledState(signal);
  // What the fence stopped is to run again where it is part of the reserve.
  await surveyCounterparts(stage, stage.site(record.standbySite), run.epoch, signal);
  const of = { environment: environmentId(settings.id), scope: mainScope };
  const pairings = await loadPairings(stage.store, of);
  const report = await convergeSite(
    stage,
    {
      from: record.activeSite,
      to: record.standbySite,
      scope: mainScope,
      desired: reserveResources(state, settings.reserve, new Set(pairings.keys())),
      sizing: settings.reserve.smallerTypes ? "smallest" : "fit",
      nameSuffix: "",
      epoch: run.epoch,
      onProgress: progressSpeaker(stage, say),
    },
    signal,
  );
  return {
    summary: `${record.standbySite} is down to its reserve: ${describeReport(report)}`,
    result: { deleted: report.deleted, failed: report.failed + report.skipped },
    effects: [forgetKept(stage.store, settings.id)],
  };
}

export function concludeReturn(
  results: ReadonlyMap<string, Json>,
  ended: "done" | "rolled_back" | "failed",
): Conclusion {
  if (ended !== "done") {
    // From the exchange on it has returned: what failed after it is no way back.
    return { state: results.has("exchange") ? "incomplete" : ended, error: null, effects: [] };
  }
  const { failed } = results.get("scale-down") as { failed: number };
  if (failed === 0) return { state: "succeeded", error: null, effects: [] };
  return {
    state: "incomplete",
    error: `the environment has moved; ${failed} resources that it left behind could not be removed and are tried again in the background`,
    effects: [],
  };
}
