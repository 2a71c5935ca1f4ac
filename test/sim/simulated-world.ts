// A whole system on one clock: two clouds, a user, three witnesses, traffic, and the real runtime over a real store. Everything
// that happens is drawn from one seed, so that a failure happens again.
import type { Cloud } from "#cloud/contract.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { createNoticeBoard, type NoticeBoard } from "#health/notice-board.ts";
import type { Journal } from "#journal/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import { environmentId } from "#kernel/ids.ts";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { silentLog } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { createCallLimiter } from "#standby/call-limiter.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { EnvironmentRuntime } from "#takeover/environment-runtime.ts";
import { openRunLedger } from "#takeover/run-ledger.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";
import type { Site } from "#takeover/stage.ts";
import { createFaultyCloud } from "#testing/faulty-cloud.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { createVirtualClock, type VirtualClock } from "#testing/virtual-clock.ts";
import type { Backend, RouteTarget, TrafficSwitch } from "#traffic/traffic-switch.ts";

import { keptTags, SimulatedDisks } from "./simulated-disks.ts";
import { type SimulatedSite, siteNames, type SiteName } from "./simulated-sites.ts";

export const environment = environmentId("shop");
const witnesses = ["one", "two", "three"];

/** A switch that remembers everything that was asked of it, and refuses what a real one refuses. */
class RecordingSwitch implements TrafficSwitch {
  readonly kind = "recording";
  readonly targets: RouteTarget[] = [];

  /** Set by tests that play one story. */
  refusal: OperationalError | undefined;

  apply(target: RouteTarget): Promise<void> {
    if (this.refusal !== undefined) return Promise.reject(this.refusal);
    const last = this.targets.at(-1);
    if (last !== undefined && target.epoch < last.epoch) {
      return Promise.reject(new OperationalError("state.fenced", "an older epoch switches nothing"));
    }
    this.targets.push(target);
    return Promise.resolve();
  }

  read(): Promise<{ backends: readonly Backend[] }> {
    return Promise.resolve({ backends: this.targets.at(-1)?.backends ?? [] });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

export class SimulatedWorld {
  readonly random: Random;
  readonly clock: VirtualClock;
  readonly store: Store;
  readonly journal: Journal;
  readonly sites: Readonly<Record<SiteName, SimulatedSite>>;
  readonly route = new RecordingSwitch();
  readonly disks = new SimulatedDisks(this);
  readonly #settings: EnvironmentSettings;
  #notices: NoticeBoard | undefined;
  #runtime: EnvironmentRuntime | undefined;

  private constructor(
    random: Random,
    clock: VirtualClock,
    store: Store,
    journal: Journal,
    settings: EnvironmentSettings,
    faults: number,
  ) {
    this.random = random;
    this.clock = clock;
    this.store = store;
    this.journal = journal;
    this.#settings = settings;
    this.sites = { east: this.#createSite("east", faults), west: this.#createSite("west", faults) };
  }

  /** @param story one that is told: nothing happens by chance, and these settings hold. */
  static async create(seed: number, story?: Partial<EnvironmentSettings>): Promise<SimulatedWorld> {
    const random = createSeededRandom(seed);
    const clock = createVirtualClock();
    const store = await openSqliteStore({ path: ":memory:", clock });
    const journal = await openJournal(store, { clock });
    const settings: EnvironmentSettings = {
      id: environment,
      active: "east",
      standby: "west",
      reserve: {
        servers: { mode: "ratio", ratio: 0.3, minimumPerGroup: 1, groupBy: "tier" },
        onlyTags: {},
        smallerTypes: random.fraction() < 0.3,
        volumes: random.fraction() < 0.5 ? "all" : "with_servers",
        recovered: keptTags,
      },
      mappings: { types: {}, images: {}, zones: {} },
      // No port is looked at: a simulated server has none.
      routes: [],
      applicationProbes: [],
      witnesses,
      triggers: [{ codes: ["cloud.api_unreachable"], witnesses: 2, forMs: 3000 }],
      fence: random.fraction() < 0.7 ? "stop_servers" : "epoch_only",
      returnPolicy: random.fraction() < 0.5 ? "wait" : "swap",
      stableForMs: 5000,
      staleAfterMs: 5000,
      ...story,
    };
    const faults = random.fraction() < 0.5 && story === undefined ? 0.03 : 0;
    const world = new SimulatedWorld(random, clock, store, journal, settings, faults);
    world.disks.byChance = story === undefined;
    return world;
  }

  get runtime(): EnvironmentRuntime {
    invariant(this.#runtime !== undefined, "the engine runs");
    return this.#runtime;
  }

  /** Starts the engine, as a process would: from nothing but what is durable. */
  async startEngine(): Promise<void> {
    const { store, clock, random, journal } = this;
    this.#notices = createNoticeBoard({
      store,
      clock,
      witnesses: new Map([[environment, new Set(witnesses)]]),
      staleAfterMs: new Map([[environment, this.#settings.staleAfterMs]]),
      onReport: () => void this.#runtime?.evaluate(),
    });
    const runtime = await EnvironmentRuntime.open({
      settings: this.#settings,
      store,
      journal,
      ledger: await openRunLedger({ store, clock, random }),
      notices: this.#notices,
      site: (name) => this.sites[name as SiteName].site,
      routes: [{ rule: { name: "web", select: { tier: "web" }, port: 80 }, through: this.route }],
      clock,
      random,
      log: silentLog,
      accepts: () => Promise.resolve(true),
      onRecord: () => Promise.resolve(),
      openDisks: (context) => this.disks.mover(context),
    });
    await runtime.start();
    this.#runtime = runtime;
  }

  /** Ends it wherever it is; what is under way is aborted, not finished. */
  async stopEngine(): Promise<void> {
    const runtime = this.#runtime;
    this.#runtime = undefined;
    await runtime?.[Symbol.asyncDispose]();
  }

  /** Every witness reports what it sees; one of them may be lying. */
  async report(liar: string | null): Promise<void> {
    const at = this.clock.now();
    for (const witness of witnesses) {
      const notices = siteNames.map((site) => {
        const raised = witness === liar ? !this.sites[site].down : this.sites[site].down;
        return {
          environment,
          witness,
          probe: `cloud@${site}`,
          code: "cloud.api_unreachable" as const,
          raised,
          detail: "",
          at,
        };
      });
      await this.#notices?.post(notices);
    }
  }

  async close(): Promise<void> {
    await this.stopEngine();
    await this.store.close();
  }

  #createSite(name: SiteName, faults: number): SimulatedSite {
    const { clock, random } = this;
    const cloud = createMemoryCloud({
      clock,
      random,
      latencyMs: 20,
      readyMs: 500,
      account: name,
      facts: name === "west" ? { publicAddressOnCreate: false } : {},
    });
    const simulated: { down: boolean } = { down: false };
    const outage = createFaultyCloud(cloud, clock, () => {
      if (simulated.down) return { type: "refuse", code: "cloud.unreachable" };
      if (random.fraction() >= faults) return undefined;
      return random.fraction() < 0.5 ? { type: "lose_answer" } : { type: "refuse", code: "cloud.failing" };
    });
    const site: Site = { name, cloud: outage, limiter: createCallLimiter(cloud.facts, clock) };
    return Object.assign(simulated, { cloud, site });
  }
}

export type { Cloud };
