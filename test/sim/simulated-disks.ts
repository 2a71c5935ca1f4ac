// Contents of disks in a simulated world: a number that guests raise, a vault that keeps each one, and the mover between both. What a
// guest finds on a disk is checked whenever it writes: nobody may run on a disk that is not his.
import assert from "node:assert/strict";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Random } from "#kernel/random.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { Tags } from "#model/resource.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type {
  DiskContext,
  DiskMoment,
  DiskMover,
  MovedDisk,
  RestoreReport,
  Settled,
} from "#recovery/disk-mover.ts";
import { contentOf, type KeptContent, writeContent } from "#recovery/kept-contents.ts";
import type { Store } from "#store/contract.ts";
import type { EnvironmentRuntime } from "#takeover/environment-runtime.ts";
import { type SimulatedSite, siteNames, type SiteName } from "./simulated-sites.ts";

/** What a guest that nobody asks any more adds: told from any number of honest writes. */
const stray = 1_000_000;
/** What a disk holds that is part old and part new: told from anything that was ever written. */
const torn = -1_000_000_000;
const settleWithinMs = 20_000;

export const keptTags: Tags = { keep: "vault" };

/** What disks need of the world that they are in. */
export interface WorldOfDisks {
  readonly clock: Clock;
  readonly random: Random;
  readonly store: Store;
  readonly sites: Readonly<Record<SiteName, SimulatedSite>>;
  readonly runtime: Pick<EnvironmentRuntime, "record" | "state">;
}

/** What a call of the mover meets; undefined: what it meets by chance. */
export type DiskTrouble = (call: {
  readonly what: "moment" | "settle" | "seed" | "check" | "restore" | "accept" | "torn_restore";
  readonly volume: string | null;
}) => OperationalError | undefined;

export class SimulatedDisks {
  readonly #world: WorldOfDisks;
  /** Set by tests that play one story. */
  trouble: DiskTrouble = () => undefined;
  /** Whether hosts are silent, and restores break off, now and then. */
  byChance = true;
  /** How long it takes to give a disk its content. */
  fillMs = 0;
  readonly #filling = new Set<string>();
  /** `site/volume` -> what it holds; absent: nothing was ever written. */
  readonly #contents = new Map<string, number>();
  /** `site/volume` -> the id that it was first captured under. */
  readonly #lineages = new Map<string, string>();
  /** `site/volume` -> the epoch in which it was given its content last: a guest that runs on it was started since. */
  readonly #filled = new Map<string, number>();
  /** Lineage -> every content that was captured, with its place in the one sequence. */
  readonly #captured = new Map<string, { readonly sequence: number; readonly content: number }[]>();
  /** Site -> the fencing epoch that its disks are captured under. */
  readonly #capturing = new Map<string, number>();
  #sequence = 0;
  #epoch = 0;
  /** Guests that wrote, restores that changed something: a simulation without them shows nothing. */
  readonly met = { writes: 0, strays: 0, seeds: 0, restores: 0, torn: 0 };

  constructor(world: WorldOfDisks) {
    this.#world = world;
  }

