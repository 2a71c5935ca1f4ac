/** One instant for all volumes of a group, by name. */
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Consistency } from "./log-event.ts";
import { isWhole } from "./whole-moments.ts";
import type { WriteLog } from "./write-log.ts";

/** The guest agents of the group's machines. */
export interface FreezePort {
  /** Every file system is frozen, and what the guests had written was captured, when it returns. */
  freeze(signal: AbortSignal): Promise<void>;
  /** Also after a freeze that failed or is still under way. */
  thaw(): Promise<void>;
}

export interface CutOptions {
  readonly name: string;
  /** Without it the cut is crash-consistent. */
  readonly freeze?: FreezePort;
  /** Guests stand still no longer than this; then the cut is crash-consistent, and says why. Default 10 s. */
  readonly freezeLimitMs?: number;
}

export interface Cut {
  readonly name: string;
  readonly sequence: number;
  readonly timeMs: number;
  readonly consistency: Consistency;
  /** Why it is not application-consistent although a freeze was asked for. */
  readonly reason?: string;
  /** How long the guests stood still; 0 without a freeze. */
  readonly frozenMs: number;
}

/** Errors: `state.conflict`, naming the volumes that are not whole at this moment. */
export async function cutGroup(log: WriteLog, options: CutOptions): Promise<Cut> {
  checkWhole(log);
  const { freeze } = options;
  if (freeze === undefined) return record(log, options.name, "crash", undefined, 0);
  const { clock } = log;
  const frozenAt = clock.monotonicMs();
  const failure = await tryFreeze(freeze, clock, options.freezeLimitMs ?? 10_000);
  const left = (options.freezeLimitMs ?? 10_000) - (clock.monotonicMs() - frozenAt);
  if (failure !== undefined || left <= 0) {
    await freeze.thaw();
    return record(
      log,
      options.name,
      "crash",
      failure ?? "the freeze took too long",
      clock.monotonicMs() - frozenAt,
    );
  }
  const limit = deadlineAfter(clock, left);
  try {
    const cut = record(log, options.name, "application", undefined, 0);
    // A log that hangs must not hold the guests: what was cut then is found in the log, or not.
    await Promise.race([cut, aborted(limit.signal)]);
    return { ...(await cut), frozenMs: clock.monotonicMs() - frozenAt };
  } finally {
    limit.cancel();
    await freeze.thaw();
  }
}

function checkWhole(log: WriteLog): void {
  const broken = log.volumes().filter(({ state }) => state === "synchronising");
  if (broken.length === 0 || isWhole(log.volumes())) return;
  const names = broken.map(({ id, reason }) => `${id} (${reason})`).join(", ");
  throw new OperationalError("state.conflict", `being synchronised: ${names}. Cut when that is over`);
}

/** Why it failed. */
async function tryFreeze(freeze: FreezePort, clock: Clock, limitMs: number): Promise<string | undefined> {
  const limit = deadlineAfter(clock, limitMs);
  try {
    await Promise.race([freeze.freeze(limit.signal), aborted(limit.signal)]);
    return undefined;
  } catch (error) {
    return limit.signal.aborted ? `the guests were not frozen within ${limitMs} ms` : publicMessage(error);
  } finally {
    limit.cancel();
  }
}

const aborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    const over = "the time that guests may stand still is over";
    const fail = (): void => reject(new OperationalError("aborted", over, { outcome: "unknown" }));
    if (signal.aborted) fail();
    else signal.addEventListener("abort", fail, { once: true });
  });

async function record(
  log: WriteLog,
  name: string,
  consistency: Consistency,
  reason: string | undefined,
  frozenMs: number,
): Promise<Cut> {
  checkWhole(log);
  const why = reason === undefined ? {} : { reason };
  const { sequence, timeMs } = await log.appendEvent({ type: "cut", name, consistency, ...why });
  return { name, sequence, timeMs, consistency, frozenMs, ...why };
}
