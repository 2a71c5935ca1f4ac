/** A reserve that was made once is not a reserve that stands: it is looked at, and what is gone is made anew. */
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { StandbyFollower } from "#standby/follow-standby.ts";
import type { RunLedger } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";
import { describeSurvey, surveyCounterparts } from "#takeover/survey-counterparts.ts";

export interface ReserveWatchPorts {
  readonly stage: Stage;
  readonly ledger: Pick<RunLedger, "event">;
  /** Who keeps the reserve in order; undefined while nobody does, as in a run. */
  readonly standby: () => StandbyFollower | undefined;
}

const everyMs = 60_000;
const retryMs = 10_000;

export class ReserveWatch {
  readonly #ports: ReserveWatchPorts;
  #problem: string | null = null;

  constructor(ports: ReserveWatchPorts) {
    this.#ports = ports;
  }

  /** Why it could not be looked at the last time; null when it could. */
  get problem(): string | null {
    return this.#problem;
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { stage, standby: follower } = this.#ports;
    const { clock, log } = stage;
    for (;;) {
      await clock.sleep(this.#problem === null ? everyMs : retryMs, signal);
      const standby = follower();
      if (standby === undefined || (await standby.lag()).positions > 0) continue;
      await standby.pause();
      try {
        await this.#look(signal);
        this.#problem = null;
      } catch (error) {
        signal.throwIfAborted();
        if (!isOperational(error)) throw error;
        this.#problem = publicMessage(error);
        const { code, detail } = error;
        log.warn({ code, detail }, `the reserve could not be looked at: ${error.message}`);
      } finally {
        standby.resume();
      }
    }
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { stage, ledger } = this.#ports;
    const { id, standbySite, epoch } = await stage.record();
    const survey = await surveyCounterparts(stage, stage.site(standbySite), epoch, signal);
    if (survey.missing.length + survey.stopped.length === 0) return;
    const message = `the reserve at ${standbySite} is not what it was: ${describeSurvey(survey)}; it is being made whole`;
    await ledger.event({ environment: id, run: null, severity: "warning", message, fields: {} });
  }
}