  /** Every running guest with a kept disk writes once: captured where the environment is served, in vain where it was left. */
  write(): void {
    const { runtime, sites } = this.#world;
    const { phase, activeSite, standbySite, epoch } = runtime.record;
    if (phase === "protected" || phase === "failed_over") this.#capturing.set(activeSite, epoch);
    for (const site of siteNames) {
      if (sites[site].down) continue;
      // A capture goes on under its own epoch until it is fenced.
      const serves = site === activeSite && (this.#capturing.get(site) ?? -1) >= this.#epoch;
      for (const volumeId of this.#runningDisks(site)) {
        const key = `${site}/${volumeId}`;
        const isHome = phase === "failing_back" && this.#filled.get(key) === epoch;
        if ((phase === "failing_over" || phase === "migrating" || isHome) && site === standbySite) {
          // Live already, but only captured once the run has committed.
          this.#contents.set(key, 1 + (this.#contents.get(key) ?? 0));
          continue;
        }
        if (!serves) {
          // Whatever a guest does that nobody asks any more: it must be gone when the disk serves again.
          this.#contents.set(key, stray + (this.#contents.get(key) ?? 0));
          this.met.strays += 1;
          continue;
        }
        const lineage = this.#lineageOf(site, volumeId);
        const found = this.#contents.get(key) ?? 0;
        this.#checkIsLast(found, lineage, site);
        this.#sequence += 1;
        const content = found + 1;
        this.#contents.set(key, content);
        this.#historyOf(lineage).push({ sequence: this.#sequence, content });
        this.met.writes += 1;
      }
    }
  }

  /** In the end: every kept disk of the environment holds what was captured last. */
  judge(): void {
    const { runtime } = this.#world;
    const site = runtime.record.activeSite as SiteName;
    for (const { id } of recoveredVolumes(runtime.state, keptTags)) {
      const lineage = this.#lineageOf(site, id);
      this.#checkIsLast(this.#contents.get(`${site}/${id}`) ?? 0, lineage, site);
    }
  }

  mover({ servingSite, environment, state }: DiskContext): DiskMover {
    const { clock, store } = this.#world;
    const remember = (
      site: string,
      volumeId: MovedDisk["targetId"],
      content: KeptContent,
    ): Promise<unknown> => {
      const lineage = this.#lineageOf(site as SiteName, volumeId);
      return store.commit([
        writeContent(store, { environment, site, volumeId, lineage, content, at: clock.now() }),
      ]);
    };
    const restore = async (site: string, disk: MovedDisk, moment: DiskMoment): Promise<RestoreReport> => {
      this.#refuse("restore", disk.sourceId);
      await remember(site, disk.targetId, "half");
      const differed = await this.#fill(servingSite() as SiteName, site as SiteName, disk, moment);
      await remember(site, disk.targetId, { sequence: moment.sequence });
      if (differed) this.met.restores += 1;
      return { comparedBytes: 1, writtenBytes: differed ? 1 : 0 };
    };
    return {
      moment: async () => {
        this.#refuse("moment", null);
        return { sequence: this.#sequence, at: clock.now() };
      },
      settle: (volumes, signal) =>
        this.#settle(
          servingSite() as SiteName,
          recoveredVolumes(state(), keptTags).flatMap(({ id }) => (volumes?.has(id) === false ? [] : [id])),
          signal,
        ),
      fence: (epoch) => {
        this.#epoch = Math.max(this.#epoch, epoch);
        return Promise.resolve();
      },
      seed: async (site, disk, moment) => {
        this.#refuse("seed", disk.sourceId);
        if (this.#contents.has(`${site}/${disk.targetId}`)) {
          await restore(site, disk, moment);
          return;
        }
        if (await this.#fill(servingSite() as SiteName, site as SiteName, disk, moment)) this.met.seeds += 1;
        await remember(site, disk.targetId, { sequence: moment.sequence });
      },
      given: (site, volumeId) => contentOf(store, { environment, site, volumeId }),
      check: async (site, { sourceId }) => {
        this.#refuse("check", sourceId);
        await this.#reach(site as SiteName);
      },
      restore,
      accept: async (site, volumeId) => {
        this.#refuse("accept", volumeId);
        if ((await contentOf(store, { environment, site, volumeId })) === "half")
          await remember(site, volumeId, null);
      },
      replace: async (site, disk, { moment }) => {
        if (await this.#fill(servingSite() as SiteName, site as SiteName, disk, moment))
          this.met.restores += 1;
        await remember(site, disk.targetId, { sequence: moment.sequence });
      },
    };
  }

  #refuse(what: Parameters<DiskTrouble>[0]["what"], volume: string | null): void {
    const error = this.trouble({ what, volume });
    if (error !== undefined) throw error;
  }

  async #reach(site: SiteName): Promise<void> {
    const { clock, random, sites } = this.#world;
    await clock.sleep(20);
    if (sites[site].down || (this.byChance && random.fraction() < 0.02)) {
      throw new OperationalError("cloud.unreachable", `the host of ${site} does not answer`);
    }
  }

  /** A host that does not answer is asked again for a while, as the real one is. */
  async #settle(site: SiteName, volumes: readonly ResourceId[], signal: AbortSignal): Promise<Settled> {
    const { clock } = this.#world;
    const until = clock.now() + settleWithinMs;
    for (;;) {
      try {
        this.#refuse("settle", null);
        await this.#reach(site);
        return { behind: [], silence: null };
      } catch (error) {
        if (!isOperational(error)) throw error;
        const problem = error.message;
        if (clock.now() >= until) {
          return { behind: volumes.map((volumeId) => ({ volumeId, problem })), silence: problem };
        }
        await clock.sleep(500, signal);
      }
    }
  }

