/**
 * Failover: fence, fold what was acknowledged, route users to the reserve, drain the rest, verify, and make the copy the
 * environment. It needs nothing of the site that is lost.
 */
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import { environmentId, type ResourceId } from "#kernel/ids.ts";
import { clearGapsOfCode } from "#environment/gaps.ts";
import { forgetContents } from "#recovery/kept-contents.ts";
import type { ConvergenceProgress } from "#standby/converge.ts";
import { exchangeStatements, mainScope } from "#takeover/commit-exchange.ts";
import { convergeSite, describeReport, runningServers } from "#takeover/converge-site.ts";
import { moveEnvironment } from "#takeover/environment-record.ts";
import { fenceSite, type FenceResult } from "#takeover/fence.ts";
import { describeProbes, probeApplication } from "#takeover/probe-application.ts";
import { chooseMoment, momentOf, noMomentOf } from "#takeover/choose-moment.ts";
import { withoutKeptServers } from "#takeover/recover-disks.ts";
import { describeWithheld, keptPairings, seedDisks, withoutWithheld } from "#takeover/seed-disks.ts";
import { readServers } from "#takeover/route-targets.ts";
import type { Conclusion, RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";
import type { StoredRun } from "#takeover/run-ledger.ts";
import { verifyCounterparts } from "#takeover/verify-counterparts.ts";
import { describeChecks, type ServerCheck } from "#takeover/verify-servers.ts";
import { describeSurvey, surveyCounterparts } from "#takeover/survey-counterparts.ts";
import { witnessesTrigger } from "#takeover/watch-environment.ts";

/** Fixed when the run begins. */
export interface MoveInput {
  readonly from: string;
  readonly to: string;
  readonly force: boolean;
  /** Set when the roles are to be exchanged for good (swap). */
  readonly forGood: boolean;
  /** The disks as they were then, in milliseconds since the epoch; null or absent: the last moment. */
  readonly at?: number | null;
  /** With `at`, the very moment: a recovery point's. */
  readonly sequence?: number;
  /** A restore only: the volumes, by their ids where the environment is served. */
  readonly volumes?: readonly ResourceId[];
  /** A restore only: the disks are replaced at once, and their content comes over while their servers run. */
  readonly live?: boolean;
  /** Of a restore: the disks are taken as they are. */
  readonly asItIs?: boolean;
  /** A drill only: these servers and what they need; absent: everything. */
  readonly servers?: readonly ResourceId[];
  /** A drill only: how long it stands after it was verified. */
  readonly holdMs?: number;
}

/** A site that has answered nothing for this long is not waited for. */
const answerWithinMs = 2000;
/** Nothing is given up while the standby may still come round. */
const patienceMs = 30 * 60_000;

export function moveInput(input: Json): MoveInput {
  return input as unknown as MoveInput;
}

export function failoverScript(stage: Stage): RunScript {
  return {
    steps: [
      { name: "fence", execute: (context) => fence(stage, context) },
      { name: "settle", execute: (context) => settle(stage, context) },
      { name: "route-to-reserve", execute: (context) => routeToReserve(stage, context) },
      ...diskSteps(stage),
      { name: "drain", execute: (context) => drain(stage, context) },
      { name: "verify", execute: (context) => verify(stage, context) },
      { name: "route-all", execute: (context) => routeWhatStands(stage, context) },
      { name: "probe", execute: (context) => probe(stage, context) },
      { name: "commit", execute: (context) => commit(stage, context) },
    ],
    rollback: rollbackSteps(stage),
    patienceMs,
    conclude: (results, ended) => conclude(stage, results, ended),
  };
}

async function fence(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from, force } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const result = await fenceSite({
    cloud: stage.site(from).cloud,
    clock: stage.clock,
    servers: runningServers(state).map(({ id }) => id),
    mode: stage.settings.fence,
    force,
    answerWithinMs,
    signal,
  });
  return { summary: result.summary, result: result as unknown as Json };
}

