/** What the user decided about one environment, as the takeover room needs it; made from the configuration by `main`. */
import type { Trigger } from "#health/decide-failover.ts";
import type { Probe } from "#health/probe.ts";
import type { Verification } from "#health/verification.ts";
import type { ReservePolicy, ReturnPolicy } from "#model/policy.ts";
import type { Mappings } from "#standby/translate.ts";
import type { FenceMode } from "#takeover/fence.ts";
import type { RouteRule } from "#takeover/route-targets.ts";

export interface EnvironmentSettings {
  readonly id: string;
  readonly active: string;
  readonly standby: string;
  readonly reserve: ReservePolicy;
  /** From the names of `active` to those of `standby`. */
  readonly mappings: Mappings;
  readonly routes: readonly RouteRule[];
  /** What users see: looked at after they were moved. The clouds' own APIs are not among them. */
  readonly applicationProbes: readonly Probe[];
  /** What a booted copy of a server must pass; absent: that it is up and its routed ports take connections. */
  readonly verifications?: readonly Verification[];
  readonly witnesses: readonly string[];
  readonly triggers: readonly Trigger[];
  readonly fence: FenceMode;
  readonly returnPolicy: ReturnPolicy;
  /** How long the source must have been healthy before a return by policy, in milliseconds. */
  readonly stableForMs: number;
  /** An observation that was not confirmed for so long says nothing, in milliseconds. */
  readonly staleAfterMs: number;
}

/** The same names read from the other side, for the way back. */
export function invertMappings(mappings: Mappings): Mappings {
  const invert = (table: Readonly<Record<string, string>>): Record<string, string> =>
    Object.fromEntries(Object.entries(table).map(([from, to]) => [to, from]));
  return { types: invert(mappings.types), images: invert(mappings.images), zones: invert(mappings.zones) };
}