  /** Answers whether it held something else. */
  async #fill(from: SiteName, site: SiteName, disk: MovedDisk, moment: DiskMoment): Promise<boolean> {
    const { sourceId, targetId } = disk;
    const key = `${site}/${targetId}`;
    assert.ok(!this.#filling.has(key), `${targetId} at ${site} is written by two at once`);
    this.#filling.add(key);
    try {
      await this.#world.clock.sleep(this.fillMs);
      await this.#reach(site);
    } finally {
      this.#filling.delete(key);
    }
    assert.ok(
      !this.#runningDisks(site).has(targetId),
      `${targetId} at ${site} is written to while a guest runs on it`,
    );
    const before = this.#contents.get(key);
    const error =
      this.trouble({ what: "torn_restore", volume: sourceId }) ??
      (this.byChance && this.#world.random.fraction() < 0.05
        ? new OperationalError("nbd.unreachable", "the vault went away half-way")
        : undefined);
    if (before !== undefined && error !== undefined) {
      this.#contents.set(key, torn);
      this.met.torn += 1;
      throw error;
    }
    const lineage = this.#lineageOf(from, sourceId);
    const content = this.#at(lineage, moment.sequence);
    this.#contents.set(key, content);
    this.#filled.set(key, this.#world.runtime.record.epoch);
    this.#lineages.set(key, lineage);
    return (before ?? 0) !== content;
  }

  /** What a disk holds; undefined: nothing was ever written to it. */
  contentAt(site: SiteName, volumeId: string): number | undefined {
    return this.#contents.get(`${site}/${volumeId}`);
  }

  /** Ids of kept disks that a running server of the site has. */
  #runningDisks(site: SiteName): ReadonlySet<string> {
    const all = this.#world.sites[site].cloud.inspect.resources();
    const running = new Set(
      all.flatMap((one) => (one.kind === "server" && one.spec.power === "running" ? [one.id] : [])),
    );
    const kept = new Set(
      all.flatMap((one) => (one.kind === "volume" && one.tags["keep"] === keptTags["keep"] ? [one.id] : [])),
    );
    return new Set(
      all.flatMap((one) =>
        one.kind === "volumeAttachment" && running.has(one.spec.serverId) && kept.has(one.spec.volumeId)
          ? [one.spec.volumeId]
          : [],
      ),
    );
  }

  /** Nothing captured is missing, and nothing is in it that a guest wrote elsewhere. */
  #checkIsLast(found: number, lineage: string, site: SiteName): void {
    const last = this.#last(lineage);
    assert.ok(
      found >= last && found < last + stray,
      `${lineage} at ${site} holds ${found}, and ${last} was captured last`,
    );
  }

  #lineageOf(site: SiteName, volumeId: string): string {
    return this.#lineages.get(`${site}/${volumeId}`) ?? volumeId;
  }

  #historyOf(lineage: string): { readonly sequence: number; readonly content: number }[] {
    const history = this.#captured.get(lineage) ?? [];
    this.#captured.set(lineage, history);
    return history;
  }

  #last(lineage: string): number {
    return this.#captured.get(lineage)?.at(-1)?.content ?? 0;
  }

  #at(lineage: string, sequence: number): number {
    return this.#captured.get(lineage)?.findLast((one) => one.sequence <= sequence)?.content ?? 0;
  }
}
