/** Keeps the site that is being left from going on: its servers are stopped wherever its API still answers. */
import type { Cloud } from "#cloud/contract.ts";
import { deadlineAfter, type Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage, type ErrorCode } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";

export type FenceMode = "stop_servers" | "epoch_only";

export interface FenceResult {
  /** The site's API answered. */
  readonly answered: boolean;
  /** Servers that were running and are stopped now. */
  readonly stopped: readonly ResourceId[];
  /** Servers that could not be stopped; empty unless the fence was forced. */
  readonly unfenced: readonly ResourceId[];
  readonly summary: string;
}

export interface FenceRequest {
  readonly cloud: Cloud;
  readonly clock: Clock;
  readonly servers: readonly ResourceId[];
  readonly mode: FenceMode;
  /** Goes on with what could not be stopped. */
  readonly force: boolean;
  /** How long the site has to answer at all, in milliseconds. */
  readonly answerWithinMs: number;
  readonly signal: AbortSignal;
}

/** These say that nothing answers there; every other error is an answer. */
const silence: ReadonlySet<ErrorCode> = new Set([
  "cloud.unreachable",
  "cloud.timeout",
  "cloud.failing",
  "cloud.protocol",
]);

/** How often a server is asked to stop while its refusals say that asking again may help. */
const attempts = 4;
const pauseMs = 250;

/**
 * Errors: `state.conflict` when the site answers but servers could not be stopped and it was not forced: going on would leave
 * two sides that both write.
 */
export async function fenceSite(request: FenceRequest): Promise<FenceResult> {
  const { cloud, clock, servers, mode, signal } = request;
  if (mode === "epoch_only") {
    const problem = await firstAnswer(cloud, request.clock, request.answerWithinMs, signal);
    const answered = problem === null || !silence.has(problem.code);
    const summary = "commands are refused by epoch; servers are left running";
    return { answered, stopped: [], unfenced: [], summary };
  }
  const stopped: ResourceId[] = [];
  let left = servers;
  let problem: OperationalError | null = null;
  for (let attempt = 1; ; attempt += 1) {
    problem = await firstAnswer(cloud, request.clock, request.answerWithinMs, signal);
    // Also when it fell silent in the midst of being fenced: a dead site is no reason to stay with it.
    if (problem !== null && silence.has(problem.code)) return silent(problem, stopped);
    if (problem !== null) break;
    const results = await stopAll(cloud, left, signal);
    stopped.push(...results.filter(({ error }) => error === null).map(({ id }) => id));
    const failed = results.flatMap(({ id, error }) => (error === null ? [] : [{ id, error }]));
    left = failed.map(({ id }) => id);
    problem = failed.at(-1)?.error ?? null;
    const passing = failed.some(({ error }) => error.retry !== "never" || error.outcome === "unknown");
    if (!passing || attempt >= attempts) break;
    await clock.sleep(pauseMs * 2 ** attempt, signal);
  }
  if (left.length > 0 && !request.force) {
    throw new OperationalError(
      "state.conflict",
      `the active site answers, but ${left.length} of its servers could not be stopped (${problem === null ? "" : publicMessage(problem)}): stop them, or go on with --force and a reason`,
      { detail: left.join(", ") },
    );
  }
  const rest = left.length === 0 ? "" : `, ${left.length} left running by force`;
  return {
    answered: true,
    stopped,
    unfenced: left,
    summary: `${stopped.length} servers stopped at the active site${rest}`,
  };
}

function silent(problem: OperationalError, stopped: readonly ResourceId[]): FenceResult {
  const before = stopped.length === 0 ? "" : ` after ${stopped.length} of its servers were stopped`;
  const summary = `the active site does not answer${before} (${problem.message}); its servers are fenced when it does`;
  return { answered: false, stopped, unfenced: [], summary };
}

async function firstAnswer(
  cloud: Cloud,
  clock: Clock,
  withinMs: number,
  signal: AbortSignal,
): Promise<OperationalError | null> {
  const patience = deadlineAfter(clock, withinMs);
  try {
    await cloud.identify(AbortSignal.any([signal, patience.signal]));
    return null;
  } catch (error) {
    signal.throwIfAborted();
    if (patience.signal.aborted)
      return new OperationalError("cloud.timeout", `no answer within ${withinMs} ms`);
    if (isOperational(error)) return error;
    throw error;
  } finally {
    patience.cancel();
  }
}

interface StopResult {
  readonly id: ResourceId;
  readonly error: OperationalError | null;
}

async function stopAll(
  cloud: Cloud,
  servers: readonly ResourceId[],
  signal: AbortSignal,
): Promise<readonly StopResult[]> {
  const waiting = [...servers];
  const results: StopResult[] = [];
  const worker = async (): Promise<void> => {
    for (let id = waiting.shift(); id !== undefined; id = waiting.shift()) {
      results.push({ id, error: await stopOne(cloud, id, signal) });
    }
  };
  await Promise.all(Array.from({ length: Math.min(cloud.facts.concurrency, servers.length) }, worker));
  return results;
}

async function stopOne(cloud: Cloud, id: ResourceId, signal: AbortSignal): Promise<OperationalError | null> {
  try {
    await cloud.update("server", id, { power: "stopped" }, signal);
    return null;
  } catch (error) {
    signal.throwIfAborted();
    // A server that is gone needs no fence.
    if (isOperational(error, "cloud.not_found")) return null;
    if (isOperational(error)) return error;
    throw error;
  }
}
