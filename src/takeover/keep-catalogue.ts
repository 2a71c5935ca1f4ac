/** What a site offers, read again and again: when the site is lost, what was last read is all that there is. */
import type { Cloud } from "#cloud/contract.ts";
import { refreshCatalogue } from "#environment/catalogue.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { siteId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { Store } from "#store/contract.ts";

export interface CataloguePorts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly cloud: Cloud;
}

const everyMs = 10 * 60_000;
const retryMs = 2_000;

/** Until the signal aborts. `tell`: why it could not be read the last time; null when it could. */
export async function keepCatalogue(
  { store, clock, log, cloud }: CataloguePorts,
  site: string,
  tell: (problem: string | null) => void,
  signal: AbortSignal,
): Promise<void> {
  let said: string | null = null;
  while (!signal.aborted) {
    let restMs = everyMs;
    try {
      await refreshCatalogue(store, siteId(site), cloud, clock, signal);
      said = null;
    } catch (error) {
      if (signal.aborted) return;
      if (!isOperational(error)) throw error;
      if (said !== error.message) {
        const { code, detail } = error;
        log.warn({ site, code, detail }, `what the site offers could not be read: ${error.message}`);
      }
      said = error.message;
      restMs = retryMs;
    }
    tell(said);
    await clock.sleep(restMs, signal);
  }
}
