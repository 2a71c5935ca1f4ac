/** The servers that a run has made or brought up to date, each looked at where it stands now. */
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
