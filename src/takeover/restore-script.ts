/**
 * Restore: one kept disk is written back to a moment, in place, where the environment is served. Its servers are stopped for it. There is
 * no way back half-way: a disk that is part old and part new starts nothing; begun again, the run ends what it began.
 */
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import { serversOfVolumes } from "#model/recovered-volumes.ts";
import { moveInput } from "#takeover/failover-script.ts";
import { chooseMoment, describeMoment, momentOf, setPower } from "#takeover/recover-disks.ts";
import type { RunScript, StepContext, StepResult } from "#takeover/run-engine.ts";
import type { StoredRun } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";

const patienceMs = 60_000;

export function restoreScript(stage: Stage): RunScript {
  return {
    steps: [
      {
        name: "choose-moment",
        execute: (context) => {
          const { at, sequence } = moveInput(context.run.input);
          return chooseMoment(stage, context, { atMs: at ?? null, sequence, settled: false, fence: null });
        },
      },
      { name: "stop-servers", execute: (context) => stopServers(stage, context) },
      { name: "restore-disk", execute: (context) => restoreDisk(stage, context) },
      { name: "start-servers", execute: (context) => startServers(stage, context) },
    ],
    patienceMs,
    conclude: (_results, ended) => ({
      state: ended === "done" ? "succeeded" : "failed",
      error: null,
      effects: [],
    }),
  };
}

function volumeOf(run: StoredRun): ResourceId {
  const { volume } = moveInput(run.input);
  invariant(volume !== undefined, "a restore names its volume");
  return volume;
}

/** Those that were to run are remembered: the environment's record may change until they are started again. */
async function stopServers(stage: Stage, { run, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const state = await stage.settledState(signal);
  const users = serversOfVolumes(state, new Set([volumeOf(run)]));
  const running = [...state.resources()].flatMap((one) =>
    one.kind === "server" && users.has(one.id) && one.spec.power === "running" ? [one.id] : [],
  );
  await setPower(stage, from, [...users], "stopped", signal);
  return { summary: `${users.size} servers that use the disk are stopped at ${from}`, result: { running } };
}

async function restoreDisk(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const volume = volumeOf(run);
  const moment = momentOf(results, "choose-moment");
  invariant(stage.disks !== undefined && moment !== null, "only a kept disk is restored");
  const disk = { sourceId: volume, targetId: volume };
  const { comparedBytes, writtenBytes } = await stage.disks.restore(from, disk, moment, signal);
  return {
    summary: `${volume} is as at ${describeMoment(moment)}: ${writtenBytes} of ${comparedBytes} bytes differed`,
    result: { comparedBytes, writtenBytes },
  };
}

async function startServers(stage: Stage, { run, results, signal }: StepContext): Promise<StepResult> {
  const { from } = moveInput(run.input);
  const { running } = results.get("stop-servers") as unknown as { readonly running: readonly ResourceId[] };
  await setPower(stage, from, running, "running", signal);
  return { summary: `${running.length} servers started again at ${from}` };
}
