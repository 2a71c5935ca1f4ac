/** What a cloud enforces of security group rules, as data: what it does not is a named gap, never a rule that only seems to hold. */
import type { SecurityGroupRuleSpec } from "#model/resource.ts";

export interface RuleForms {
  /** What is let in: these protocols, */
  readonly protocols: readonly string[];
  /** at most so many ports by one rule, */
  readonly mostPorts: number;
  /** from everywhere (`0.0.0.0/0`) only. What is let out is everything (`true`), or nothing. */
  readonly egress: boolean;
}

const everywhere = "0.0.0.0/0";

/** Null: such a rule is enforced. Else the reason, as the end of a sentence about the rule. */
export function whyNotEnforced(forms: RuleForms | undefined, spec: SecurityGroupRuleSpec): string | null {
  if (forms === undefined) return null;
  const { direction, protocol, peer } = spec;
  const fromEverywhere = "cidr" in peer && peer.cidr === everywhere;
  if (direction === "egress") {
    if (!forms.egress) return "servers there reach nothing outside";
    return protocol === "all" && fromEverywhere ? null : "what servers there reach cannot be narrowed";
  }
  if (!forms.protocols.includes(protocol)) return `only ${forms.protocols.join(" and ")} get through there`;
  if (!fromEverywhere) return `ports there are open to ${everywhere} or to nobody`;
  const ports = (spec.toPort ?? 65_535) - (spec.fromPort ?? 1) + 1;
  return ports > forms.mostPorts ? `a rule there opens at most ${forms.mostPorts} ports` : null;
}

/** A rule for more ports than this cannot be a listener for each. */
export const mostForwardedPorts = 32;

/** What a host enforces that forwards ports to guests in networks of their own. `egress`: whether it lets guests out at all. */
export function forwardedRules(egress: boolean): RuleForms {
  return { protocols: ["tcp", "udp"], mostPorts: mostForwardedPorts, egress };
}
