/**
 * Migrate: a planned move for good, from a site that works. The other site is made ready while this one serves; then the servers with
 * kept disks are stopped, what they wrote last is waited for, and they start there, on disks that are live at once while their
 * content comes over. Until the roles are exchanged, everything can go on where it was.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { forgetContents } from "#recovery/kept-contents.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { describeReport } from "#takeover/converge-site.ts";
import { moveEnvironment } from "#takeover/environment-record.ts";
import {
  concludeReturn,
  convergeWhole,
  exchange,
  probe,
  scaleDown,
  startKept,
  survey,
  undoDisks,
  verify,
} from "#takeover/failback-script.ts";
import { moveInput, routeAll } from "#takeover/failover-script.ts";
import { chooseMoment, momentOf, noMomentOf, settleDisks } from "#takeover/choose-moment.ts";
import { holdWrites, keptVolumes, withoutKeptServers } from "#takeover/recover-disks.ts";
import { seedDisks } from "#takeover/seed-disks.ts";
import type { RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

/** What was left serves meanwhile, but for the servers with kept disks: what does not come about is rolled back, not waited for. */
const patienceMs = 2 * 60_000;

export function migrateScript(stage: Stage): RunScript {
  return {
    steps: [
      { name: "survey", execute: (context) => surveyAll(stage, context) },
      { name: "make-ready", execute: (context) => makeReady(stage, context) },
      ...diskSteps(stage),
      { name: "start-servers", execute: (context) => startKept(stage, context) },
      { name: "verify", execute: (context) => verify(stage, context) },
      { name: "exchange", execute: (context) => exchange(stage, context) },
      { name: "route-all", execute: (context) => routeAll(stage, context) },
      { name: "probe", execute: (context) => probe(stage, context) },
      { name: "scale-down", execute: (context) => scaleDown(stage, context) },
    ],
    rollback: [...undoDisks(stage), { name: "undo: reopen", execute: () => reopen(stage) }],
    patienceMs,
    conclude: concludeReturn,
  };
}

/** The last look at the capture comes while everything still runs: one that does not work costs nobody a stop. */
function diskSteps(stage: Stage): readonly Step[] {
  if (stage.disks === undefined) return [];
  return [
    {
      name: "check-capture",
      execute: async (context) => {
        await settleDisks(stage, context, { volumes: null, goOn: moveInput(context.run.input).force });
        return { summary: "what the disks are given is captured" };
      },
    },
    { name: "hold-writes", execute: (context) => holdAll(stage, context) },
    {
      name: "choose-moment",
      execute: (context) =>
        chooseMoment(stage, context, {
          atMs: null,
          settled: true,
          fence: context.run.epoch,
          atAnyRate: moveInput(context.run.input).force,
        }),
    },
    { name: "seed-disks", execute: (context) => seedAll(stage, context) },
  ];
}

async function surveyAll(stage: Stage, context: StepContext): Promise<StepResult> {
  const { from, to, force } = moveInput(context.run.input);
  const unkept = await unkeptVolumes(stage, context.signal);
  if (unkept.length > 0 && !force) {
    throw new OperationalError(
      "environment.incomplete",
      `${from} works, and the content of ${unkept.join(", ")} is not kept: the copies at ${to} would be empty. ` +
        "Add them to `protect` in understudy.yaml, or go on with --force and a reason",
    );
  }
  return survey(stage, context);
}

/** Volumes that servers use and that the vault has nothing of. */
async function unkeptVolumes(stage: Stage, signal: AbortSignal): Promise<readonly ResourceId[]> {
  const state = await stage.settledState(signal);
  const kept = keptVolumes(stage, state);
  const used = [...state.resources()].flatMap((one) =>
    one.kind === "volumeAttachment" && !kept.has(one.spec.volumeId) ? [one.spec.volumeId] : [],
  );
  return [...new Set(used)];
}

async function makeReady(stage: Stage, { run, signal, say }: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(run.input);
  const desired = withoutKeptServers(stage, await stage.settledState(signal));
  const report = await convergeWhole(stage, { from, to, desired, epoch: run.epoch }, say, signal);
  return { summary: describeReport(report), result: { created: report.created, calls: report.calls } };
}

/** Errors: `environment.incomplete` for a site that does not answer: from that one, a failover leads away. */
async function holdAll(stage: Stage, context: StepContext): Promise<StepResult> {
  const { from } = moveInput(context.run.input);
  const held = await holdWrites(stage, context, from);
  const { answered } = held.result as { readonly answered: boolean };
  if (answered) return held;
  throw new OperationalError("environment.incomplete", `${held.summary}; begin a failover instead`);
}

/** Errors: `environment.incomplete` unless every disk has its content: where they are now, they have it. */
async function seedAll(stage: Stage, context: StepContext): Promise<StepResult> {
  const { from, to } = moveInput(context.run.input);
  const { epoch } = context.run;
  const seeded = await seedDisks(stage, context, {
    to,
    scope: mainScope,
    moment: momentOf(context.results, "choose-moment"),
    none: noMomentOf(context.results, "choose-moment"),
    converge: { from, to, scope: mainScope, sizing: "fit", nameSuffix: "", epoch },
  });
  const { withheld } = seeded.result as { readonly withheld: readonly string[] };
  if (withheld.length === 0) return seeded;
  throw new OperationalError(
    "environment.incomplete",
    `${withheld.join(", ")} can't have its content at ${to}: ${from} goes on serving; the run's timeline says why`,
  );
}

async function reopen(stage: Stage): Promise<StepResult> {
  const record = await stage.record();
  if (record.phase !== "migrating") {
    return { summary: "the environment has moved; only what it left is not in order yet" };
  }
  const move = moveEnvironment(stage.store, stage.clock, record, {
    phase: "protected",
    epoch: record.epoch + 1,
  });
  const forget = forgetContents(stage.store, stage.settings.id);
  return {
    summary: `${record.activeSite} goes on serving and takes commands again`,
    effects: [move, forget],
  };
}
