/** The decision to fail over, pure: what the witnesses saw, for how long, against what the user configured. */
import type { NoticeCode } from "#model/notice.ts";
import type { Observation } from "#health/notice-board.ts";

export interface Trigger {
  /** A witness agrees when it sees all of these at once. */
  readonly codes: readonly NoticeCode[];
  /** So many different witnesses must agree. */
  readonly witnesses: number;
  /** Each of them without a break for at least so long. */
  readonly forMs: number;
}

export type FailoverDecision =
  | { readonly failover: false }
  | {
      readonly failover: true;
      readonly trigger: Trigger;
      readonly agreeing: readonly string[];
      readonly reason: string;
    };

/** An observation that was not confirmed for so long says nothing any more: the witness itself may be cut off. */
export function isFresh(observation: Observation, now: number, staleAfterMs: number): boolean {
  return now - observation.confirmedAt <= staleAfterMs;
}

export function decideFailover(
  observations: readonly Observation[],
  triggers: readonly Trigger[],
  now: number,
  staleAfterMs: number,
): FailoverDecision {
  const fresh = observations.filter(
    (observation) => observation.raised && isFresh(observation, now, staleAfterMs),
  );
  for (const trigger of triggers) {
    const lasting = fresh.filter((observation) => now - observation.since >= trigger.forMs);
    const agreeing = [...new Set(lasting.map((observation) => observation.witness))].filter((witness) =>
      trigger.codes.every((code) => lasting.some((one) => one.witness === witness && one.code === code)),
    );
    if (agreeing.length >= trigger.witnesses) {
      const reason = `${trigger.codes.join(" and ")} seen by ${agreeing.join(", ")} for ${trigger.forMs} ms`;
      return { failover: true, trigger, agreeing, reason };
    }
  }
  return { failover: false };
}

/**
 * The source may serve again when at least `witnesses` different witnesses see its API answer, without a break, for
 * `stableForMs`, and none says otherwise.
 */
export function sourceIsBack(
  observations: readonly Observation[],
  witnesses: number,
  stableForMs: number,
  now: number,
  staleAfterMs: number,
): boolean {
  const about = observations.filter(
    (one) =>
      (one.code === "cloud.api_unreachable" || one.code === "cloud.api_failing") &&
      isFresh(one, now, staleAfterMs),
  );
  if (about.some((one) => one.raised)) return false;
  // One thing that it has never seen (errors, say) vouches for nothing while another (silence) has only just ended.
  const unsettled = about.filter((one) => now - one.since < stableForMs).map((one) => one.witness);
  const agreeing = new Set(about.map((one) => one.witness)).difference(new Set(unsettled));
  return agreeing.size >= witnesses;
}
