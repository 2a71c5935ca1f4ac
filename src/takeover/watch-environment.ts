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
}

export function decideNext(
  settings: EnvironmentSettings,
  record: EnvironmentRecord,
  observations: readonly Observation[],
  now: number,
  past: Past,
): Decision {
  if (record.phase === "protected") {
    const about = observations.filter((one) => concerns(one, record.activeSite));
    const decision = decideFailover(about, settings.triggers, now, settings.staleAfterMs);
    if (!decision.failover) return { next: "nothing" };
    return { next: "run", kind: "failover", by: "witnesses", reason: decision.reason };
  }
  if (record.phase !== "failed_over") return { next: "nothing" };
  if (settings.returnPolicy === "swap" && past.leftByWitnesses) {
    return {
      next: "run",
      kind: "swap",
      by: "return policy",
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
  if (settings.returnPolicy !== "wait" || !past.leftByWitnesses) return { next: "nothing" };
  // More than half of the witnesses, and at least as many as it takes to leave.
  const quorum = Math.max(
    Math.floor(settings.witnesses.length / 2) + 1,
    ...settings.triggers.map(({ witnesses }) => witnesses),
  );
  if (!sourceIsBack(aboutSource, quorum, settings.stableForMs, now, settings.staleAfterMs))
    return { next: "nothing" };
  const reason = `${record.standbySite} has answered ${quorum} witnesses for ${settings.stableForMs} ms`;
  return { next: "run", kind: "failback", by: "return policy", reason };
}

function noneRaised(observations: readonly Observation[], one: Observation): boolean {
  return !observations.some((other) => other.witness === one.witness && other.raised);
}

/** An application is looked at where users find it; a cloud's API where that cloud is. */
function concerns(observation: Observation, site: string): boolean {
  return noticeCodes[observation.code].about === "environment" || observation.probe.endsWith(`@${site}`);
}
