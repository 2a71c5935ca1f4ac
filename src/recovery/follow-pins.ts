/**
 * Ends the pins of moments that disks have taken all of, and makes anew those that the vault has forgotten with its folder. A disk that was
 * given its content at once reads it from the vault until its host has brought it over; only the host knows when that is, and nobody
 * else is there to say it: the run has ended long before.
 */
import type { DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import { decodeExportName } from "#recovery/desk/export-name.ts";
import type { PinnedMoment, VaultDesk } from "#recovery/vault-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export interface FollowPinsOptions {
  readonly environment: EnvironmentId;
  readonly desk: Pick<VaultDesk, "pins" | "pin" | "unpin">;
  readonly hostOf: (site: string) => DiskHost | undefined;
  readonly sites: readonly string[];
  readonly clock: Clock;
  readonly log: Log;
}

const everyMs = 5000;
/**
 * A pin is asked for before the host is told of it, and asked for again by a run that goes on after a crash: one that no host knows so
 * long after that is wanted by nobody, in milliseconds.
 */
const unclaimedMs = 10 * 60_000;

export class PinFollower {
  readonly #options: FollowPinsOptions;

  constructor(options: FollowPinsOptions) {
    this.#options = options;
  }

  /** Until the signal aborts. Each site by itself: a host that does not answer keeps no other's disks waiting. */
  async run(signal: AbortSignal): Promise<void> {
    await Promise.all(this.#options.sites.map((site) => this.#follow(site, signal)));
  }

  async #follow(site: string, signal: AbortSignal): Promise<void> {
    const { clock, log } = this.#options;
    while (!signal.aborted) {
      try {
        await this.#look(site, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        log.debug({ site, code: error.code }, `pins are left as they are: ${publicMessage(error)}`);
      }
      await clock.sleep(everyMs, signal).catch(() => {});
    }
  }

  async #look(site: string, signal: AbortSignal): Promise<void> {
    const { environment, desk, hostOf, clock, log } = this.#options;
    const host = hostOf(site);
    if (host === undefined) return;
    const pins = (await desk.pins(environment, signal)).filter(({ taker }) => taker.site === site);
    const seeds = await host.seeds(signal);
    for (const pin of planPin(environment, pins, seeds)) await this.#pinAgain(site, pin, signal);
    for (const pin of planUnpin(pins, seeds, clock.now())) {
      await desk.unpin(environment, pin, signal);
      const { volume, taker, sequence } = pin;
      log.info(
        { site, volume, taker: taker.volumeId, sequence },
        "a disk has all of its moment: it is let go",
      );
    }
  }

  /** A moment that is lost with the folder keeps no other from being pinned. */
  async #pinAgain(
    site: string,
    { volume, sequence, volumeId, at }: WantedPin,
    signal: AbortSignal,
  ): Promise<void> {
    const { environment, desk, log } = this.#options;
    try {
      await desk.pin(environment, volume, { sequence, at }, { site, volumeId }, signal);
      log.warn({ site, volume, taker: volumeId, sequence }, "the vault is told again who reads a moment");
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      log.debug({ site, volume, taker: volumeId, sequence, code: error.code }, publicMessage(error));
    }
  }
}

interface WantedPin {
  readonly volume: string;
  readonly sequence: number;
  readonly at: number;
  readonly volumeId: string;
}

/** What disks of one site read of the environment's moments, and the vault does not know of. Pure. */
export function planPin(
  environment: EnvironmentId,
  pins: readonly PinnedMoment[],
  seeds: readonly SeedStatus[],
): readonly WantedPin[] {
  return seeds.flatMap(({ volumeId, uri, state }) => {
    const name = decodeExportName(parseNbdUri(uri).exportName);
    if (state === "done" || name?.kind !== "moment" || name.group !== environment) return [];
    const { volume, sequence } = name;
    const isKnown = pins.some(
      (pin) => pin.volume === volume && pin.sequence === sequence && pin.taker.volumeId === volumeId,
    );
    // A moment is told by its record; its time is for people.
    return isKnown ? [] : [{ volume, sequence, at: 0, volumeId }];
  });
}

/** Those of one site's pins that nobody needs any more. Pure. */
export function planUnpin(
  pins: readonly PinnedMoment[],
  seeds: readonly SeedStatus[],
  nowMs: number,
): readonly PinnedMoment[] {
  return pins.filter(({ taker, uri, since }) => {
    // By what is read, not by the way there, which may have changed since.
    const name = parseNbdUri(uri).exportName;
    const seed = seeds.find(
      (one) => one.volumeId === taker.volumeId && parseNbdUri(one.uri).exportName === name,
    );
    return seed === undefined ? since < nowMs - unclaimedMs : seed.state === "done";
  });
}
