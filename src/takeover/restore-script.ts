/**
 * Restore: kept disks go back to a moment, in place, where the environment is served. Their servers are stopped for it. Either what
 * differs is written into them, or (live) they are replaced at once, and their content comes over while the servers run again.
 * Until the first disk is written to, everything can be as it was. From there on there is no way back: no machine starts with a disk
 * that is part old and part new; begun again, the run ends what it began.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import { serversOfVolumes } from "#model/recovered-volumes.ts";
import { forgetContents } from "#recovery/kept-contents.ts";
import { moveInput } from "#takeover/failover-script.ts";
import { chooseMoment, momentOf, settleDisks } from "#takeover/choose-moment.ts";
import { describeMoment, diskMover, setPower } from "#takeover/recover-disks.ts";
import type { RunScript, Step, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { StoredRun } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";

const patienceMs = 60_000;

export function restoreScript(stage: Stage, run: StoredRun): RunScript {
  const { live = false, asItIs = false, force } = moveInput(run.input);
  if (asItIs) return acceptScript(stage);
  // What is replaced is not there any more: it has to be in the vault, unless a person says that it need not.
  const keep = (name: string): readonly Step[] =>
    live && !force ? [{ name, execute: (context) => keepLastWrites(stage, context) }] : [];
  return {
    steps: [
      {
        name: "choose-moment",
        execute: (context) => {
          const { at, sequence } = moveInput(context.run.input);
          const wanted = { atMs: at ?? null, sequence, settled: false, fence: null, atAnyRate: false };
          return chooseMoment(stage, context, wanted);
        },
      },
      // While the servers run: what can't be done, and a capture that does not work, cost nobody a stop.
      { name: "check-disks", execute: (context) => checkDisks(stage, context) },
      ...keep("check-capture"),
      { name: "stop-servers", execute: (context) => stopServers(stage, context) },
      ...keep("keep-last-writes"),
      { name: "restore-disks", execute: (context) => (live ? replaceDisks : restoreDisks)(stage, context) },
      { name: "start-servers", execute: (context) => startServers(stage, context) },
    ],
    rollback: [{ name: "undo: start servers", execute: (context) => startUntouched(stage, context) }],
    patienceMs,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : ended,
      error: null,
      effects: [forgetContents(stage.store, stage.settings.id)],
    }),
  };
}

/** The way out where the vault is gone for good: nothing is written, and what a restore that broke off has left is believed. */
function acceptScript(stage: Stage): RunScript {
  return {
    steps: [
      { name: "check-disks", execute: (context) => checkHalf(stage, context) },
      { name: "accept-disks", execute: (context) => acceptDisks(stage, context) },
      { name: "start-servers", execute: (context) => startWanted(stage, context) },
    ],
    rollback: [],
    patienceMs,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : ended,
      error: null,
      effects: [],
    }),
  };
}

async function checkHalf(stage: Stage, { run }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  for (const volume of volumesOf(run)) {
    if ((await diskMover(stage).given(from, volume)) === "half") continue;
    throw new OperationalError(
      "state.conflict",
      `no restore of volume ${volume} has broken off: there is nothing to be taken as it is`,
    );
  }
  return { summary: `a restore of ${volumesOf(run).join(", ")} has broken off` };
}

async function acceptDisks(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  for (const volume of volumesOf(run)) await diskMover(stage).accept(from, volume, signal);
  return { summary: `${volumesOf(run).join(", ")} is taken as it is, part old and part new` };
}

function volumesOf(run: StoredRun): readonly ResourceId[] {
  const { volumes } = moveInput(run.input);
  invariant(volumes !== undefined && volumes.length > 0, "a restore names its volumes");
  return volumes;
}

async function checkDisks(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const moment = momentOf(results, "choose-moment");
  invariant(moment !== null, "only a kept disk is restored");
  for (const volume of volumesOf(run)) {
    await diskMover(stage).check(from, { sourceId: volume, targetId: volume }, moment, signal);
  }
  return { summary: `what ${volumesOf(run).join(", ")} held then can be read` };
}

async function keepLastWrites(stage: Stage, context: StepContext): Promise<StepResult> {
  await settleDisks(stage, context, { volumes: new Set(volumesOf(context.run)), goOn: false });
  return { summary: "what was written until now is in the vault, and can be gone back to" };
}

/** Those that were to run are remembered: the environment's record may change until they are started again. */
async function stopServers(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const users = serversOfVolumes(state, new Set(volumesOf(run)));
  const running = [...state.resources()].flatMap((one) =>
    one.kind === "server" && users.has(one.id) && one.spec.power === "running" ? [one.id] : [],
  );
  await setPower(stage, from, [...users], "stopped", signal);
  return { summary: `${users.size} servers that use the disks are stopped at ${from}`, result: { running } };
}

async function restoreDisks(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const moment = momentOf(results, "choose-moment");
  invariant(stage.disks !== undefined && moment !== null, "only a kept disk is restored");
  let comparedBytes = 0;
  let writtenBytes = 0;
  for (const volume of volumesOf(run)) {
    const done = await stage.disks.restore(from, { sourceId: volume, targetId: volume }, moment, signal);
    comparedBytes += done.comparedBytes;
    writtenBytes += done.writtenBytes;
  }
  return {
    summary: `${volumesOf(run).join(", ")} is as at ${describeMoment(moment)}: ${writtenBytes} of ${comparedBytes} bytes differed`,
    result: { comparedBytes, writtenBytes },
  };
}

async function replaceDisks(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const moment = momentOf(results, "choose-moment");
  const { disks } = stage;
  invariant(disks !== undefined && moment !== null, "only a kept disk is restored");
  const volumes = volumesOf(run);
  for (const volume of volumes) {
    await disks.replace(from, { sourceId: volume, targetId: volume }, { moment, token: run.id }, signal);
  }
  return {
    summary: `${volumes.join(", ")} is live as at ${describeMoment(moment)}, its content comes over behind`,
    result: { live: volumes },
  };
}

/** Errors: `state.conflict` once a disk has been written to: from there, the way out is a restore that comes to its end. */
async function startUntouched(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const moment = results.has("choose-moment") ? momentOf(results, "choose-moment") : null;
  for (const volume of volumesOf(run)) {
    const given = await diskMover(stage).given(from, volume);
    if (given !== "half" && (given === null || given.sequence !== moment?.sequence)) continue;
    throw new OperationalError(
      "state.conflict",
      `volume ${volume} was written to already, so that its servers stay stopped: begin the restore again, or one to another moment`,
    );
  }
  const { summary } = await startWanted(stage, { run, signal });
  return { summary: `no disk was changed; ${summary}` };
}

/** Those that the environment's record says are to run. */
async function startWanted(
  stage: Stage,
  { run, signal }: Pick<StepContext, "run" | "signal">,
): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const users = serversOfVolumes(state, new Set(volumesOf(run)));
  const wanted = [...state.resources()].flatMap((one) =>
    one.kind === "server" && users.has(one.id) && one.spec.power === "running" ? [one.id] : [],
  );
  const changed = await setPower(stage, from, wanted, "running", signal);
  return { summary: `${changed} servers started again at ${from}` };
}

async function startServers(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const { running } = results.get("stop-servers") as unknown as { readonly running: readonly ResourceId[] };
  await setPower(stage, from, running, "running", signal);
  return { summary: `${running.length} servers started again at ${from}` };
}
