/** What goes on for disks that were kept once, and are not to be any more: told to end wherever it does. */
import type { DiskHost } from "#cloud/disk-host.ts";
import { replaceGaps } from "#environment/gaps.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import { decodeExportName } from "#recovery/desk/export-name.ts";
import { diskGapCodes } from "#recovery/disk-gaps.ts";
import type { Store } from "#store/contract.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export interface EndProtectionOptions {
  readonly environment: EnvironmentId;
  /** By their sites' names. */
  readonly hosts: ReadonlyMap<string, DiskHost>;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

const retryMs = 10_000;

/** Resolves when every host has answered, or the signal aborts. */
export async function endProtection(options: EndProtectionOptions, signal: AbortSignal): Promise<void> {
  const { environment, hosts, store, clock } = options;
  await replaceGaps(store, environment, diskGapCodes, [], clock.now());
  await Promise.all(Array.from(hosts, ([site, host]) => endAt(options, site, host, signal)));
}

async function endAt(
  { environment, clock, log }: EndProtectionOptions,
  site: string,
  host: DiskHost,
  signal: AbortSignal,
): Promise<void> {
  let said = "";
  while (!signal.aborted) {
    try {
      for (const { volumeId, uri } of await host.captures(signal)) {
        if (groupOfCapture(uri) !== environment) continue;
        await host.stopCapture(volumeId, signal);
        log.info({ site, volume: volumeId }, "the environment keeps no disks any more: a capture has ended");
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (!isOperational(error)) throw error;
      const message = publicMessage(error);
      if (message !== said) log.warn({ site, code: error.code }, `captures could not be ended: ${message}`);
      said = message;
    }
    await clock.sleep(retryMs, signal).catch(() => {});
  }
}

/** The environment whose disk a capture is of; undefined: it leads somewhere else. */
export function groupOfCapture(uri: string): string | undefined {
  const name = decodeExportName(parseNbdUri(uri).exportName);
  return name?.kind === "capture" ? name.group : undefined;
}
