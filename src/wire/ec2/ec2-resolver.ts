/** The vocabulary of asking EC2 what became of a command whose answer was lost. */
import type { Filter } from "@aws-sdk/client-ec2";
import type { Json } from "#kernel/json.ts";
import type { Change } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";
import { ec2Changes } from "./ec2-changes.ts";
import type { KnownResources } from "./ec2-effect.ts";

/** A `Describe...` command; its answer is wanted whole, all pages together. */
export interface Ec2Question {
  readonly operation: string;
  readonly input: Readonly<Record<string, Json>>;
}

export interface Ec2UnknownCommand {
  readonly operation: string;
  /** Decoded input, with the token that went with it. */
  readonly input: unknown;
  readonly token: string | null;
  /** When it was accepted, milliseconds since the Unix epoch. */
  readonly at: number;
}

export type Ec2Resolution =
  | { readonly result: "applied"; readonly changes: readonly Change[]; readonly gaps: readonly Gap[] }
  /** The cloud shows no trace of it. */
  | { readonly result: "refused" }
  | { readonly result: "undecided"; readonly gap: Gap };

export interface ResolutionContext {
  readonly command: Ec2UnknownCommand;
  /** Ids of resources whose creation is accounted for by other commands. */
  readonly knownIds: ReadonlySet<string>;
  readonly known: KnownResources;
}

/** How one operation is asked about; `answers` come in the order of the questions. */
export interface Ec2Resolver {
  readonly ask: (input: never, command: Ec2UnknownCommand) => readonly Ec2Question[];
  readonly judge: (input: never, answers: never, context: ResolutionContext) => Ec2Resolution;
}

export type Ec2Resolvers = Readonly<Record<string, Ec2Resolver>>;

export function question(
  operation: string,
  filters: Readonly<Record<string, string | readonly string[] | undefined>> = {},
  more: Readonly<Record<string, Json>> = {},
): Ec2Question {
  const Filters = Object.entries(filters).flatMap(([Name, values]): Filter[] => {
    if (values === undefined) return [];
    return [{ Name, Values: typeof values === "string" ? [values] : [...values] }];
  });
  const filtered = Filters.length === 0 ? {} : { Filters: Filters as unknown as Json };
  return { operation, input: { ...filtered, ...more } };
}

export const refused: Ec2Resolution = { result: "refused" };

/** What the command would have told had its answer arrived. */
export function applied({ command, known }: ResolutionContext, output: unknown = {}): Ec2Resolution {
  const { changes, gaps } = ec2Changes(command.operation, command.input, output, known);
  return { result: "applied", changes, gaps };
}

export function appliedIf(
  condition: boolean,
  context: ResolutionContext,
  output: unknown = {},
): Ec2Resolution {
  return condition ? applied(context, output) : refused;
}

export function undecided(
  { command }: ResolutionContext,
  why: string,
  severity: Gap["severity"] = "lost",
): Ec2Resolution {
  return {
    result: "undecided",
    gap: {
      code: "outcome.unknown",
      severity,
      operation: `ec2:${command.operation}`,
      message: `${command.operation}: ${why}; compare the environment with the cloud`,
    },
  };
}

/**
 * A create without a token of its own: what matches, was not there before and belongs to no other command. One is
 * ours, none means that it never happened, several cannot be told apart.
 */
export function oneOf<T>(
  candidates: readonly T[],
  idOf: (candidate: T) => string | undefined,
  context: ResolutionContext,
  output: (found: T) => unknown,
): Ec2Resolution {
  const fresh = candidates.filter((candidate) => !context.knownIds.has(idOf(candidate) ?? ""));
  const [found] = fresh;
  if (found === undefined) return refused;
  if (fresh.length === 1) return applied(context, output(found));
  const ids = fresh.slice(0, 5).map(idOf).join(", ");
  return undecided(context, `${fresh.length} resources could be the one that it made (${ids})`);
}
