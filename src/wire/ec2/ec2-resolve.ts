/**
 * A command was sent and its answer never came. Before anything is repeated, EC2 is asked what happened: here is what
 * to ask, and what the answers mean. Pure; the caller makes the calls, once the sent request can no longer be under
 * way (its own time-out has passed), since a request still in flight would look like one that was refused.
 */
import { nothingKnown } from "./ec2-effect.ts";
import type { KnownResources } from "./ec2-effect.ts";
import { ec2Changes } from "./ec2-changes.ts";
import { createResolvers } from "./ec2-create-resolvers.ts";
import { groupResolvers } from "./ec2-group-resolvers.ts";
import type { Ec2Question, Ec2Resolution, Ec2Resolver, Ec2UnknownCommand } from "./ec2-resolver.ts";
import { undecided } from "./ec2-resolver.ts";
import { stateResolvers } from "./ec2-state-resolvers.ts";

const resolvers: ReadonlyMap<string, Ec2Resolver> = new Map(
  Object.entries<Ec2Resolver>({ ...createResolvers, ...stateResolvers, ...groupResolvers }),
);

export interface Ec2ResolutionPlan {
  readonly questions: readonly Ec2Question[];
  /**
   * The cloud knows the command by its token and would do it at most once: repeating it is safe, yet only where its
   * questions leave it undecided.
   */
  readonly repeatable: boolean;
}

/** Operations whose `ClientToken` EC2 honours. */
const honoursToken: ReadonlySet<string> = new Set(["RunInstances", "CreateVolume"]);

export function planEc2Resolution(command: Ec2UnknownCommand): Ec2ResolutionPlan {
  const resolver = resolvers.get(command.operation);
  return {
    questions: resolver?.ask((command.input ?? {}) as never, command) ?? [],
    repeatable: command.token !== null && honoursToken.has(command.operation),
  };
}

/** `answers` in the order of the plan's questions. `knownIds`: what other commands are known to have made. */
export function judgeEc2Resolution(
  command: Ec2UnknownCommand,
  answers: readonly unknown[],
  knownIds: ReadonlySet<string>,
  known: KnownResources = nothingKnown,
): Ec2Resolution {
  const context = { command, knownIds, known };
  const resolver = resolvers.get(command.operation);
  if (resolver !== undefined) {
    return resolver.judge((command.input ?? {}) as never, answers as never, context);
  }
  // What it would have meant is no more than these gaps; whether it happened remains open.
  const { gaps } = ec2Changes(command.operation, command.input, {}, known);
  return undecided(context, "it cannot be asked what became of it", gaps[0]?.severity ?? "note");
}

/** Asks EC2; follows `NextToken`. */
export type AskEc2 = (operation: string, input: Ec2Question["input"]) => Promise<unknown>;

type Answer = Readonly<Record<string, unknown>>;

/** Lists of later pages follow those of earlier ones. */
function joinPages(pages: readonly Answer[]): Answer {
  const whole: Record<string, unknown> = {};
  for (const page of pages) {
    for (const [member, value] of Object.entries(page)) {
      const before = whole[member];
      whole[member] = Array.isArray(before) && Array.isArray(value) ? [...before, ...value] : value;
    }
  }
  return whole;
}

async function askAll(ask: AskEc2, { operation, input }: Ec2Question): Promise<Answer> {
  const pages: Answer[] = [];
  let token: unknown;
  do {
    const more = typeof token === "string" ? { NextToken: token } : {};
    const page = ((await ask(operation, { ...input, ...more })) ?? {}) as Answer;
    pages.push(page);
    token = page["NextToken"];
  } while (typeof token === "string" && token !== "");
  return joinPages(pages);
}

/** Plan, ask, judge. Errors of `ask` are the caller's: the outcome stays unknown then. */
export async function resolveEc2Outcome(
  command: Ec2UnknownCommand,
  ask: AskEc2,
  knownIds: ReadonlySet<string>,
  known: KnownResources = nothingKnown,
): Promise<Ec2Resolution> {
  const answers: Answer[] = [];
  for (const one of planEc2Resolution(command).questions) answers.push(await askAll(ask, one));
  return judgeEc2Resolution(command, answers, knownIds, known);
}

export type { Ec2Question, Ec2Resolution, Ec2UnknownCommand } from "./ec2-resolver.ts";
