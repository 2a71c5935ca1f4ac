/** The servers that a run has made or brought up to date, each looked at where it stands now. */
import { type Examination, examineServers } from "#takeover/examine-servers.ts";
import type { ServerEvidence } from "#model/evidence.ts";
import { readServers } from "#takeover/route-targets.ts";
import { environmentId } from "#kernel/ids.ts";
import { loadPairings } from "#standby/pairings.ts";
import { counterpartIds } from "#takeover/exchange-roles.ts";
import type { Stage } from "#takeover/stage.ts";
import { type ServerCheck, verifyServers } from "#takeover/verify-servers.ts";

/** How long a server may take until its routed ports accept connections, in milliseconds. */
const patienceMs = 60_000;

export interface CounterpartsAt {
  readonly to: string;
  readonly scope: string;
  /** Only these servers, by their ids on the serving side; absent: all. */
  readonly only?: ReadonlySet<string>;
}

export async function verifyCounterparts(
  stage: Stage,
  { to, scope, only }: CounterpartsAt,
  signal: AbortSignal,
): Promise<readonly ServerCheck[]> {
  const pairings = await loadPairings(stage.store, { environment: environmentId(stage.settings.id), scope });
  return verifyServers({
    cloud: stage.site(to).cloud,
    clock: stage.clock,
    state: await stage.settledState(signal),
    counterparts: counterpartIds(pairings),
    routes: stage.settings.routes,
    ...(only === undefined ? {} : { only }),
    patienceMs,
    signal,
  });
}

/** What the user wants to hold of them, and what they printed. */
export async function examineCounterparts(
  stage: Stage,
  { to, scope, only }: CounterpartsAt,
  signal: AbortSignal,
): Promise<readonly ServerEvidence[]> {
  const pairings = await loadPairings(stage.store, { environment: environmentId(stage.settings.id), scope });
  const counterparts = counterpartIds(pairings);
  const { cloud } = stage.site(to);
  const state = await stage.settledState(signal);
  const meant = [...state.resources()].flatMap((one) =>
    one.kind === "server" && one.spec.power === "running" && (only?.has(one.id) ?? true) ? [one] : [],
  );
  const copies = await readServers(
    cloud,
    meant.flatMap(({ id }) => counterparts.get(id) ?? []),
    signal,
  );
  const examination: Examination = {
    environment: stage.settings.id,
    site: to,
    servers: meant.map(({ id, tags }) => ({
      id,
      name: tags["Name"] ?? id,
      tags,
      copy: copies.get(counterparts.get(id) ?? ""),
    })),
    verifications: stage.settings.verifications ?? [],
    host: stage.hostOf(to),
    clock: stage.clock,
  };
  return examineServers(examination, signal);
}
