/**
 * A change, from the caller to the cloud and back: locks, intent (durable), forward, outcome (durable), answer. Each step
 * is told apart by what a caller may conclude from a failure in it; see `Problem`.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { Journal, RecordedIntent } from "#journal/contract.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";
import type { Answer, Caller, ChangeCommand, CloudAnswer, Dialect, Problem, Verdict } from "./dialect.ts";
import { editWhole } from "./edit-answer.ts";
import type { EnvironmentLane, Upstream } from "./environment-lane.ts";
import type { FenceView, GatewayLimits } from "./gateway-options.ts";
import type { StatsRecorder } from "./gateway-stats.ts";
import type { OpenCommands } from "./open-commands.ts";
import type { Hold, LockKeys } from "./resource-locks.ts";
import { exchangeSigned } from "./send-signed.ts";

export interface ChangePorts {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly limits: GatewayLimits;
  readonly stats: StatsRecorder;
  readonly open: OpenCommands;
  readonly fence: (environment: Caller["environment"]) => FenceView;
}

/** Whether the caller still waits for the answer. */
export interface Presence {
  readonly gone: boolean;
  /** Calls back once, when the caller leaves without an answer. */
  onGone(act: () => void): void;
}

export type ChangeEnd =
  | { readonly kind: "answer"; readonly answer: Answer }
  | { readonly kind: "problem"; readonly problem: Problem }
  /** The caller left before anything was recorded: there is nothing to say and nobody to say it to. */
  | { readonly kind: "abandoned" };

interface Run {
  readonly ports: ChangePorts;
  readonly dialect: Dialect;
  readonly lane: EnvironmentLane;
  readonly caller: Caller;
  readonly command: ChangeCommand;
  readonly presence: Presence;
  readonly token: string | null;
}

/** Runs one change of an authenticated caller with the right to it. Never rejects but for a bug. */
export async function runChange(
  ports: ChangePorts,
  dialect: Dialect,
  lane: EnvironmentLane,
  caller: Caller,
  command: ChangeCommand,
  presence: Presence,
): Promise<ChangeEnd> {
  const { limits } = ports;
  if (lane.changes >= limits.changes) return problem({ kind: "overloaded", retryAfterSeconds: 1 });
  if (lane.open >= limits.open) return problem({ kind: "unreachable", environment: lane.id });
  const refused = fenced(ports, lane);
  if (refused !== undefined) return refused;
  lane.changes += 1;
  try {
    const token = tokenFor(ports, lane, caller, command);
    const run: Run = { ports, dialect, lane, caller, command, presence, token };
    const hold = await takeLocks(run);
    return "kind" in hold ? hold : await runLocked(run, hold);
  } finally {
    lane.changes -= 1;
  }
}

function tokenFor(
  ports: ChangePorts,
  lane: EnvironmentLane,
  caller: Caller,
  command: ChangeCommand,
): string | null {
  if (command.callerToken !== null || !command.takesToken) return command.callerToken;
  return lane.unanswered.take(caller.principal, command, ports.clock.now()) ?? ports.random.uuid();
}

/** A token is a resource: whatever carries the same one waits for the first to be settled. */
export function withTokenLock(keys: LockKeys, service: string, token: string | null): LockKeys {
  return token === null ? keys : { ...keys, exclusive: [...keys.exclusive, `token:${service}:${token}`] };
}

async function takeLocks(run: Run): Promise<Hold | ChangeEnd> {
  const { ports, lane, command, presence, token } = run;
  const keys = withTokenLock(command.locks, command.service, token);
  let patience: AbortController | undefined;
  const pending = lane.locks.acquire(keys, () => (patience = new AbortController()).signal);
  if (!(pending instanceof Promise)) return pending;
  presence.onGone(() => patience?.abort("gone"));
  const { lockWaitMs } = ports.limits;
  const timer = setTimeout(() => patience?.abort("late"), lockWaitMs);
  try {
    return await pending;
  } catch (reason) {
    if (reason !== "gone" && reason !== "late") throw reason;
    if (reason === "gone") return { kind: "abandoned" };
    return problem({ kind: "earlier_open", environment: lane.id, waitedMs: lockWaitMs });
  } finally {
    clearTimeout(timer);
  }
}

