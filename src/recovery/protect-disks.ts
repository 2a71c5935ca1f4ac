/**
 * Keeps the writes of an environment's disks coming into the vault, from whichever site serves: a loop that compares what is to be
 * captured with what the site's host says is, and brings the host to it. What cannot be captured is a named gap, not a log line.
 */
import type { CaptureStatus, DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import { replaceGaps } from "#environment/gaps.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { ResourceOf, Tags } from "#model/resource.ts";
import { confirmCaptures } from "#recovery/confirm-captures.ts";
import { groupOfCapture } from "#recovery/end-protection.ts";
import { asksForMoment, diskGapCodes, gapsOfDisks } from "#recovery/disk-gaps.ts";
import type { DiskContext } from "#recovery/disk-mover.ts";
import { halfWritten } from "#recovery/kept-contents.ts";
import { type PassStatus, passStatusOf } from "#recovery/intake/pass-image.ts";
import { knownLineages, lineageOf, writeLineage } from "#recovery/kept-volumes.ts";
import { newestPointAt } from "#recovery/recovery-points.ts";
import type { SnapshotProtection, SnapshotStatus } from "#recovery/snapshots/protect-by-snapshots.ts";
import type { KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";

export interface ProtectDisksOptions {
  readonly context: DiskContext;
  readonly select: Tags;
  readonly desk: VaultDesk;
  readonly hostOf: (site: string) => DiskHost | undefined;
  /** What keeps the disks of sites without a host agent, if anything does. */
  readonly snapshots?: Pick<SnapshotProtection, "covers" | "statusOf" | "problem">;
  /** Every site that the environment may be at. */
  readonly sites: readonly string[];
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** A write that the vault has held for so long is not waited for any more, in milliseconds. */
  readonly stallLimitMs: number;
  /** How often a recovery point is to be made, in milliseconds. */
  readonly pointsEveryMs: number;
}

/** How a kept disk stands, for the status. */
export interface ProtectedDisk {
  readonly volumeId: string;
  readonly lineage: string;
  readonly site: string;
  /** Null: nothing captures it. */
  readonly capture: CaptureStatus | null;
  /** How much of its content has come over, where it is or was live before that; null: it never was. */
  readonly copy: SeedStatus | null;
  /** Of a disk that is kept by its cloud's snapshots instead; else null. */
  readonly snapshot: SnapshotStatus | null;
  /** Of a disk that an agent in its guest brings; else null. */
  readonly passes: PassStatus | null;
  readonly problem: string | null;
  /** Milliseconds since the epoch. */
  readonly seenAt: number;
}

const everyMs = 1000;
const gibibyte = 1024 ** 3;

type Volume = ResourceOf<"volume">;

export class DiskProtection {
  readonly #options: ProtectDisksOptions;
  #disks: readonly ProtectedDisk[] = [];
  /** The gaps as they are recorded; null: not known yet. */
  #told: string | null = null;

  constructor(options: ProtectDisksOptions) {
    this.#options = options;
  }

  /** As last seen. */
  get disks(): readonly ProtectedDisk[] {
    return this.#disks;
  }

  /** Until the signal aborts. Each site by itself: one that was left, and hangs, keeps nobody from looking after the one that serves. */
  async run(signal: AbortSignal): Promise<void> {
    const { sites, context } = this.#options;
    await Promise.all([
      this.#repeat(async (epoch) => this.#look(epoch, signal), signal),
      ...sites.map((site) =>
        this.#repeat(async () => {
          if (context.servingSite() !== site) await this.#letGo(site, signal);
        }, signal),
      ),
    ]);
  }

  async #repeat(pass: (epoch: number) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { clock, log, context } = this.#options;
    while (!signal.aborted) {
      try {
        // While a run moves the environment, nothing is begun that it would have to undo.
        const epoch = context.epoch();
        if (epoch !== undefined) await pass(epoch);
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        log.warn({ code: error.code }, `disks could not be looked after: ${publicMessage(error)}`);
      }
      await clock.sleep(everyMs, signal).catch(() => {});
    }
  }

  async #look(epoch: number, signal: AbortSignal): Promise<void> {
    const { context, select, hostOf } = this.#options;
    const site = context.servingSite();
    const volumes = recoveredVolumes(context.state(), select);
    const host = hostOf(site);
    // First the vault, then the host: what the host says is then no older than the session that it is taken for.
    const kept = await this.#options.desk.volumes(context.environment, signal);
    const running = await this.#captures(host, signal);
    const copies = host === undefined || "problem" in running ? [] : await host.seeds(signal);
    const disks = await Promise.all(
      volumes.map((volume) => this.#lookAt(volume, { site, epoch, host, running, copies, kept }, signal)),
    );
    const moved = (): boolean => context.servingSite() !== site || context.epoch() !== epoch;
    if (moved()) return;
    await confirmCaptures(this.#options.desk, context.environment, kept, disks, signal);
    this.#disks = disks;
    if (moved()) return;
    if (host !== undefined && !("problem" in running)) await this.#letGoOthers(site, host, running, signal);
    await this.#release(site, kept, signal);
    await this.#tell(site, disks, kept, signal);
  }

  /** A site that was left, and answers again, goes on mirroring into nothing: it is told to stop. */
  async #letGo(site: string, signal: AbortSignal): Promise<void> {
    const host = this.#options.hostOf(site);
    const captures = await this.#captures(host, signal);
    if (host === undefined || "problem" in captures) return;
    for (const { volumeId, uri } of captures) {
      if (groupOfCapture(uri) !== this.#options.context.environment) continue;
      await host.stopCapture(volumeId, signal);
      this.#options.log.info({ site, volume: volumeId }, "a capture at the site that was left has ended");
    }
  }

  /** Where the environment serves, what is not to be kept any more: each write of it would go on waiting for the vault. */
  async #letGoOthers(
    site: string,
    host: DiskHost,
    captures: readonly CaptureStatus[],
    signal: AbortSignal,
  ): Promise<void> {
    const { context, select, log } = this.#options;
    const wanted = new Set<string>(recoveredVolumes(context.state(), select).map(({ id }) => id));
    for (const { volumeId, uri } of captures) {
      if (wanted.has(volumeId) || groupOfCapture(uri) !== context.environment) continue;
      await host.stopCapture(volumeId, signal);
      log.info({ site, volume: volumeId }, "a volume that is not to be kept any more is not captured");
    }
  }

  /**
   * A volume that is gone, or not to be kept any more, would hold up the moments of all others. Only what was taken in here: an agent in
   * a guest brings volumes of its own.
   */
  async #release(site: string, kept: readonly KeptVolume[], signal: AbortSignal): Promise<void> {
    const { context, select, desk, store, log } = this.#options;
    const { environment } = context;
    const known = await knownLineages(store, environment);
    const wanted = new Set<string>();
    for (const { id } of recoveredVolumes(context.state(), select)) {
      wanted.add(await lineageOf(store, environment, site, id));
    }
    for (const { volume } of kept) {
      if (wanted.has(volume) || !known.has(volume)) continue;
      await desk.release(environment, volume, signal);
      log.info({ volume }, "a volume that is gone, or not to be kept any more, was released");
    }
  }

  async #captures(
    host: DiskHost | undefined,
    signal: AbortSignal,
  ): Promise<readonly CaptureStatus[] | { readonly problem: string }> {
    if (host === undefined) return [];
    try {
      return await host.captures(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      return { problem: publicMessage(error) };
    }
  }

  async #lookAt(
    volume: Volume,
    at: {
      readonly site: string;
      readonly epoch: number;
      readonly host: DiskHost | undefined;
      readonly running: readonly CaptureStatus[] | { readonly problem: string };
      readonly copies: readonly SeedStatus[];
      readonly kept: readonly KeptVolume[];
    },
    signal: AbortSignal,
  ): Promise<ProtectedDisk> {
    const { context, desk, store, clock, stallLimitMs } = this.#options;
    const { environment } = context;
    const { site, epoch, host, running, copies, kept } = at;
    const lineage = await lineageOf(store, environment, site, volume.id);
    const copy = copies.find(({ volumeId }) => volumeId === volume.id) ?? null;
    const nowhere = { copy, snapshot: null, passes: null, seenAt: clock.now() };
    const seen = { volumeId: volume.id, lineage, site, ...nowhere };
    if (host === undefined) {
      const own = kept.find((one) => one.volume === lineage);
      return { ...seen, capture: null, ...this.#withoutHost(site, volume.id, own) };
    }
    if ("problem" in running) return { ...seen, capture: null, problem: running.problem };
    const present = running.find(({ volumeId }) => volumeId === volume.id) ?? null;
    try {
      const sizeBytes = volume.spec.sizeGiB * gibibyte;
      const { uri } = await desk.protect(environment, { volume: lineage, sizeBytes, epoch }, signal);
      if (present?.uri === uri) return { ...seen, capture: present, problem: null };
      await store.commit([
        writeLineage(store, { environment, site, volumeId: volume.id, lineage, since: clock.now() }),
      ]);
      const capture = await host.startCapture({ volumeId: volume.id, uri, stallLimitMs }, signal);
      return { ...seen, capture, problem: null };
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      return { ...seen, capture: present, problem: publicMessage(error) };
    }
  }

  #withoutHost(
    site: string,
    volumeId: string,
    kept: KeptVolume | undefined,
  ): Pick<ProtectedDisk, "snapshot" | "passes" | "problem"> {
    const { snapshots, clock, pointsEveryMs } = this.#options;
    const passes = kept && passStatusOf(kept);
    if (passes !== undefined) {
      return { snapshot: null, passes, problem: passBehind(passes, pointsEveryMs, clock.now()) };
    }
    if (snapshots?.covers(site) !== true) {
      const problem = `site "${site}" has no host agent: add its \`host\` to understudy.yaml, \`snapshots\` to the environment's \`protect\` where its cloud has them, or run \`understudy agent\` in the guest`;
      return { snapshot: null, passes: null, problem };
    }
    const snapshot = snapshots.statusOf(volumeId);
    return { snapshot, passes: null, problem: snapshots.problem ?? behind(snapshot, clock.now()) };
  }

  /** Only when something has changed, or was left behind by an earlier process. */
  async #tell(
    site: string,
    disks: readonly ProtectedDisk[],
    kept: readonly KeptVolume[],
    signal: AbortSignal,
  ): Promise<void> {
    const { context, desk, store, clock, pointsEveryMs } = this.#options;
    const { environment } = context;
    const half = await halfWritten(store, environment, site);
    const lastPointAt = await newestPointAt(store, environment);
    const facts = { disks, kept, half, lastPointAt, pointsEveryMs, now: clock.now() };
    const status = asksForMoment(facts) ? await desk.status(environment, signal) : undefined;
    const [firstMomentAt, lastMomentAt] = [status?.oldest?.at ?? null, status?.last?.at ?? null];
    const gaps = gapsOfDisks({ ...facts, firstMomentAt, lastMomentAt });
    const said = JSON.stringify(gaps);
    if (said === this.#told) return;
    await replaceGaps(store, environment, diskGapCodes, gaps, clock.now());
    this.#told = said;
  }
}

/** Null: what was agreed on holds. */
/** An agent's own interval is not known here: what a recovery point every so often promises is. */
function passBehind({ agent, at }: PassStatus, pointsEveryMs: number, now: number): string | null {
  if (at === null || now - at <= 2 * pointsEveryMs) return null;
  return `the last whole pass of agent "${agent}" is that of ${new Date(at).toISOString()}, although recovery points are to be made every ${Math.round(pointsEveryMs / 1000)} s`;
}

function behind({ at, everyMs: intervalMs }: SnapshotStatus, now: number): string | null {
  if (at === null) return "no snapshot of it is in the vault yet";
  if (now - at <= 2 * intervalMs) return null;
  return `the vault's last snapshot of it is that of ${new Date(at).toISOString()}, although one is taken every ${Math.round(intervalMs / 1000)} s`;
}
