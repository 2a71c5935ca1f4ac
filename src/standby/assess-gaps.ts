/** What would be missing or different after a takeover, told before it. Pure. */
import type { Gap, GapCode } from "#model/gap.ts";
import type { Resource } from "#model/resource.ts";
import { planConvergence } from "./plan-convergence.ts";
import type { Translation } from "./translate.ts";

/** The gaps that follow from the state alone; whoever records them clears those of these codes that are no longer found. */
export const assessedCodes: readonly GapCode[] = [
  "field.untranslated",
  "image.unmapped",
  "type.unmapped",
  "kind.unsupported",
  "data.not_captured",
];

/** @param sizing is irrelevant here: a takeover always fits types in full. */
export function assessGaps(resources: Iterable<Resource>, translation: Translation): Gap[] {
  const desired = [...resources];
  const plan = planConvergence({
    desired,
    pairings: new Map(),
    translation: { ...translation, sizing: "fit" },
  });
  const gaps = plan.gaps.filter(({ code }) => assessedCodes.includes(code));
  const told = new Set(gaps.flatMap(({ resource }) => (resource?.kind === "volume" ? [resource.id] : [])));
  for (const { kind, id } of desired) {
    if (kind !== "volume" || told.has(id)) continue;
    gaps.push({
      code: "data.not_captured",
      severity: "degraded",
      resource: { kind, id },
      message: `the content of volume ${id} is not captured: the standby site has an empty volume of the same size`,
    });
  }
  return gaps;
}