/** A command that nobody was told of and that the cloud can't be asked about does not hold up the takeover: it is named. */
async function settle(stage: Stage, { results, signal, say }: StepContext): Promise<StepResult> {
  const fenced = results.get("fence") as unknown as FenceResult;
  if (fenced.answered) await waitForOutcomes(stage, signal);
  const open = await stage.openCommands();
  for (const entry of open) {
    await stage.abandon(entry);
    await say(
      `${entry.intent.operation} by ${entry.intent.principal} was never acknowledged and is not carried over`,
    );
  }
  const state = await stage.settledState(signal);
  return {
    summary: `${state.size} resources as last acknowledged${open.length > 0 ? `, ${open.length} unacknowledged commands named` : ""}`,
    result: { resources: state.size, abandoned: open.length },
  };
}

/** The gateway asks the cloud by itself; while the cloud answers, that takes a moment. */
async function waitForOutcomes(stage: Stage, signal: AbortSignal): Promise<void> {
  const deadline = stage.clock.monotonicMs() + 15_000;
  while ((await stage.openCommands()).length > 0 && stage.clock.monotonicMs() < deadline) {
    await stage.clock.sleep(100, signal);
  }
}

async function routeToReserve(stage: Stage, { signal }: StepContext): Promise<StepResult> {
  const { site, routes } = await stage.director.direct(signal);
  if (routes.length === 0) return { summary: "there are no routes to move" };
  const moved = routes.filter((route) => route.error === null);
  const rest = routes.filter((route) => route.error !== null);
  const waiting = rest.map((route) => `${route.route} waits for its first server`).join(", ");
  const said = moved.map((route) => `${route.route} -> ${route.backends} at ${site}`).join(", ");
  return {
    summary: [said, waiting].filter((text) => text !== "").join("; "),
    result: { moved: moved.length },
  };
}

/** Users are at the reserve already when the disks' turn comes. */
function diskSteps(stage: Stage): readonly Step[] {
  if (stage.disks === undefined) return [];
  return [
    {
      name: "choose-moment",
      execute: holdingUpNobodyElse(stage, (context) => {
        const { answered } = context.results.get("fence") as unknown as FenceResult;
        const { at, sequence } = moveInput(context.run.input);
        const settled = answered && stage.settings.fence === "stop_servers";
        const { epoch: fence } = context.run;
        const wanted = { atMs: at ?? null, sequence, settled, fence, atAnyRate: true };
        return chooseMoment(stage, context, wanted);
      }),
    },
    {
      name: "seed-disks",
      execute: holdingUpNobodyElse(stage, (context) => {
        const { from, to } = moveInput(context.run.input);
        const { epoch } = context.run;
        return seedDisks(stage, context, {
          to,
          scope: mainScope,
          moment: momentOf(context.results, "choose-moment"),
          none: noMomentOf(context.results, "choose-moment"),
          converge: { from, to, scope: mainScope, sizing: "fit", nameSuffix: "", epoch },
        });
      }),
    },
  ];
}

/**
 * A vault or a host that does not answer is waited for; whoever needs no disk of it is not. Its users come when it answers.
 */
function holdingUpNobodyElse(stage: Stage, execute: Step["execute"]): Step["execute"] {
  return async (context) => {
    try {
      return await execute(context);
    } catch (error) {
      context.signal.throwIfAborted();
      if (!isOperational(error) || error.retry === "never") throw error;
      await drainOthers(stage, context);
      throw error;
    }
  };
}

/** What the site refuses is told by the drain that comes when the disks are there. */
async function drainOthers(stage: Stage, { run, signal, say }: StepContext): Promise<void> {
  const { from, to } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const report = await convergeSite(
    stage,
    {
      from,
      to,
      scope: mainScope,
      desired: withoutKeptServers(stage, state),
      keep: await keptPairings(stage, state),
      sizing: "fit",
      nameSuffix: "",
      epoch: run.epoch,
      onProgress: progressSpeaker(stage, say),
    },
    signal,
  );
  stage.director.nudge();
  if (report.created > 0) await say(`without the disks: ${describeReport(report)}`);
}

