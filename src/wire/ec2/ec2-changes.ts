/**
 * What an acknowledged EC2 command changed, in the model's terms. Pure: the command, the cloud's answer and, where
 * given, the environment as it was before. A command that changes what the model cannot hold is a named gap.
 */
import type { Ec2Effect, Ec2Translators, KnownResources } from "./ec2-effect.ts";
import { noEffect, nothingKnown, operationGap } from "./ec2-effect.ts";
import { coveredOperations, untranslatedOperations } from "./ec2-coverage.ts";
import { groupTranslators } from "./ec2-group-changes.ts";
import { networkTranslators } from "./ec2-network-changes.ts";
import { serverTranslators } from "./ec2-server-changes.ts";
import { storageTranslators } from "./ec2-storage-changes.ts";
import { tagTranslators } from "./ec2-tag-changes.ts";

const translators: ReadonlyMap<string, Ec2Translators[string]> = new Map(
  Object.entries<Ec2Translators[string]>({
    ...networkTranslators,
    ...groupTranslators,
    ...storageTranslators,
    ...serverTranslators,
    ...tagTranslators,
  }),
);

/** Translators that only ever tell that nothing, or nothing more, is carried over. */
const coveredByTranslator: ReadonlySet<string> = new Set([
  "ModifyVpcAttribute",
  "CreateInternetGateway",
  "DeleteInternetGateway",
  "CreateRoute",
  "ReplaceRoute",
  "DeleteRoute",
  "CreateRouteTable",
  "DeleteRouteTable",
  "AssociateRouteTable",
  "DisassociateRouteTable",
  "ReplaceRouteTableAssociation",
  "RebootInstances",
]);

const reads = /^(Describe|Get|List|Search|Preview)/;

function fallback(operation: string): Ec2Effect {
  const covered = coveredOperations.get(operation);
  if (covered !== undefined) {
    return covered === null ? noEffect : operationGap(operation, "note", covered);
  }
  if (reads.test(operation)) return noEffect;
  const known = untranslatedOperations.get(operation);
  if (known !== undefined) return operationGap(operation, known.severity, known.message);
  const makes = /^(Create|Allocate|Register|Import|Copy|Request|Run|Purchase|Provision|Accept|Restore)/.test(
    operation,
  );
  const ends = /^(Delete|Release|Deregister|Cancel|Deprovision|Reject)/.test(operation);
  if (makes) {
    return operationGap(operation, "lost", `${operation}: what it makes would be missing after a takeover`);
  }
  return ends
    ? operationGap(operation, "note", `${operation}: what it removes was never carried over`)
    : operationGap(operation, "degraded", `${operation}: the setting would be missing after a takeover`);
}

/**
 * `operation` is EC2's name, `input` and `output` its members under the vendor's names (times as ISO text, blobs as
 * base64). Only for commands that the cloud acknowledged.
 */
export function ec2Changes(
  operation: string,
  input: unknown,
  output: unknown,
  known: KnownResources = nothingKnown,
): Ec2Effect {
  const translate = translators.get(operation);
  if (translate === undefined) return fallback(operation);
  return translate((input ?? {}) as never, (output ?? {}) as never, known);
}

export type Ec2Support = "translated" | "covered" | "gap";

/** For the support matrix. Every operation not named here is forwarded, journaled, and a gap if it changes something. */
export const ec2Coverage: Readonly<Record<string, Ec2Support>> = Object.fromEntries(
  [
    ...[...translators.keys()].map(
      (operation) => [operation, coveredByTranslator.has(operation) ? "covered" : "translated"] as const,
    ),
    ...[...coveredOperations.keys()].map((operation) => [operation, "covered"] as const),
    ...[...untranslatedOperations.keys()].map((operation) => [operation, "gap"] as const),
  ].sort(([a], [b]) => (a < b ? -1 : 1)),
);
