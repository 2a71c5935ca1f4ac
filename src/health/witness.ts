/**
 * A witness looks at an environment from one place on the network and reports what it sees. It decides
 * nothing: several of them together do (see `decide-failover.ts`).
 */
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { codesOf, runProbe, type Probe } from "#health/probe.ts";
import type { Notice } from "#model/notice.ts";

export interface WitnessOptions {
  readonly environment: string;
  readonly name: string;
  readonly probes: readonly Probe[];
  readonly report: (notices: readonly Notice[]) => Promise<void>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Runs every probe at its own pace until the signal aborts. A report that fails is dropped: the next look makes a fresher one. */
export async function runWitness(options: WitnessOptions, signal: AbortSignal): Promise<void> {
  await Promise.all(options.probes.map((probe) => runProbeLoop(options, probe, signal)));
}

async function runProbeLoop(options: WitnessOptions, probe: Probe, signal: AbortSignal): Promise<void> {
  const { clock, log } = options;
  let reportFailing = false;
  while (!signal.aborted) {
    const begun = clock.monotonicMs();
    try {
      const result = await runProbe(probe, signal);
      const at = clock.now();
      const notices = codesOf(probe.check).map((code): Notice => {
        const raised = !result.ok && result.code === code;
        const { environment, name: witness } = options;
        return {
          environment,
          witness,
          probe: probe.name,
          code,
          raised,
          detail: raised ? result.detail : "",
          at,
        };
      });
      await options.report(notices);
      if (reportFailing) log.info({ witness: options.name }, "reports are taken again");
      reportFailing = false;
    } catch (error) {
      if (signal.aborted) return;
      if (!reportFailing)
        log.warn({ witness: options.name, probe: probe.name, err: error }, "a report was not taken");
      reportFailing = true;
    }
    const rest = probe.everyMs - (clock.monotonicMs() - begun);
    try {
      await clock.sleep(Math.max(rest, 0), signal);
    } catch {
      return; // The only way for a sleep to fail is the signal, which ends the loop.
    }
  }
}
