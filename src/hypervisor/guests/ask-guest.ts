/** What is asked of a guest's agent, each within a limit. */
import type { GuestExit, GuestProgram } from "#cloud/disk-host.ts";
import type { GuestAgent } from "#hypervisor/guest-agent.ts";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";

/** An agent that nobody spoke to for a while looks once a second. */
const pingLimitMs = 3000;
const outputTailChars = 16_384;

export async function agentAnswers(agent: GuestAgent, clock: Clock, signal: AbortSignal): Promise<boolean> {
  const limit = deadlineAfter(clock, pingLimitMs);
  try {
    await agent.ping(AbortSignal.any([signal, limit.signal]));
    return true;
  } catch (error) {
    signal.throwIfAborted();
    if (!limit.signal.aborted && !isOperational(error)) throw error;
    return false;
  } finally {
    limit.cancel();
  }
}

/** Errors: those of the agent; `machine.failing` when it does not end in time: it may run on. */
export async function runInGuest(
  agent: GuestAgent,
  { path, args, limitMs }: GuestProgram,
  clock: Clock,
  signal: AbortSignal,
): Promise<GuestExit> {
  const limit = deadlineAfter(clock, limitMs);
  try {
    const ended = await agent.exec(path, args, AbortSignal.any([signal, limit.signal]));
    return { exitCode: ended.exitCode, output: `${ended.stdout}${ended.stderr}`.slice(-outputTailChars) };
  } catch (error) {
    signal.throwIfAborted();
    if (!limit.signal.aborted) throw error;
    throw new OperationalError("machine.failing", `${path} did not end within ${limitMs} ms in the guest`, {
      outcome: "unknown",
    });
  } finally {
    limit.cancel();
  }
}
