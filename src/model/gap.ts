/** What is not protected, and why: an object of its own, never a log line. */
import type { ResourceKind } from "#model/resource.ts";

export const gapCodes = {
  "operation.untranslated": "the command was forwarded and recorded, but has no counterpart on the standby",
  "field.untranslated": "a property of the resource has no counterpart on the standby",
  "image.unmapped":
    "the server's image has no counterpart on the standby: add it under `images` in understudy.yaml",
  "type.unmapped": "no flavor of the standby is large enough: add it under `types` in understudy.yaml",
  "reference.missing":
    "the resource refers to one that was not recorded and cannot be read from the active site",
  "outcome.unknown": "the cloud did not say whether the command took effect, and asking it did not tell",
  "kind.unsupported": "the standby site has no such kind of resource",
  "rule.unenforced":
    "the standby site cannot enforce the rule: what it lets through does not get through there",
  "standby.refused": "the standby site refused to create or change the resource",
  "data.not_captured":
    "the volume's content is not captured; the standby has an empty volume of the same size",
  "data.behind": "the volume's content is to be kept, but its writes are not captured now",
  "data.points_behind": "recovery points that should be made are not",
  "data.half_restored": "a restore of the volume broke off: its content is part old and part new",
  "data.withheld":
    "the environment serves without the resource, since the content of a kept disk could not be had",
} as const;

export type GapCode = keyof typeof gapCodes;

export interface Gap {
  readonly code: GapCode;
  /** `lost`: would be missing after a takeover; `degraded`: there, but different; `note`: worth knowing. */
  readonly severity: "lost" | "degraded" | "note";
  /** The resource (active side) it is about, where it is about one. */
  readonly resource?: { readonly kind: ResourceKind; readonly id: string };
  /** `ec2:CreateFlowLogs`, where it is about an operation. */
  readonly operation?: string;
  /** What exactly, in words for the user, and what to do. */
  readonly message: string;
}

/** The same gap seen again is the same row. */
export function gapKey(gap: Gap): string {
  return [gap.code, gap.resource?.kind ?? "", gap.resource?.id ?? "", gap.operation ?? ""].join("|");
}
