/** The users' own view of the environment: every configured probe of the application, through the routes as they are now. */
import { type Probe, runProbe } from "#health/probe.ts";
import type { Clock } from "#kernel/clock.ts";

export interface ProbeFailure {
  readonly probe: string;
  readonly detail: string;
}

export interface ApplicationProbing {
  readonly probes: readonly Probe[];
  readonly clock: Clock;
  /** How long a probe may go on failing until that is the result, in milliseconds. */
  readonly patienceMs: number;
  readonly signal: AbortSignal;
}

const pauseMs = 250;

/** Those that still fail in the end, each with what it last saw; empty: users are answered as they should be. */
export async function probeApplication(request: ApplicationProbing): Promise<readonly ProbeFailure[]> {
  const { clock, signal } = request;
  const deadline = clock.monotonicMs() + request.patienceMs;
  let pending = request.probes;
  for (;;) {
    const looked = await Promise.all(
      pending.map(async (probe) => ({ probe, result: await runProbe(probe, signal) })),
    );
    const failed = looked.flatMap(({ probe, result }) => (result.ok ? [] : [{ probe, ...result }]));
    pending = failed.map(({ probe }) => probe);
    if (pending.length === 0 || clock.monotonicMs() >= deadline) {
      return failed.map(({ probe, detail }) => ({ probe: probe.name, detail }));
    }
    await clock.sleep(pauseMs, signal);
  }
}

export function describeProbes(probes: readonly Probe[], failures: readonly ProbeFailure[]): string {
  if (probes.length === 0) return "no probe of the application is configured";
  if (failures.length === 0) return `${probes.map(({ name }) => name).join(", ")}: users are answered`;
  return failures.map(({ probe, detail }) => `probe ${probe} fails: ${detail}`).join("; ");
}
