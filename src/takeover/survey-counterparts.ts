/**
 * Looks at what the pairings say stands in a site, and corrects them by what really does: after a disaster, memory is no
 * evidence. What is gone loses its pairing, and is made anew by the next convergence; what was stopped is noted as stopped.
 */
import { collect } from "#cloud/contract.ts";
import { environmentId } from "#kernel/ids.ts";
import type { ResourceKind, ServerSpec } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import {
  erasePairing,
  loadPairings,
  writePairing,
  type Pairing,
  type PairingScope,
} from "#standby/pairings.ts";
import { isSynthetic } from "#standby/translate.ts";
import type { Statement } from "#store/contract.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { epochGuard } from "#takeover/converge-site.ts";
import type { Site, Stage } from "#takeover/stage.ts";

export interface Survey {
  readonly looked: number;
  /** `server i-0abc` */
  readonly missing: readonly string[];
  readonly stopped: readonly string[];
}

export function describeSurvey(survey: Survey): string {
  const { missing, stopped } = survey;
  const parts = [
    ...(missing.length === 0
      ? []
      : [`missing: ${missing.slice(0, 10).join(", ")}${missing.length > 10 ? ", ..." : ""}`]),
    ...(stopped.length === 0 ? [] : [`${stopped.length} servers are stopped`]),
  ];
  return parts.length === 0 ? "all are as they should be" : parts.join("; ");
}

/** Errors: `cloud.*` when the site can't be read: nothing is corrected then. */
export async function surveyCounterparts(
  stage: Stage,
  site: Site,
  epoch: number,
  signal: AbortSignal,
): Promise<Survey> {
  const { store, clock } = stage;
  const of: PairingScope = { environment: environmentId(stage.settings.id), scope: mainScope };
  const pairings = [...(await loadPairings(store, of)).values()].filter(
    (one) => one.standbyId !== null && one.state === "paired" && !isSynthetic(one.standbyId),
  );
  const statements: Statement[] = [];
  const missing: string[] = [];
  const stopped: string[] = [];
  const surveyKind = async (kind: ResourceKind): Promise<void> => {
    const ofKind = pairings.filter((pairing) => pairing.kind === kind);
    if (ofKind.length === 0) return;
    const standing = await observe(site, kind, ofKind, signal);
    for (const pairing of ofKind) {
      const status = standing.get(pairing.standbyId ?? "");
      if (status === undefined || status === "deleting") {
        missing.push(`${kind} ${pairing.standbyId}`);
        statements.push(erasePairing(store, of, pairing));
      } else if (status === "failed") {
        // It stands in the way of nothing but the bill: the next convergence removes it first.
        missing.push(`${kind} ${pairing.standbyId} (failed)`);
        statements.push(writePairing(store, of, { ...pairing, state: "deleting" }, clock.now()));
      } else if (status === "stopped" && kind === "server") {
        const corrected = asStopped(pairing);
        if (corrected === undefined) continue;
        stopped.push(pairing.standbyId ?? "");
        statements.push(writePairing(store, of, corrected, clock.now()));
      }
    }
  };
  await Promise.all(resourceKinds.map(surveyKind));
  if (statements.length > 0) await store.commit([epochGuard(stage, epoch), ...statements]);
  return { looked: pairings.length, missing, stopped };
}

async function observe(
  site: Site,
  kind: ResourceKind,
  pairings: readonly Pairing[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, string>> {
  const ids = pairings.flatMap(({ standbyId }) => standbyId ?? []);
  const call = (): Promise<
    readonly { readonly resource: { readonly id: string }; readonly status: string }[]
  > => collect(site.cloud.list(kind, { ids }, signal));
  const seen = await site.limiter.run(call, { priority: 0, signal });
  return new Map(seen.map(({ resource, status }) => [resource.id, status]));
}

/** Both sides say `stopped`, so that a wish to have it running is a difference again. */
function asStopped(pairing: Pairing): Pairing | undefined {
  const { counterpart, applied } = pairing;
  if (counterpart === null || (counterpart.spec as ServerSpec).power === "stopped") return undefined;
  const stop = (spec: object): ServerSpec => ({ ...(spec as ServerSpec), power: "stopped" });
  return {
    ...pairing,
    counterpart: { ...counterpart, spec: stop(counterpart.spec) },
    applied: { ...applied, spec: stop(applied.spec) },
  };
}
