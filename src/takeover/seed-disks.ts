/**
 * Makes the counterparts of kept disks and gives each the content of one moment, the same for all; only then come the servers that use
 * them. A server whose disk cannot have its content is withheld: started on an empty disk, it would do more harm than missing.
 */
import { clearGapsOfCode, recordGap } from "#environment/gaps.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import { environmentId, type ResourceId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Gap } from "#model/gap.ts";
import { serversOfVolumes } from "#model/recovered-volumes.ts";
import type { Resource } from "#model/resource.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { loadPairings, pairingKey, type Pairings } from "#standby/pairings.ts";
import type { Statement } from "#store/contract.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { convergeSite, type SiteConvergence } from "#takeover/converge-site.ts";
import { diskMover, keptVolumes, withoutUsers } from "#takeover/recover-disks.ts";
import type { StepContext, StepResult } from "#takeover/run-engine.ts";
import type { Stage } from "#takeover/stage.ts";

export interface DiskRecovery {
  readonly to: string;
  readonly scope: string;
  readonly moment: DiskMoment | null;
  /** Why kept disks have no moment; null: they have one. */
  readonly none: string | null;
  /** Of the convergence that makes their counterparts. */
  readonly converge: Omit<SiteConvergence, "desired" | "keep">;
  /** Of the kept volumes, these; absent: all. */
  readonly only?: ReadonlySet<ResourceId>;
}

interface Seeding {
  readonly volumeId: ResourceId;
  /** Null: it has its content. */
  readonly problem: string | null;
}

/** Of the kept volumes, those that this run is about. */
function volumesOf(stage: Stage, state: EnvironmentState, { only }: DiskRecovery): ReadonlySet<ResourceId> {
  const all = keptVolumes(stage, state);
  return only === undefined ? all : new Set([...all].filter((id) => only.has(id)));
}

export async function seedDisks(
  stage: Stage,
  { signal, say }: StepContext,
  recovery: DiskRecovery,
): Promise<StepResult> {
  const { to, scope, moment, none } = recovery;
  const state = await stage.settledState(signal);
  const kept = volumesOf(stage, state, recovery);
  if (kept.size === 0) return { summary: "no disk is kept in the vault", result: { withheld: [] } };
  const seedings =
    moment === null
      ? Array.from(kept, (volumeId) => ({ volumeId, problem: none ?? "it has no moment" }))
      : await seedAll(stage, state, { ...recovery, moment, kept }, signal);
  const withheld = seedings.filter((one) => one.problem !== null);
  for (const { volumeId, problem } of withheld) await say(`volume ${volumeId} has no content: ${problem}`);
  const live = seedings.length - withheld.length;
  return {
    summary: `${live} of ${seedings.length} disks are live at ${to}, their content comes over behind`,
    result: { withheld: withheld.map(({ volumeId }) => volumeId) },
    // A drill leaves nothing behind, and says in its end what it went without.
    effects: scope === mainScope ? withheldStatements(stage, to, withheld, state) : [],
  };
}

interface MomentRecovery extends DiskRecovery {
  readonly moment: DiskMoment;
  readonly kept: ReadonlySet<ResourceId>;
}

async function seedAll(
  stage: Stage,
  state: EnvironmentState,
  { to, scope, moment, converge, kept }: MomentRecovery,
  signal: AbortSignal,
): Promise<readonly Seeding[]> {
  const of = { environment: environmentId(stage.settings.id), scope };
  const before = await loadPairings(stage.store, of);
  const held = await heldDisks(stage, { to, moment, kept }, before);
  const desired = [...state.resources()].filter(
    (one) => before.has(resourceKey(one.kind, one.id)) || (one.kind === "volume" && kept.has(one.id)),
  );
  const keep = pairingsOf(usersOfOnly(state, kept, held), before);
  await convergeSite(stage, { ...converge, desired: withoutUsers(desired, kept, state), keep }, signal);
  const pairings = await loadPairings(stage.store, of);
  const seedOne = async (sourceId: ResourceId): Promise<Seeding> => {
    if (held.has(sourceId)) return { volumeId: sourceId, problem: null };
    const targetId = counterpartOf(pairings, sourceId);
    if (targetId === null) return { volumeId: sourceId, problem: `${to} did not make its counterpart` };
    try {
      await diskMover(stage).seed(to, { sourceId, targetId }, moment, signal);
      return { volumeId: sourceId, problem: null };
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error) || error.retry !== "never") throw error;
      return { volumeId: sourceId, problem: publicMessage(error) };
    }
  };
  return allOf(Array.from(kept, seedOne));
}

/** Waits for all of them, also when one fails: what goes on for a disk would meet its own repetition. */
async function allOf<Value>(work: readonly Promise<Value>[]): Promise<readonly Value[]> {
  const ends = await Promise.allSettled(work);
  const errors = ends.flatMap((one) => (one.status === "rejected" ? [one.reason as unknown] : []));
  if (errors.length > 0) throw errors.find((error) => !isOperational(error)) ?? errors[0];
  return ends.flatMap((one) => (one.status === "fulfilled" ? [one.value] : []));
}

