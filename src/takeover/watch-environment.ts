/** What to do about what the witnesses see. Pure. */
import { decideFailover, isFresh, sourceIsBack } from "#health/decide-failover.ts";
import type { Observation } from "#health/notice-board.ts";
import { noticeCodes } from "#model/notice.ts";
import type { RunKind } from "#model/run.ts";
import type { EnvironmentRecord } from "#takeover/environment-record.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";

export type Decision =
  | { readonly next: "nothing" }
  | { readonly next: "run"; readonly kind: RunKind; readonly by: string; readonly reason: string }
  /** The site that was left answers again and has not been fenced yet. */
  | { readonly next: "fence_source" };

/** Who begins a failover that no person asked for. */
export const witnessesTrigger = "witnesses";
/** Who begins what the return policy asks for. */
export const returnPolicyTrigger = "return policy";

/** After a run that nobody asked for broke off, the next one waits: an environment that moves to and fro serves nobody. */
const holdOffMs = { failover: 60_000, return: 300_000 };

/** The probe of a site's API bears the site's name, so that what is said of one is not taken for the other. */
export function siteProbeName(probe: string, site: string): string {
  return `${probe}@${site}`;
}

/** What happened since the environment was left. */
export interface Past {
  /** The site that was left has been fenced since it answers again. */
  readonly fenced: boolean;
  /** The witnesses started the failover, not a person. */
  readonly leftByWitnesses: boolean;
  /** When the last run ended, if nobody had asked for it and it did not come about. */
  readonly brokeOffAt: number | null;
}

export function decideNext(
  settings: EnvironmentSettings,
  record: EnvironmentRecord,
  observations: readonly Observation[],
  now: number,
  past: Past,
): Decision {
  const heldOff = (ms: number): boolean => past.brokeOffAt !== null && now - past.brokeOffAt < ms;
  if (record.phase === "failing_over" && past.brokeOffAt !== null && !heldOff(holdOffMs.failover)) {
    const reason = "the takeover that the witnesses began broke off half-way";
    return { next: "run", kind: "failover", by: witnessesTrigger, reason };
  }
  // A migration that broke off half-way is served, and watched over, where it was.
  if (record.phase === "protected" || record.phase === "migrating") {
    if (heldOff(holdOffMs.failover)) return { next: "nothing" };
    const about = observations.filter((one) => concerns(one, record.activeSite));
    const decision = decideFailover(about, settings.triggers, now, settings.staleAfterMs);
    if (!decision.failover) return { next: "nothing" };
    return { next: "run", kind: "failover", by: witnessesTrigger, reason: decision.reason };
  }
  if (record.phase !== "failed_over") return { next: "nothing" };
  if (settings.returnPolicy === "swap" && past.leftByWitnesses && !heldOff(holdOffMs.return)) {
    return {
      next: "run",
      kind: "swap",
      by: returnPolicyTrigger,
      reason: "the return policy is to swap the roles",
    };
  }
  const aboutSource = observations.filter(
    (one) => noticeCodes[one.code].about === "source" && concerns(one, record.standbySite),
  );
  const answers = aboutSource.some(
    (one) => !one.raised && isFresh(one, now, settings.staleAfterMs) && noneRaised(aboutSource, one),
  );
  if (!past.fenced && answers) return { next: "fence_source" };
  if (settings.returnPolicy !== "wait" || !past.leftByWitnesses || heldOff(holdOffMs.return))
    return { next: "nothing" };
  // More than half of the witnesses, and at least as many as it takes to leave.
  const quorum = Math.max(
    Math.floor(settings.witnesses.length / 2) + 1,
    ...settings.triggers.map(({ witnesses }) => witnesses),
  );
  if (!sourceIsBack(aboutSource, quorum, settings.stableForMs, now, settings.staleAfterMs))
    return { next: "nothing" };
  const reason = `${record.standbySite} has answered ${quorum} witnesses for ${settings.stableForMs} ms`;
  return { next: "run", kind: "failback", by: returnPolicyTrigger, reason };
}

function noneRaised(observations: readonly Observation[], one: Observation): boolean {
  return !observations.some((other) => other.witness === one.witness && other.raised);
}

/** An application is looked at where users find it; a cloud's API where that cloud is. */
function concerns(observation: Observation, site: string): boolean {
  return noticeCodes[observation.code].about === "environment" || observation.probe.endsWith(`@${site}`);
}