async function drain(stage: Stage, { run, results, signal, say }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const state = await stage.settledState(signal);
  // Memory is no evidence: what the reserve has lost since it was made is made anew.
  const survey = await surveyCounterparts(stage, stage.site(to), run.epoch, signal);
  if (survey.missing.length + survey.stopped.length > 0) await say(`the reserve: ${describeSurvey(survey)}`);
  const report = await convergeSite(
    stage,
    {
      from,
      to,
      scope: mainScope,
      desired: withoutWithheld(state.resources(), results, state),
      sizing: "fit",
      nameSuffix: "",
      epoch: run.epoch,
      onProgress: progressSpeaker(stage, say),
    },
    signal,
  );
  await stage.recordGaps(report.gaps);
  return {
    summary: describeReport(report),
    result: {
      created: report.created,
      failed: report.failed + report.skipped,
      calls: report.calls,
      ms: report.elapsedMs,
    },
  };
}

/** Tells at most once a second, and points new servers at their users as they come. */
export function progressSpeaker(
  stage: Stage,
  say: StepContext["say"],
): (progress: ConvergenceProgress) => void {
  let last = stage.clock.monotonicMs();
  return ({ total, done, failed, skipped }) => {
    const now = stage.clock.monotonicMs();
    if (now - last < 1000) return;
    last = now;
    stage.director.nudge();
    const trouble = failed + skipped > 0 ? `, ${failed} failed, ${skipped} skipped` : "";
    say(`${done} of ${total} done${trouble}`).catch((error: unknown) => {
      stage.log.error({ err: error }, "a line of the timeline could not be recorded");
    });
  };
}

async function verify(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const checks = await verifyCounterparts(stage, { to, scope: mainScope }, signal);
  const bad = checks.filter(({ problem }) => problem !== null);
  refuseIfBetterBefore(stage, run, results, checks);
  const { commands, drained } = await stage.countDrained(from, to);
  return {
    summary: `${describeChecks(checks)}; ${drained} of ${commands} commands are in force at ${to}`,
    result: {
      servers: checks.length,
      bad: bad.length,
      named: describeChecks(checks),
      commandsRecorded: commands,
      commandsDrained: drained,
    },
  };
}

/**
 * A person who moves a site that works does not want a lesser one for it. From a site that is lost, or that the witnesses
 * left, half an environment is better than none.
 */
function refuseIfBetterBefore(
  stage: Stage,
  run: StoredRun,
  results: ReadonlyMap<string, Json>,
  checks: readonly ServerCheck[],
): void {
  const { from, to, force } = moveInput(run.input);
  const fenced = results.get("fence") as unknown as FenceResult;
  if (!fenced.answered || force || run.trigger === witnessesTrigger) return;
  if (checks.every(({ problem }) => problem === null)) return;
  throw new OperationalError(
    "environment.incomplete",
    `${from} works and ${to} would not be whole: ${describeChecks(checks)}; see "understudy gaps ${stage.settings.id}", or go on with --force and a reason`,
  );
}

export async function routeAll(stage: Stage, { signal }: Pick<StepContext, "signal">): Promise<StepResult> {
  const { site, routes } = await stage.director.direct(signal);
  // A route that no server bears the tags of has nobody to lead anywhere.
  const broken = routes.filter((route) => route.error !== null && route.selected > 0);
  if (broken.length > 0) {
    const named = broken.map((route) => `${route.route}: ${route.error ?? ""}`).join("; ");
    throw new OperationalError("traffic.unreachable", `not every route leads to ${site} yet: ${named}`);
  }
  const led = routes.filter((route) => route.selected > 0);
  const said = led.map((route) => `${route.route} -> ${route.backends} at ${site}`).join(", ");
  return { summary: said === "" ? "there are no routes to move" : said };
}

/** A route that no server could be made for is named as missing; it does not keep the others from their users. */
async function routeWhatStands(stage: Stage, context: StepContext): Promise<StepResult> {
  const { bad } = context.results.get("verify") as { bad: number };
  if (bad === 0) return routeAll(stage, context);
  const { site, routes } = await stage.director.direct(context.signal);
  const said = routes
    .map((route) => `${route.route} -> ${route.error ?? `${route.backends} at ${site}`}`)
    .join(", ");
  return { summary: said === "" ? "there are no routes to move" : said };
}

