/** What an acknowledged EC2 command means for the model, and the vocabulary that its translators share. */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";

export interface Ec2Effect {
  readonly changes: readonly Change[];
  readonly gaps: readonly Gap[];
}

/**
 * What is known of the environment before the command; `EnvironmentState` is one. Optional for callers: without it,
 * what only the environment could tell becomes a named gap.
 */
export interface KnownResources {
  get(kind: ResourceKind, id: string): Resource | undefined;
}

/** Inputs and outputs are decoded by the vendor's schema, so that a translator may name the vendor's types. */
export type Ec2Translator = (input: never, output: never, known: KnownResources) => Ec2Effect;
export type Ec2Translators = Readonly<Record<string, Ec2Translator>>;

export const nothingKnown: KnownResources = { get: () => undefined };

export const noEffect: Ec2Effect = { changes: [], gaps: [] };

export function changed(...changes: readonly Change[]): Ec2Effect {
  return { changes, gaps: [] };
}

export function joinEffects(effects: readonly Ec2Effect[]): Ec2Effect {
  return {
    changes: effects.flatMap(({ changes }) => changes),
    gaps: effects.flatMap(({ gaps }) => gaps),
  };
}

export interface FieldFinding {
  readonly severity: Gap["severity"];
  /** `IamInstanceProfile: the server would run without its role`. */
  readonly message: string;
}

const severities: readonly Gap["severity"][] = ["note", "degraded", "lost"];

/** One gap a resource and operation, since a gap is known by these: its findings are told together, the worst counts. */
export function fieldGaps(
  operation: string,
  resource: { readonly kind: ResourceKind; readonly id: string },
  findings: readonly FieldFinding[],
): Gap[] {
  if (findings.length === 0) return [];
  const worst = Math.max(...findings.map(({ severity }) => severities.indexOf(severity)));
  return [
    {
      code: "field.untranslated",
      severity: severities[worst] ?? "lost",
      resource,
      operation: `ec2:${operation}`,
      message: findings.map(({ message }) => message).join("; "),
    },
  ];
}

export function operationGap(operation: string, severity: Gap["severity"], message: string): Ec2Effect {
  const gap: Gap = { code: "operation.untranslated", severity, operation: `ec2:${operation}`, message };
  return { changes: [], gaps: [gap] };
}

export function missingReference(operation: string, message: string): Ec2Effect {
  const gap: Gap = {
    code: "reference.missing",
    severity: "lost",
    operation: `ec2:${operation}`,
    message,
  };
  return { changes: [], gaps: [gap] };
}

export const id = (text: string | undefined): ResourceId => (text ?? "") as ResourceId;
