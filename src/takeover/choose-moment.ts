/** Which moment of the kept disks a run takes along: one for all of them, chosen once. */
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { DiskMoment, DiskMover, Settled } from "#recovery/disk-mover.ts";
import { describeMoment, diskMover, keptVolumes } from "#takeover/recover-disks.ts";
import type { StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

/** Result of the step, for those that come after it. */
interface ChosenMoment {
  /** Null: no disk is kept, or there is none to be had. */
  readonly moment: DiskMoment | null;
  /** Why there is none, although disks are kept. */
  readonly none?: string;
}

export interface WantedMoment {
  readonly atMs: number | null;
  /** With `atMs`, the very moment: a recovery point's. */
  readonly sequence?: number | undefined;
  /** The guests are stopped: their last write is waited for. */
  readonly settled: boolean;
  /** Null: the source goes on. */
  readonly fence: number | null;
  /** The site is lost or left all the same: better what was captured, or an environment without the disks, than none. */
  readonly atAnyRate: boolean;
}

export function momentOf(results: ReadonlyMap<string, Json>, step: string): DiskMoment | null {
  return (results.get(step) as unknown as ChosenMoment).moment;
}

/** Why kept disks have no moment; null where they have one, or none is kept. */
export function noMomentOf(results: ReadonlyMap<string, Json>, step: string): string | null {
  return (results.get(step) as unknown as ChosenMoment).none ?? null;
}

/** A repeated step may choose anew; once it is done, the run keeps to what it chose. */
export async function chooseMoment(
  stage: Stage,
  context: Pick<StepContext, "signal" | "say">,
  wanted: WantedMoment,
): Promise<StepResult> {
  const { signal } = context;
  const { atMs, sequence, settled, fence, atAnyRate } = wanted;
  const state = await stage.settledState(signal);
  if (keptVolumes(stage, state).size === 0) {
    return { summary: "no disk is kept in the vault", result: { moment: null } };
  }
  const disks = diskMover(stage);
  // A moment that was named needs no last write.
  if (settled && atMs === null) await settleDisks(stage, context, { volumes: null, goOn: atAnyRate });
  if (fence !== null) await disks.fence(fence, signal);
  const found =
    sequence !== undefined && atMs !== null
      ? { sequence, at: atMs }
      : await momentOrNone(disks, atMs, atAnyRate, signal);
  if ("none" in found) return { summary: `no disk comes along: ${found.none}`, result: found };
  const moment = { sequence: found.sequence, at: found.at };
  return { summary: `the disks as they were at ${describeMoment(moment)}`, result: { moment } };
}

/** Nothing was ever captured, or it is kept no more: that takes the disks away, not what does without them. */
async function momentOrNone(
  disks: DiskMover,
  atMs: number | null,
  atAnyRate: boolean,
  signal: AbortSignal,
): Promise<DiskMoment | { readonly moment: null; readonly none: string }> {
  try {
    return await disks.moment(atMs, signal);
  } catch (error) {
    if (atMs !== null || !atAnyRate || !isOperational(error, "not_found")) throw error;
    return { moment: null, none: error.message };
  }
}

/**
 * Waits until the vault has what was written to the disks; `goOn`: what it does not get is named, and gone without. Errors:
 * `environment.incomplete`.
 */
export async function settleDisks(
  stage: Stage,
  { signal, say }: Pick<StepContext, "signal" | "say">,
  wanted: { readonly volumes: ReadonlySet<ResourceId> | null; readonly goOn: boolean },
): Promise<Settled> {
  const settled = await diskMover(stage).settle(wanted.volumes, signal);
  const named = settled.behind.map(({ volumeId, problem }) => `volume ${volumeId}: ${problem}`);
  if (named.length === 0) return settled;
  if (!wanted.goOn) {
    throw new OperationalError(
      "environment.incomplete",
      `not everything that was written is in the vault: ${named.join("; ")}; see "understudy point list ${stage.settings.id}"`,
    );
  }
  for (const one of named) await say(`what was written last may be missing: ${one}`);
  return settled;
}
