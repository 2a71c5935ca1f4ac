/** What would be missing or different after a takeover, told before it. Pure. */
import type { Gap, GapCode } from "#model/gap.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { Resource, Tags } from "#model/resource.ts";
import { planConvergence } from "./plan-convergence.ts";
import type { Translation } from "./translate.ts";

/** The gaps that follow from the state alone; whoever records them clears those of these codes that are no longer found. */
export const assessedCodes: readonly GapCode[] = [
  "field.untranslated",
  "image.unmapped",
  "type.unmapped",
  "kind.unsupported",
  "rule.unenforced",
  "data.not_captured",
];

/**
 * @param translation its sizing is irrelevant here: a takeover always fits types in full
 * @param recovered volumes that bear these tags come back from the vault: whether their content is captured is told by those who
 * capture it
 */
export function assessGaps(
  resources: Iterable<Resource>,
  translation: Translation,
  recovered: Tags | null = null,
): Gap[] {
  const desired = [...resources];
  const kept = new Set(recoveredVolumes({ resources: () => desired }, recovered).map(({ id }) => id));
  const plan = planConvergence({
    desired,
    pairings: new Map(),
    translation: { ...translation, sizing: "fit" },
  });
  const gaps = plan.gaps.filter(({ code }) => assessedCodes.includes(code));
  const told = new Set(gaps.flatMap(({ resource }) => (resource?.kind === "volume" ? [resource.id] : [])));
  for (const { kind, id } of desired) {
    if (kind !== "volume" || told.has(id) || kept.has(id)) continue;
    gaps.push({
      code: "data.not_captured",
      severity: "degraded",
      resource: { kind, id },
      message: `the content of volume ${id} is not captured: the standby site has an empty volume of the same size`,
    });
  }
  return gaps;
}
