/**
 * What a run does with disks whose content is kept in the vault: their counterparts are made first and given the content of one
 * moment, the same for all; only then come the servers that use them. A server whose disk cannot have its content is withheld:
 * started on an empty disk, it would do more harm than missing.
 */
import { environmentId, type ResourceId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import { invariant } from "#kernel/invariant.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import { recoveredVolumes, serversOfVolumes } from "#model/recovered-volumes.ts";
import type { Resource } from "#model/resource.ts";
import { loadPairings } from "#standby/pairings.ts";
import { convergeSite, type SiteConvergence } from "#takeover/converge-site.ts";
import type { DiskMoment, DiskMover, MovedDisk } from "#recovery/disk-mover.ts";
import { readServers } from "#takeover/route-targets.ts";
import type { StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

/** Ids on the serving side. */
export function keptVolumes(stage: Stage, state: EnvironmentState): ReadonlySet<ResourceId> {
  if (stage.disks === undefined) return new Set();
  return new Set(recoveredVolumes(state, stage.settings.reserve.recovered ?? null).map(({ id }) => id));
}

/** Servers that use them, ids on the serving side. */
export function keptServers(stage: Stage, state: EnvironmentState): ReadonlySet<ResourceId> {
  return serversOfVolumes(state, keptVolumes(stage, state));
}

export function momentOf(results: ReadonlyMap<string, Json>, step: string): DiskMoment | null {
  const { moment } = results.get(step) as unknown as { moment: DiskMoment | null };
  return moment;
}

export function describeMoment(moment: DiskMoment): string {
  return `${new Date(moment.at).toISOString()} (write ${moment.sequence})`;
}

function diskMover(stage: Stage): DiskMover {
  invariant(stage.disks !== undefined, "only an environment with kept disks has steps for them");
  return stage.disks;
}

/** `settled`: the guests are stopped, so that the last write can be waited for. Chosen once: a repeated run keeps to it. */
export async function chooseMoment(
  stage: Stage,
  { signal }: StepContext,
  wanted: {
    readonly atMs: number | null;
    /** With `atMs`, the very moment: a recovery point's. */
    readonly sequence?: number | undefined;
    readonly settled: boolean;
    /** Null: the source goes on. */
    readonly fence: number | null;
  },
): Promise<StepResult> {
  const state = await stage.settledState(signal);
  if (keptVolumes(stage, state).size === 0) {
    return { summary: "no disk is kept in the vault", result: { moment: null } };
  }
  const disks = diskMover(stage);
  if (wanted.settled) await disks.settle(signal);
  if (wanted.fence !== null) await disks.fence(wanted.fence, signal);
  const moment =
    wanted.sequence !== undefined && wanted.atMs !== null
      ? { sequence: wanted.sequence, at: wanted.atMs }
      : await disks.moment(wanted.atMs, signal);
  return {
    summary: `the disks as they were at ${describeMoment(moment)}`,
    result: { moment: { sequence: moment.sequence, at: moment.at } },
  };
}

export interface DiskRecovery {
  readonly to: string;
  readonly scope: string;
  readonly moment: DiskMoment | null;
  /** Of the convergence that makes their counterparts. */
  readonly converge: Omit<SiteConvergence, "desired">;
  /** Of the kept volumes, these; absent: all. */
  readonly only?: ReadonlySet<ResourceId>;
}

/** Makes the counterparts of the kept disks, and gives each the moment's content. */
export async function seedDisks(
  stage: Stage,
  { signal, say }: StepContext,
  { to, scope, moment, converge, only }: DiskRecovery,
): Promise<StepResult> {
  const state = await stage.settledState(signal);
  const all = keptVolumes(stage, state);
  const kept = only === undefined ? all : new Set([...all].filter((id) => only.has(id)));
  if (moment === null || kept.size === 0) {
    return { summary: "no disk is kept in the vault", result: { withheld: [] } };
  }
  const of = { environment: environmentId(stage.settings.id), scope };
  const before = await loadPairings(stage.store, of);
  const desired = [...state.resources()].filter(
    (one) => before.has(resourceKey(one.kind, one.id)) || (one.kind === "volume" && kept.has(one.id)),
  );
  await convergeSite(stage, { ...converge, desired: withoutUsers(desired, kept, state) }, signal);
  const pairings = await loadPairings(stage.store, of);
  const outcomes = await Promise.all(
    Array.from(kept, async (sourceId) => {
      const targetId = pairings.get(resourceKey("volume", sourceId))?.standbyId ?? null;
      if (targetId === null) return { sourceId, problem: `${to} did not make its counterpart` };
      try {
        await diskMover(stage).seed(to, { sourceId, targetId }, moment, signal);
        return { sourceId, problem: null };
      } catch (error) {
        signal.throwIfAborted();
        if (!isOperational(error) || error.retry !== "never") throw error;
        return { sourceId, problem: publicMessage(error) };
      }
    }),
  );
  const withheld = outcomes.filter(({ problem }) => problem !== null);
  for (const { sourceId, problem } of withheld) await say(`volume ${sourceId} has no content: ${problem}`);
  const live = outcomes.length - withheld.length;
  return {
    summary: `${live} of ${outcomes.length} disks are live at ${to}, their content comes over behind`,
    result: { withheld: withheld.map(({ sourceId }) => sourceId) },
  };
}

/** What can stand before the kept disks have their content. */
export function withoutKeptServers(stage: Stage, state: EnvironmentState): readonly Resource[] {
  return withoutUsers([...state.resources()], keptVolumes(stage, state), state);
}

/** Servers that use kept disks, and their links to them, come later. Those that stand already are left as they are. */
function withoutUsers(
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

/** Everything but what cannot have its content, and the servers that would be started without it. */
export function withoutWithheld(
  resources: Iterable<Resource>,
  results: ReadonlyMap<string, Json>,
  state: EnvironmentState,
): readonly Resource[] {
  const seeded = results.get("seed-disks") as { readonly withheld: readonly ResourceId[] } | undefined;
  const withheld = new Set(seeded?.withheld ?? []);
  if (withheld.size === 0) return [...resources];
  return withoutUsers([...resources], withheld, state).filter(
    (one) => one.kind !== "volume" || !withheld.has(one.id),
  );
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
  const of = { environment: environmentId(stage.settings.id), scope: "main" };
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
