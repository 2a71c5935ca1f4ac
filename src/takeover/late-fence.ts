/** A site that was dead when it was left has come back: two sides must not both work. */
import { loadPairings } from "#standby/pairings.ts";
import { mainScope, readStranded } from "#takeover/commit-exchange.ts";
import type { EnvironmentRecord } from "#takeover/environment-record.ts";
import { counterpartIds } from "#takeover/exchange-roles.ts";
import { fenceSite } from "#takeover/fence.ts";
import type { RunLedger } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";

const answerWithinMs = 2000;

export class LateFence {
  readonly #stage: Stage;
  readonly #ledger: Pick<RunLedger, "event">;
  /** Epoch whose former active site was fenced after it came back. */
  #fenced: number | undefined;
  #said: string | undefined;

  constructor(stage: Stage, ledger: Pick<RunLedger, "event">) {
    this.#stage = stage;
    this.#ledger = ledger;
  }

  /** Whether the site that was left under this epoch is fenced since it answers again. */
  isFenced(epoch: number): boolean {
    return this.#fenced === epoch;
  }

  async fence({ id, standbySite, epoch }: EnvironmentRecord, signal: AbortSignal): Promise<void> {
    const { store, clock, settings } = this.#stage;
    const pairings = await loadPairings(store, { environment: id, scope: mainScope });
    // Those that could not follow have no counterpart, and run there all the same.
    const stranded = (await readStranded(store, id)).filter(({ kind }) => kind === "server");
    const result = await fenceSite({
      cloud: this.#stage.site(standbySite).cloud,
      clock,
      servers: [...counterpartIds(pairings).values(), ...stranded.map((one) => one.id)],
      mode: settings.fence,
      force: true,
      answerWithinMs,
      signal,
    });
    if (!result.answered) return;
    if (result.unfenced.length === 0) this.#fenced = epoch;
    const message = `${standbySite} answers again: ${result.summary}`;
    if (message === this.#said) return;
    this.#said = message;
    await this.#ledger.event({ environment: id, run: null, severity: "warning", message, fields: {} });
  }
}