function counterpartOf(pairings: Pairings, volumeId: ResourceId): ResourceId | null {
  return pairings.get(resourceKey("volume", volumeId))?.standbyId ?? null;
}

/** They were given this very moment by a run before, and nothing was captured since: their users go on with what they have written. */
async function heldDisks(
  stage: Stage,
  { to, moment, kept }: { to: string; moment: DiskMoment; kept: ReadonlySet<ResourceId> },
  pairings: Pairings,
): Promise<ReadonlySet<ResourceId>> {
  const held = new Set<ResourceId>();
  for (const volumeId of kept) {
    const targetId = counterpartOf(pairings, volumeId);
    if (targetId === null) continue;
    const given = await diskMover(stage).given(to, targetId);
    if (given !== null && given !== "half" && given.sequence === moment.sequence) held.add(volumeId);
  }
  return held;
}

/** Servers that use some of `kept`, and of those only such as are `held`. */
function usersOfOnly(
  state: EnvironmentState,
  kept: ReadonlySet<ResourceId>,
  held: ReadonlySet<ResourceId>,
): ReadonlySet<ResourceId> {
  const others = new Set([...kept].filter((id) => !held.has(id)));
  const waiting = serversOfVolumes(state, others);
  return new Set([...serversOfVolumes(state, held)].filter((id) => !waiting.has(id)));
}

/** Keys of what stands of the servers, and of their links. */
function pairingsOf(servers: ReadonlySet<ResourceId>, pairings: Pairings): ReadonlySet<string> {
  const keys = new Set<string>();
  for (const pairing of pairings.values()) {
    const { kind, activeId, spec } = { ...pairing, ...pairing.applied } as unknown as Resource & {
      readonly activeId: ResourceId;
    };
    if (kind === "server" && servers.has(activeId)) keys.add(pairingKey(pairing));
    if (kind !== "volumeAttachment" && kind !== "addressAssociation") continue;
    if (!servers.has(spec.serverId)) continue;
    keys.add(pairingKey(pairing));
    if (kind === "addressAssociation") keys.add(resourceKey("address", spec.addressId));
  }
  return keys;
}

/** What is missing is named for as long as it is: until a run brings it, or the environment returns to where it was left. */
function withheldStatements(
  stage: Stage,
  to: string,
  withheld: readonly Seeding[],
  state: EnvironmentState,
): readonly Statement[] {
  const { store, clock, settings } = stage;
  const environment = environmentId(settings.id);
  const gap = (resource: NonNullable<Gap["resource"]>, message: string): Statement =>
    recordGap(
      store,
      environment,
      { code: "data.withheld", severity: "lost", resource, message },
      clock.now(),
    );
  const volumes = withheld.map(({ volumeId: id, problem }) =>
    gap(
      { kind: "volume", id },
      `volume ${id} is not at ${to}, since its content can't be had: ${problem ?? ""}`,
    ),
  );
  const missing = new Set(withheld.map(({ volumeId }) => volumeId));
  const servers = Array.from(serversOfVolumes(state, missing), (id) =>
    gap({ kind: "server", id }, `server ${id} is not started at ${to}: a disk of it has no content there`),
  );
  return [clearGapsOfCode(store, environment, "data.withheld"), ...volumes, ...servers];
}

/** The volumes that have no content where the run goes; empty where it has no step for them. */
export function withheldOf(results: ReadonlyMap<string, Json>): readonly ResourceId[] {
  const seeded = results.get("seed-disks") as { readonly withheld: readonly ResourceId[] } | undefined;
  return seeded?.withheld ?? [];
}

/** For the end of a run that went without them; null where there are none. */
export function describeWithheld(results: ReadonlyMap<string, Json>): string | null {
  const withheld = withheldOf(results);
  if (withheld.length === 0) return null;
  const named = withheld.slice(0, 5).join(", ");
  const rest = withheld.length > 5 ? `, and ${withheld.length - 5} more` : "";
  return `no content for ${named}${rest}`;
}

/** Everything but what cannot have its content, and the servers that would be started without it. */
export function withoutWithheld(
  resources: Iterable<Resource>,
  results: ReadonlyMap<string, Json>,
  state: EnvironmentState,
): readonly Resource[] {
  const withheld = new Set(withheldOf(results));
  if (withheld.size === 0) return [...resources];
  return withoutUsers([...resources], withheld, state).filter(
    (one) => one.kind !== "volume" || !withheld.has(one.id),
  );
}

/** What stands of servers with kept disks, as it is: for a convergence that is about the others. */
export async function keptPairings(stage: Stage, state: EnvironmentState): Promise<ReadonlySet<string>> {
  const of = { environment: environmentId(stage.settings.id), scope: mainScope };
  const kept = keptVolumes(stage, state);
  const pairings = await loadPairings(stage.store, of);
  return pairingsOf(serversOfVolumes(state, kept), pairings);
}