/** A copy whose application does not answer yet serves all the same: the site it came from is gone or fenced. */
async function probe(stage: Stage, { signal }: StepContext): Promise<StepResult> {
  const { applicationProbes: probes } = stage.settings;
  const failures = await probeApplication({ probes, clock: stage.clock, patienceMs: 30_000, signal });
  const summary = describeProbes(probes, failures);
  return { summary, result: { failing: failures.length, named: summary } };
}

async function commit(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from, to, forGood } = moveInput(run.input);
  const { store, clock, settings } = stage;
  await stage.settledState(signal);
  const record = await stage.record();
  if (record.activeSite === to) return { summary: `${to} is the active site already` };
  const exchange = await exchangeStatements(store, clock, environmentId(settings.id));
  const move = moveEnvironment(store, clock, record, {
    phase: forGood ? "protected" : "failed_over",
    activeSite: to,
    standbySite: from,
  });
  return {
    summary: `${to} is the active site of ${exchange.resources} resources${exchange.stranded.length > 0 ? `; ${exchange.stranded.length} could not follow` : ""}`,
    result: { resources: exchange.resources, stranded: exchange.stranded.length },
    effects: [move, ...exchange.statements, forgetContents(store, settings.id)],
  };
}

function conclude(
  stage: Stage,
  results: ReadonlyMap<string, Json>,
  ended: "done" | "rolled_back" | "failed",
): Conclusion {
  if (ended !== "done") {
    return { state: ended, error: null, effects: [] };
  }
  const drained = results.get("drain") as { failed: number };
  const verified = results.get("verify") as { bad: number; named: string };
  const probed = results.get("probe") as { failing: number; named: string };
  const withheld = describeWithheld(results);
  if (drained.failed + verified.bad + probed.failing === 0 && withheld === null) {
    return { state: "succeeded", error: null, effects: [] };
  }
  const named = [verified.named, ...(probed.failing === 0 ? [] : [probed.named]), withheld ?? []]
    .flat()
    .join("; ");
  const error = `the environment serves, but is not whole: ${named}; see "understudy gaps ${stage.settings.id}"`;
  return { state: "incomplete", error, effects: [] };
}

/**
 * Back to where it was. Only before the roles are exchanged, and only a source that answers can take its users back; a
 * takeover from a dead source is never rolled back but repeated.
 */
function rollbackSteps(stage: Stage): readonly Step[] {
  return [
    { name: "undo: start servers", execute: (context) => startAgain(stage, context) },
    {
      name: "undo: reopen",
      execute: async ({ run }) => {
        const record = await stage.record();
        if (record.activeSite !== moveInput(run.input).from || record.phase !== "failing_over") {
          return { summary: `the environment is ${record.phase} at ${record.activeSite}, nothing is undone` };
        }
        const move = moveEnvironment(stage.store, stage.clock, record, {
          phase: "protected",
          epoch: record.epoch + 1,
        });
        const { store, settings } = stage;
        const forget = forgetContents(store, settings.id);
        const clear = clearGapsOfCode(store, environmentId(settings.id), "data.withheld");
        return { summary: "commands are taken again", effects: [move, forget, clear] };
      },
    },
    { name: "undo: route back", execute: (context) => routeAll(stage, context) },
  ];
}

/** All that should run: a fence that broke off halfway has left no list of what it stopped. */
async function startAgain(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const { cloud, limiter } = stage.site(from);
  await cloud.identify(signal);
  const wanted = runningServers(await stage.settledState(signal)).map(({ id }) => id);
  const standing = await readServers(cloud, wanted, signal);
  const stopped = wanted.filter((id) => {
    const status = standing.get(id)?.status;
    return status === "stopped" || status === "pending";
  });
  for (const id of stopped) {
    const start = (): Promise<void> => cloud.update("server", id, { power: "running" }, signal);
    await limiter.run(start, { priority: 1, signal });
  }
  return { summary: `${stopped.length} servers started again at ${from}` };
}