async function runLocked(run: Run, hold: Hold): Promise<ChangeEnd> {
  const { ports, lane, command, presence, caller, dialect, token } = run;
  let handedOver = false;
  const handOver = (intent: Intent, outcome: CommandOutcome | null): void => {
    handedOver = true;
    ports.open.adopt({ intent, lane, dialect, hold, outcome });
  };
  try {
    if (presence.gone) return { kind: "abandoned" };
    // Looked up again: an environment may have moved while this one waited for its locks.
    const refused = fenced(ports, lane);
    if (refused !== undefined) return refused;
    const upstream = lane.upstream(command.service);
    if (upstream === undefined) {
      return problem({ kind: "no_upstream", environment: lane.id, service: command.service });
    }
    const at = ports.clock.now();
    const intent: Intent = {
      id: lane.ids.next(ports.random, at),
      environment: lane.id,
      service: command.service,
      operation: command.operation,
      input: command.input,
      token,
      principal: caller.principal,
      epoch: ports.fence(lane.id).epoch,
      at,
    };
    let recorded: RecordedIntent;
    try {
      recorded = await ports.journal.recordIntent(intent);
    } catch (error) {
      return notRecorded(run, error);
    }
    const ours = token !== null && command.callerToken === null ? token : undefined;
    const remember = (): void => {
      if (ours !== undefined) lane.unanswered.remember(caller.principal, command, ours, ports.clock.now());
    };
    presence.onGone(remember);
    const end = await lane.underWay.track(command.operation, () =>
      forward(run, intent, recorded, upstream, handOver),
    );
    if (end.kind === "problem" && end.problem.kind !== "unreachable") remember();
    return end;
  } finally {
    if (!handedOver) hold.release();
  }
}

async function forward(
  run: Run,
  intent: Intent,
  recorded: RecordedIntent,
  upstream: Upstream,
  handOver: (intent: Intent, outcome: CommandOutcome | null) => void,
): Promise<ChangeEnd> {
  const { ports, dialect, command, lane, token } = run;
  const sending = { ...upstream, dialect, name: command.service, request: command.outgoing(token) };
  const exchange = await exchangeSigned(sending, ports.limits.changeAnswerBytes);
  if (!exchange.ok && exchange.sent) {
    ports.log.warn(
      { command: intent.id, operation: intent.operation, error: exchange.error },
      "a change was sent and not answered; the cloud is asked what became of it",
    );
    await recordUnknown(run, intent, null);
    handOver(intent, null);
    return problem({ kind: "no_answer", environment: lane.id, operation: command.operation });
  }
  const outcome = exchange.ok
    ? outcomeOf(await verdictOf(run, exchange.answer), exchange.answer.status, ports.clock.now())
    : outcomeOf(notSent, null, ports.clock.now());
  if (outcome.result === "unknown") {
    await recordUnknown(run, intent, outcome.status);
    handOver(intent, null);
  } else {
    try {
      await ports.journal.recordOutcome(intent.environment, intent.id, outcome, recorded);
    } catch (error) {
      ports.log.error(
        { command: intent.id, operation: intent.operation, error },
        "the outcome of a change could not be recorded: its caller is not told of success, and it stays open until it is",
      );
      handOver(intent, outcome);
      return problem({ kind: "outcome_not_recorded", full: isOperational(error, "store.full") });
    }
    ports.stats.changes[outcome.result] += 1;
  }
  return exchange.ok
    ? { kind: "answer", answer: editWhole(exchange.answer, command.edit) }
    : problem({ kind: "unreachable", environment: lane.id });
}

const notSent: Verdict = { result: "refused", errorCode: null, changes: [], gaps: [] };

/** The entry is open either way; a record that says `unknown` tells people so. Failing to write it loses nothing. */
async function recordUnknown(run: Run, intent: Intent, status: number | null): Promise<void> {
  const { ports } = run;
  ports.stats.changes.unknown += 1;
  const outcome = outcomeOf({ ...notSent, result: "unknown" }, status, ports.clock.now());
  try {
    await ports.journal.recordOutcome(intent.environment, intent.id, outcome);
  } catch (error) {
    ports.log.warn({ command: intent.id, error }, "a change is open, and the journal could not be told why");
  }
}

async function verdictOf(run: Run, answer: CloudAnswer): Promise<Verdict> {
  const { lane, dialect, command } = run;
  try {
    return await command.interpret(answer, (service, request) => lane.ask(dialect, service, request));
  } catch (error) {
    // The cloud has done something; not understanding its answer must not lose that.
    run.ports.log.error(
      { operation: run.command.operation, status: answer.status, error },
      "a cloud's answer could not be interpreted; the cloud is asked what became of the change",
    );
    return { ...notSent, result: "unknown" };
  }
}

function outcomeOf(verdict: Verdict, status: number | null, at: number): CommandOutcome {
  return { ...verdict, status, resolvedLater: false, at };
}

function notRecorded(run: Run, error: unknown): ChangeEnd {
  const { ports, lane, command } = run;
  if (isOperational(error, "state.fenced")) {
    return problem({ kind: "fenced", environment: lane.id, moved: ports.fence(lane.id).moved });
  }
  ports.log.error(
    { environment: lane.id, operation: command.operation, error },
    "the intent of a change could not be recorded: it was not forwarded",
  );
  return problem({ kind: "not_recorded", full: isOperational(error, "store.full") });
}

function fenced(ports: ChangePorts, lane: EnvironmentLane): ChangeEnd | undefined {
  const { moved } = ports.fence(lane.id);
  return moved === null ? undefined : problem({ kind: "fenced", environment: lane.id, moved });
}

function problem(what: Problem): ChangeEnd {
  return { kind: "problem", problem: what };
}
