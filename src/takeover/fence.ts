/** Keeps the site that is being left from going on: its servers are stopped wherever its API still answers. */
import type { Cloud } from "#cloud/contract.ts";
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

/**
 * Errors: `state.conflict` when the site answers but servers could not be stopped and it was not forced: going on would leave
 * two sides that both write.
 */
export async function fenceSite(request: FenceRequest): Promise<FenceResult> {
  const { cloud, servers, mode, signal } = request;
  if (mode === "epoch_only") {
    return {
      answered: true,
      stopped: [],
      unfenced: [],
      summary: "commands are refused by epoch; servers are left running",
    };
  }
  const problem = await firstAnswer(cloud, request.answerWithinMs, signal);
  if (problem !== null && silence.has(problem.code)) {
    const summary = `the active site does not answer (${problem.message}); its servers are fenced when it does`;
    return { answered: false, stopped: [], unfenced: [], summary };
  }
  const stopped: ResourceId[] = [];
  const unfenced: ResourceId[] = [];
  let lastProblem = problem === null ? "" : problem.message;
  if (problem === null) {
    const results = await stopAll(cloud, servers, signal);
    for (const { id, error } of results) {
      if (error === null) stopped.push(id);
      else {
        unfenced.push(id);
        lastProblem = error;
      }
    }
  } else unfenced.push(...servers);
  if (unfenced.length > 0 && !request.force) {
    throw new OperationalError(
      "state.conflict",
      `the active site answers, but ${unfenced.length} of its servers could not be stopped (${lastProblem}): stop them, or go on with --force and a reason`,
      { detail: unfenced.join(", ") },
    );
  }
  const rest = unfenced.length === 0 ? "" : `, ${unfenced.length} left running by force`;
  return {
    answered: true,
    stopped,
    unfenced,
    summary: `${stopped.length} servers stopped at the active site${rest}`,
  };
}

async function firstAnswer(
  cloud: Cloud,
  withinMs: number,
  signal: AbortSignal,
): Promise<OperationalError | null> {
  const patience = AbortSignal.timeout(withinMs);
  try {
    await cloud.identify(AbortSignal.any([signal, patience]));
    return null;
  } catch (error) {
    signal.throwIfAborted();
    if (patience.aborted) return new OperationalError("cloud.timeout", `no answer within ${withinMs} ms`);
    if (isOperational(error)) return error;
    throw error;
  }
}

interface StopResult {
  readonly id: ResourceId;
  readonly error: string | null;
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

async function stopOne(cloud: Cloud, id: ResourceId, signal: AbortSignal): Promise<string | null> {
  try {
    await cloud.update("server", id, { power: "stopped" }, signal);
    return null;
  } catch (error) {
    signal.throwIfAborted();
    // A server that is gone needs no fence.
    if (isOperational(error, "cloud.not_found")) return null;
    if (isOperational(error)) return publicMessage(error);
    throw error;
  }
}
