/**
 * Keeps volumes in the vault by the cloud's own snapshots, where no host agent of ours captures their writes: a set of all of them at an
 * interval, of which only what changed comes over. What stands is read from the cloud and the vault each time.
 */
import type { SnapshotSource } from "#cloud/snapshot-source.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { resourceId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { Tags } from "#model/resource.ts";
import type { DiskContext } from "#recovery/disk-mover.ts";
import { lineageOf, writeLineage } from "#recovery/kept-volumes.ts";
import type { KeptImage, VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";
import { copySnapshot } from "./copy-snapshot.ts";
import {
  environmentTag,
  type ImageCopy,
  membersTag,
  planSnapshots,
  setTag,
  type SnapshotMember,
} from "./plan-snapshots.ts";

export interface ProtectBySnapshotsOptions {
  readonly context: DiskContext;
  readonly select: Tags;
  readonly desk: VaultDesk;
  /** Undefined: the site's cloud has no such snapshots, or a host agent of ours captures its disks. */
  readonly sourceOf: (site: string) => SnapshotSource | undefined;
  /** Every site that the environment may be at. */
  readonly sites: readonly string[];
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Between two sets: what a takeover loses at most, beside the time that a set takes to come over. */
  readonly everyMs: number;
  /** The cloud's listings may lag behind by so much. */
  readonly listingLagMs?: number;
}

/** How a volume stands that is kept by snapshots. */
export interface SnapshotStatus {
  readonly everyMs: number;
  /** Instant of the last one that is whole in the vault, in milliseconds since the epoch; null: none yet. */
  readonly at: number | null;
  readonly state: "current" | "copying";
  /** Of the one that is coming over. */
  readonly copiedBytes: number;
  readonly totalBytes: number;
}

interface Member extends SnapshotMember {
  readonly lineage: string;
}

interface Round {
  readonly site: string;
  readonly source: SnapshotSource;
  readonly epoch: number;
  /** Null: whenever it is time. */
  readonly wantedSet: string | null;
}

const defaultListingLagMs = 30_000;

export class SnapshotProtection {
  readonly #options: ProtectBySnapshotsOptions;
  readonly #status = new Map<string, SnapshotStatus>();
  #problem: string | null = null;
  #takenAtMs: number | null = null;
  #turn: Promise<unknown> = Promise.resolve();
  /** Sites that were left, and have no snapshot of ours any more. */
  readonly #cleared = new Set<string>();

  constructor(options: ProtectBySnapshotsOptions) {
    this.#options = options;
  }

  /** Whether the site's volumes are kept this way. */
  covers(site: string): boolean {
    return this.#options.sourceOf(site) !== undefined;
  }

  /** Why the last look came to nothing; null: it did not. */
  get problem(): string | null {
    return this.#problem;
  }

  statusOf(volumeId: string): SnapshotStatus {
    const { everyMs } = this.#options;
    const none = { everyMs, at: null, state: "current" as const, copiedBytes: 0, totalBytes: 0 };
    return this.#status.get(volumeId) ?? none;
  }

  /** Until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, context, everyMs } = this.#options;
    const pauseMs = Math.min(Math.max(everyMs / 20, 250), 15_000);
    while (!signal.aborted) {
      const epoch = context.epoch();
      // While a run moves the environment, nothing is begun that it would have to undo.
      if (epoch !== undefined) await this.#tryRound(epoch, signal);
      await clock.sleep(pauseMs, signal).catch(() => {});
    }
  }

  /**
   * Returns when everything that was written until now is in the vault: takes a set now, and waits for it. For a site whose guests were
   * stopped.
   */
  async settle(signal: AbortSignal): Promise<void> {
    const { clock, context, desk, random, listingLagMs = defaultListingLagMs } = this.#options;
    const site = context.servingSite();
    const source = this.#options.sourceOf(site);
    if (source === undefined) throw new OperationalError("config.invalid", `"${site}" has no snapshots`);
    const wantedSet = random.hex(8);
    for (;;) {
      // The run that asks has not fenced yet: what the group's epoch is, is still ours.
      const epoch = (await desk.status(context.environment, signal))?.epoch ?? 0;
      const round = { site, source, epoch, wantedSet };
      if (await this.#inTurn(() => this.#round(round, signal))) return;
      await clock.sleep(Math.min(1000, listingLagMs), signal);
    }
  }

  async #tryRound(epoch: number, signal: AbortSignal): Promise<void> {
    const { context, log, sites, sourceOf } = this.#options;
    const site = context.servingSite();
    try {
      for (const other of sites) if (other !== site) await this.#clear(other, signal);
      this.#cleared.delete(site);
      const source = sourceOf(site);
      if (source !== undefined) {
        const round = { site, source, epoch, wantedSet: null };
        await this.#inTurn(() => this.#round(round, signal));
      }
      this.#problem = null;
    } catch (error) {
      if (signal.aborted) return;
      if (!isOperational(error)) throw error;
      const problem = publicMessage(error);
      // Said once, however often it is tried again.
      const told = problem === this.#problem ? "debug" : "warn";
      this.#problem = problem;
      log[told]({ code: error.code, detail: error.detail }, `no snapshot now: ${problem}`);
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  /** Snapshots of a site that was left are nobody's base any more. */
  async #clear(site: string, signal: AbortSignal): Promise<void> {
    const source = this.#options.sourceOf(site);
    if (source === undefined || this.#cleared.has(site)) return;
    try {
      for (const { id } of await source.list(this.#tags, signal)) await source.remove(id, signal);
      this.#cleared.add(site);
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      // It was left because it does not answer, perhaps: another time.
      this.#options.log.debug(
        { site, code: error.code },
        "snapshots of a site that was left are still there",
      );
    }
  }

  get #tags(): Readonly<Record<string, string>> {
    return { [environmentTag]: this.#options.context.environment };
  }

  /** One look, and what follows from it. True: nothing is left to be done now. */
  async #round(round: Round, signal: AbortSignal): Promise<boolean> {
    const { clock, everyMs, listingLagMs = defaultListingLagMs } = this.#options;
    const { source, wantedSet } = round;
    const members = await this.#members(round.site, signal);
    const snapshots = await source.list(this.#tags, signal);
    const seen = { members, snapshots, nowMs: clock.now(), everyMs, listingLagMs };
    const plan = planSnapshots({
      ...seen,
      ...(this.#takenAtMs === null ? {} : { takenAtMs: this.#takenAtMs }),
      ...(wantedSet === null ? {} : { wantedSet }),
    });
    for (const { id } of plan.remove) await source.remove(id, signal);
    switch (plan.next.do) {
      case "take":
        await this.#take(round, members, signal);
        return false;
      case "copy":
        for (const copy of plan.next.copies) await this.#copy(round, members, copy, signal);
        return false;
      case "wait":
        return plan.next.untilMs !== null;
    }
  }

  async #members(site: string, signal: AbortSignal): Promise<readonly Member[]> {
    const { context, select, desk, store } = this.#options;
    const { environment } = context;
    const kept = new Map((await desk.volumes(environment, signal)).map((one) => [one.volume, one]));
    const volumes = recoveredVolumes(context.state(), select);
    return Promise.all(
      volumes.map(async ({ id }) => {
        const lineage = await lineageOf(store, environment, site, id);
        const { image = null, state } = kept.get(lineage) ?? {};
        this.#see(id, image, state === "continuous");
        return { volumeId: id, lineage, image, whole: state === "continuous" };
      }),
    );
  }

  #see(volumeId: string, image: KeptImage | null, whole: boolean): void {
    const before = this.statusOf(volumeId);
    const at = whole ? (image?.atMs ?? null) : before.at;
    this.#status.set(volumeId, { ...before, at, state: whole ? "current" : before.state });
  }

  async #take({ source, wantedSet }: Round, members: readonly Member[], signal: AbortSignal): Promise<void> {
    const { random, clock, log, context } = this.#options;
    const volumeIds = members.map(({ volumeId }) => volumeId);
    const tags = {
      ...this.#tags,
      Name: `understudy ${context.environment}`,
      [setTag]: wantedSet ?? random.hex(8),
      [membersTag]: String(volumeIds.length),
    };
    const taken = await source.take({ volumeIds, tags }, signal);
    // Not of one that failed: that is tried again at the next look.
    this.#takenAtMs = clock.now();
    log.info({ snapshots: taken.map(({ id }) => id) }, "snapshots of the protected volumes were taken");
  }

  async #copy(
    { site, source, epoch }: Round,
    members: readonly Member[],
    copy: ImageCopy,
    signal: AbortSignal,
  ): Promise<void> {
    const { context, desk, store, clock, random, log, openDisk, everyMs } = this.#options;
    const { environment } = context;
    const { snapshot, base, reason, fromBytes } = copy;
    const volumeId = resourceId(copy.volumeId);
    const lineage = members.find((member) => member.volumeId === volumeId)?.lineage ?? volumeId;
    await store.commit([writeLineage(store, { environment, site, volumeId, lineage, since: clock.now() })]);
    let fetchedBytes = 0;
    const { at } = this.statusOf(volumeId);
    const onProgress = (copiedBytes: number, fetched: number): void => {
      fetchedBytes += fetched;
      const totalBytes = snapshot.sizeBytes;
      this.#status.set(volumeId, { everyMs, at, state: "copying", copiedBytes, totalBytes });
    };
    onProgress(fromBytes, 0);
    await copySnapshot(
      { source, desk, group: environment, lineage, epoch, copy, openDisk, clock, random, onProgress },
      signal,
    );
    const totalBytes = snapshot.sizeBytes;
    const current = { everyMs, at: snapshot.startedAt, state: "current" as const };
    this.#status.set(volumeId, { ...current, copiedBytes: totalBytes, totalBytes });
    const facts = { volume: volumeId, snapshot: snapshot.id, base, reason, fetchedBytes };
    log.info(facts, base === null ? "a snapshot came over as a whole" : "what changed came over");
  }
}
