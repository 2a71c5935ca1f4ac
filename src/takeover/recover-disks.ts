/**
 * What a run does with disks whose content is kept in the vault, and with the servers that use them, beside giving them their content
 * (seed-disks.ts).
 */
import { environmentId, type ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import { recoveredVolumes, serversOfVolumes } from "#model/recovered-volumes.ts";
import type { Resource } from "#model/resource.ts";
import { loadPairings } from "#standby/pairings.ts";
import type { DiskMoment, DiskMover, MovedDisk } from "#recovery/disk-mover.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { readServers } from "#takeover/route-targets.ts";
import type { StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

export function describeMoment(moment: DiskMoment): string {
  return `${new Date(moment.at).toISOString()} (write ${moment.sequence})`;
}

export function diskMover(stage: Stage): DiskMover {
  invariant(stage.disks !== undefined, "only an environment with kept disks has steps for them");
  return stage.disks;
}

const stopAttempts = 5;
const stopPauseMs = 200;

/** Ids on the serving side. */
export function keptVolumes(stage: Stage, state: EnvironmentState): ReadonlySet<ResourceId> {
  if (stage.disks === undefined) return new Set();
  return new Set(recoveredVolumes(state, stage.settings.reserve.recovered ?? null).map(({ id }) => id));
}

/** Servers that use them, ids on the serving side. */
export function keptServers(stage: Stage, state: EnvironmentState): ReadonlySet<ResourceId> {
  return serversOfVolumes(state, keptVolumes(stage, state));
}

/** What can stand before the kept disks have their content. */
export function withoutKeptServers(stage: Stage, state: EnvironmentState): readonly Resource[] {
  return withoutUsers([...state.resources()], keptVolumes(stage, state), state);
}

/** Servers that use kept disks, and their links to them, come later. */
export function withoutUsers(
  resources: readonly Resource[],
  volumes: ReadonlySet<ResourceId>,
  state: EnvironmentState,
): readonly Resource[] {
  const users = serversOfVolumes(state, volumes);
  return resources.filter((one) => {
    if (one.kind === "server") return !users.has(one.id);
    if (one.kind === "volumeAttachment" || one.kind === "addressAssociation")
      return !users.has(one.spec.serverId);
    return true;
  });
}

/** Kept servers do not run where their disks are about to be written from outside. */
export function withKeptServersStopped(stage: Stage, state: EnvironmentState): readonly Resource[] {
  const users = keptServers(stage, state);
  return [...state.resources()].map((one) =>
    one.kind === "server" && users.has(one.id) ? { ...one, spec: { ...one.spec, power: "stopped" } } : one,
  );
}

/** Writes into the disks at home what differs from the moment. */
export async function restoreDisks(
  stage: Stage,
  { signal }: StepContext,
  { to, moment }: { readonly to: string; readonly moment: DiskMoment | null },
): Promise<StepResult> {
  const state = await stage.settledState(signal);
  const kept = keptVolumes(stage, state);
  if (moment === null || kept.size === 0)
    return { summary: "no disk is kept in the vault", result: { writtenBytes: 0 } };
  const of = { environment: environmentId(stage.settings.id), scope: mainScope };
  const pairings = await loadPairings(stage.store, of);
  let comparedBytes = 0;
  let writtenBytes = 0;
  for (const sourceId of kept) {
    const targetId = pairings.get(resourceKey("volume", sourceId))?.standbyId ?? null;
    invariant(targetId !== null, "the counterparts of kept disks were made before");
    const disk: MovedDisk = { sourceId, targetId };
    const done = await diskMover(stage).restore(to, disk, moment, signal);
    comparedBytes += done.comparedBytes;
    writtenBytes += done.writtenBytes;
  }
  return {
    summary: `${kept.size} disks at ${to} are as at ${describeMoment(moment)}: ${writtenBytes} of ${comparedBytes} bytes differed`,
    result: { comparedBytes, writtenBytes },
  };
}

/**
 * Stops the kept servers where the environment is served, so that nothing is written any more. A site that does not answer holds
 * nothing up: what it wrote last is then as much as was captured.
 */
export async function holdWrites(stage: Stage, { signal }: StepContext, from: string): Promise<StepResult> {
  const state = await stage.settledState(signal);
  try {
    const changed = await setPower(stage, from, [...keptServers(stage, state)], "stopped", signal);
    return { summary: `${changed} servers with kept disks stopped at ${from}`, result: { answered: true } };
  } catch (error) {
    if (!isOperational(error, "cloud.unreachable") && !isOperational(error, "cloud.timeout")) throw error;
    return {
      summary: `${from} does not answer (${publicMessage(error)}): its disks are as they were last captured`,
      result: { answered: false },
    };
  }
}

/** The undoing of it: all of them that should run. */
export async function releaseWrites(
  stage: Stage,
  { signal }: StepContext,
  from: string,
): Promise<StepResult> {
  const state = await stage.settledState(signal);
  const users = keptServers(stage, state);
  const wanted = [...state.resources()].flatMap((one) =>
    one.kind === "server" && users.has(one.id) && one.spec.power === "running" ? [one.id] : [],
  );
  const changed = await setPower(stage, from, wanted, "running", signal);
  return { summary: `${changed} servers with kept disks started again at ${from}` };
}

/**
 * The site that was to take over goes on with nothing: beside the one that serves, its servers would work on other versions of the
 * disks. A site that does not answer does not keep the one that serves from starting again.
 */
export async function stopCounterparts(
  stage: Stage,
  { signal }: StepContext,
  to: string,
): Promise<StepResult> {
  const state = await stage.settledState(signal);
  const of = { environment: environmentId(stage.settings.id), scope: mainScope };
  const pairings = await loadPairings(stage.store, of);
  const standing = [...keptServers(stage, state)].flatMap(
    (id) => pairings.get(resourceKey("server", id))?.standbyId ?? [],
  );
  for (let attempt = 1; ; attempt += 1) {
    try {
      const stopped = await setPower(stage, to, standing, "stopped", signal);
      return { summary: `${stopped} servers with kept disks stopped again at ${to}` };
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      if (attempt >= stopAttempts || error.retry === "never") {
        return { summary: `servers with kept disks may still run at ${to}: ${publicMessage(error)}` };
      }
      await stage.clock.sleep(attempt * stopPauseMs, signal);
    }
  }
}

/** Those that stand otherwise are changed, and waited for. */
export async function setPower(
  stage: Stage,
  site: string,
  ids: readonly ResourceId[],
  power: "running" | "stopped",
  signal: AbortSignal,
): Promise<number> {
  const { cloud, limiter } = stage.site(site);
  const standing = await readServers(cloud, ids, signal);
  const already = power === "running" ? "ready" : "stopped";
  const others = ids.filter((id) => (standing.get(id)?.status ?? already) !== already);
  await Promise.all(
    others.map((id) =>
      limiter.run(() => cloud.update("server", id, { power }, signal), { priority: 1, signal }),
    ),
  );
  return others.length;
}
