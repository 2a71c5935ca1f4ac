/**
 * One environment under protection: its followers, its traffic, its runs, and the watch over it. Everything it knows is
 * durable; closed or killed at any moment, `open` goes on from there.
 */
import type { Cloud } from "#cloud/contract.ts";
import type { DiskHost } from "#cloud/disk-host.ts";
import { readCatalogue } from "#environment/catalogue.ts";
import { openJournalFollower, type JournalFollower } from "#environment/follow-journal.ts";
import { KnownNow } from "#environment/known-now.ts";
import type { Journal } from "#journal/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { environmentId, type EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import type { Run } from "#model/run.ts";
import type { NoticeBoard } from "#health/notice-board.ts";
import { loadPairings } from "#standby/pairings.ts";
import { openStandbyFollower, type StandbyFollower } from "#standby/follow-standby.ts";
import type { Store } from "#store/contract.ts";
import { epochGuard, translationFor } from "#takeover/converge-site.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import type { DiskContext, DiskMover } from "#recovery/disk-mover.ts";
import type { RunRequest } from "#takeover/control.ts";
import {
  ensureEnvironment,
  readEnvironment,
  type EnvironmentRecord,
  isAtRest,
} from "#takeover/environment-record.ts";
import { counterpartIds } from "#takeover/exchange-roles.ts";
import {
  decideNext,
  returnPolicyTrigger,
  witnessesTrigger,
  type Decision,
  type Past,
} from "#takeover/watch-environment.ts";
import { keepCatalogue } from "#takeover/keep-catalogue.ts";
import { LateFence } from "#takeover/late-fence.ts";
import { createStage } from "#takeover/create-stage.ts";
import { keptVolumes } from "#takeover/recover-disks.ts";
import { executeRun, RunEnded } from "#takeover/run-engine.ts";
import type { RunLedger, StoredRun } from "#takeover/run-ledger.ts";
import { scriptOf } from "#takeover/script-of.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";
import type { Site, Stage } from "#takeover/stage.ts";
import { selectServers, selectVolumes } from "#takeover/select-part.ts";
import { canBeEnded, givesWay, prepareRun, type RunPart } from "#takeover/start-run.ts";
import { ReserveWatch } from "#takeover/watch-reserve.ts";
import { sweepDrills } from "#takeover/sweep-drills.ts";
import {
  createTrafficDirector,
  type DirectedRoute,
  type DirectorPorts,
  type TrafficDirector,
} from "#takeover/traffic-director.ts";

export interface RuntimePorts {
  readonly settings: EnvironmentSettings;
  readonly store: Store;
  readonly journal: Journal;
  readonly ledger: RunLedger;
  readonly notices: NoticeBoard;
  readonly site: (name: string) => Site;
  readonly routes: readonly DirectedRoute[];
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** See the traffic director; a simulation has no ports. */
  readonly accepts?: DirectorPorts["accepts"];
  /** Absent: no disk's content is kept. */
  readonly openDisks?: (context: DiskContext) => DiskMover;
  /** Absent: no host agent of ours runs any site's machines. */
  readonly hostOf?: (site: string) => DiskHost | undefined;
  /** Told whenever the record changes: the gateway fences and follows by it. */
  readonly onRecord: (record: EnvironmentRecord) => Promise<void>;
}

const directEveryMs = 10_000;
const sweepEveryMs = 60_000;

export class EnvironmentRuntime {
  readonly #ports: RuntimePorts;
  readonly #id: EnvironmentId;
  readonly #follower: JournalFollower;
  /** What commands say that come in now is judged by this. */
  readonly known: KnownNow;
  readonly #director: TrafficDirector;
  readonly #stage: Stage;
  readonly #stop = new AbortController();
  readonly #loops: Promise<void>[] = [];
  #record: EnvironmentRecord;
  #standby: StandbyFollower | undefined;
  #run: StoredRun | undefined;
  /** Ends the run that is under way, before its own end. */
  #end = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #deciding = false;
  readonly #lateFence: LateFence;
  /** Site -> why its catalogue could not be read the last time. */
  readonly #unreadable = new Map<string, string>();
  readonly #reserve: ReserveWatch;
  /** Requests for a run that are being looked into. */
  #starting = 0;
  /** Over when no late fence is under way. */
  #fencing: Promise<void> = Promise.resolve();
  #runsKnown: (Pick<Past, "leftByWitnesses" | "brokeOffAt"> & { readonly epoch: number }) | undefined;

  private constructor(ports: RuntimePorts, record: EnvironmentRecord, follower: JournalFollower) {
    this.#ports = ports;
    this.#id = environmentId(ports.settings.id);
    this.#record = record;
    this.#follower = follower;
    this.known = new KnownNow(ports.journal, this.#id, follower);
    const { store, clock, log, routes } = ports;
    this.#director = createTrafficDirector({
      environment: this.#id,
      store,
      clock,
      log,
      routes,
      ...(ports.accepts === undefined ? {} : { accepts: ports.accepts }),
      cloudOf: (site) => ports.site(site).cloud,
      state: () => this.#follower.state,
      counterparts: async () =>
        counterpartIds(await loadPairings(store, { environment: this.#id, scope: mainScope })),
    });
    const disks = ports.openDisks?.({
      environment: this.#id,
      state: () => this.#follower.state,
      servingSite: () => this.#record.activeSite,
      // A disk that is written from outside is not captured meanwhile.
      epoch: () => (isAtRest(this.#record) && this.#run?.kind !== "restore" ? this.#record.epoch : undefined),
      position: () => this.#follower.position,
    });
    this.#stage = createStage({
      ...ports,
      follower,
      director: this.#director,
      disks,
      hostOf: ports.hostOf ?? (() => undefined),
    });
    this.#lateFence = new LateFence(this.#stage, ports.ledger);
    this.#reserve = new ReserveWatch({
      stage: this.#stage,
      ledger: ports.ledger,
      standby: () => (this.#run === undefined ? this.#standby : undefined),
    });
  }

  static async open(ports: RuntimePorts): Promise<EnvironmentRuntime> {
    const { settings, store, journal, clock, log } = ports;
    const record = await ensureEnvironment(store, clock, settings);
    const holder: { runtime?: EnvironmentRuntime } = {};
    const follower = await openJournalFollower({
      environment: environmentId(settings.id),
      store,
      journal,
      clock,
      log,
      cloud: () => holder.runtime?.activeCloud(),
    });
    const runtime = new EnvironmentRuntime(ports, record, follower);
    holder.runtime = runtime;
    return runtime;
  }

  /** Begins to follow, to direct traffic, and to finish what an earlier process began. */
  async start(): Promise<void> {
    await this.#ports.onRecord(this.#record);
    const { signal } = this.#stop;
    const { store, clock, log, site } = this.#ports;
    for (const name of new Set([this.#record.activeSite, this.#record.standbySite])) {
      const ports = { store, clock, log, cloud: site(name).cloud };
      const tell = (problem: string | null): void => {
        if (problem === null) this.#unreadable.delete(name);
        else this.#unreadable.set(name, problem);
      };
      this.#loop("catalogue", keepCatalogue(ports, name, tell, signal));
    }
    this.#loop("traffic", this.#director.follow(directEveryMs, signal));
    this.#loop("nudge", this.#nudgeOnChange());
    this.#loop("reserve", this.#reserve.run(signal));
    this.#loop("drills", this.#sweepDrills());
    const interrupted = (await this.#ports.ledger.running()).find((run) => run.environment === this.#id);
    // A request may have come in, and been executed, before this point.
    if (interrupted !== undefined) this.#execute(interrupted);
    else if (this.#run === undefined) await this.#openStandby();
  }

  get record(): EnvironmentRecord {
    return this.#record;
  }

  get state(): EnvironmentState {
    return this.#follower.state;
  }

  get position(): number {
    return this.#follower.position;
  }

  get standby(): StandbyFollower | undefined {
    return this.#standby;
  }

  get director(): TrafficDirector {
    return this.#director;
  }

  get stage(): Stage {
    return this.#stage;
  }

  /** Site -> why what it offers can't be read now. */
  get unreadable(): ReadonlyMap<string, string> {
    return this.#unreadable;
  }

  /** Why the reserve could not be looked at the last time; null when it could. */
  get reserveProblem(): string | null {
    return this.#reserve.problem;
  }

  get run(): StoredRun | undefined {
    return this.#run;
  }

  /** The active site while the environment is where it belongs; `undefined` while it is moved or lost. */
  activeCloud(): Cloud | undefined {
    return isAtRest(this.#record) ? this.#ports.site(this.#record.activeSite).cloud : undefined;
  }

  /** Errors: `not_found`, `input.invalid`. */
  #partOf(request: RunRequest): RunPart {
    const { kind, servers = [], volumes = [] } = request;
    const { state } = this.#follower;
    const whole = { environment: this.#id, state, kept: keptVolumes(this.#stage, state) };
    if (kind === "restore") return { volumes: selectVolumes(whole, { servers, volumes }) };
    if (servers.length + volumes.length === 0) return {};
    if (kind === "drill") return { servers: selectServers(whole, { servers, volumes }) ?? [] };
    throw new OperationalError(
      "input.invalid",
      `a ${kind} moves the environment as a whole: it takes no servers or volumes`,
    );
  }

  /** Errors: `state.conflict`, `input.invalid`, `not_found`. */
  async startRun(request: RunRequest): Promise<Run> {
    const { ledger, store, clock } = this.#ports;
    if (request.at !== undefined && this.#stage.disks === undefined) {
      throw new OperationalError(
        "input.invalid",
        `environment "${this.#id}" has no protected disks, so that there is no moment to choose: see \`protect\` in understudy.yaml`,
      );
    }
    const part = this.#partOf(request);
    this.#starting += 1;
    try {
      await this.#makeWay(request);
      // A return starts the servers that a fence under way would still stop.
      await this.#fencing;
      const { run, effects } = prepareRun(
        store,
        clock,
        await readEnvironment(store, this.#id),
        request,
        part,
      );
      const begun = await ledger.begin(run, effects);
      this.#execute(begun);
      return begun;
    } finally {
      this.#starting -= 1;
    }
  }

  /** Errors: `state.conflict` while a run is under way that does not give way to the one that is asked for. */
  async #makeWay({ kind, by }: RunRequest): Promise<void> {
    const run = this.#run;
    if (run === undefined) return;
    if (kind !== "failover" || !givesWay(run.kind)) {
      const end = canBeEnded(run.kind) ? `, or end it with "understudy run cancel ${run.id}"` : "";
      throw new OperationalError(
        "state.conflict",
        `environment "${this.#id}" is in a ${run.kind} already: see "understudy run show ${run.id}"${end}`,
      );
    }
    // Its traces are removed when there is time for that.
    this.#end.abort(new RunEnded(`gives way to a failover by ${by}`, false));
    await this.#running;
  }

  /** Ends a run that is under way, and undoes what it did; answers at once. Errors: `state.conflict`. */
  endRun(id: string, by: string): void {
    const run = this.#run;
    if (run?.id !== id) {
      throw new OperationalError("state.conflict", `run ${id} is not under way any more`);
    }
    if (!canBeEnded(run.kind)) {
      throw new OperationalError(
        "state.conflict",
        `a ${run.kind} is not ended on its way: the site that it leaves may be lost`,
      );
    }
    this.#end.abort(new RunEnded(`ended by ${by}`, true));
  }

  /** Resolves when no run is under way. */
  idle(): Promise<void> {
    return this.#running;
  }

  /** Called after every report of a witness: may fence, or begin a run. */
  async evaluate(): Promise<void> {
    if (this.#deciding || this.#starting > 0 || this.#stop.signal.aborted) return;
    if (this.#run !== undefined && !givesWay(this.#run.kind)) return;
    this.#deciding = true;
    try {
      const decision = decideNext(
        this.#ports.settings,
        this.#record,
        this.#ports.notices.observations(this.#id),
        this.#ports.clock.now(),
        await this.#past(),
      );
      if (this.#starting > 0) return;
      const isFailover = decision.next === "run" && decision.kind === "failover";
      if (this.#run === undefined || isFailover) await this.#carryOut(decision);
    } catch (error) {
      if (!isOperational(error)) throw error;
      this.#ports.log.warn({ environment: this.#id, code: error.code }, publicMessage(error));
    } finally {
      this.#deciding = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the control plane is closing"));
    await this.#running;
    await this.#closeStandby();
    await Promise.all(this.#loops);
    this.known[Symbol.dispose]();
    await this.#follower[Symbol.asyncDispose]();
  }

  async #past(): Promise<Past> {
    const { epoch } = this.#record;
    if (this.#runsKnown?.epoch !== epoch) {
      const runs = await this.#ports.ledger.list(this.#id, 50);
      const [last] = runs.filter(({ kind }) => kind !== "drill" && kind !== "restore");
      const automatic = last?.trigger === witnessesTrigger || last?.trigger === returnPolicyTrigger;
      const brokeOff = automatic && (last.state === "rolled_back" || last.state === "failed");
      this.#runsKnown = {
        epoch,
        leftByWitnesses: runs.find(({ kind }) => kind === "failover")?.trigger === witnessesTrigger,
        brokeOffAt: brokeOff ? last.finishedAt : null,
      };
    }
    const { leftByWitnesses, brokeOffAt } = this.#runsKnown;
    return { fenced: this.#lateFence.isFenced(epoch), leftByWitnesses, brokeOffAt };
  }

  async #carryOut(decision: Decision): Promise<void> {
    switch (decision.next) {
      case "nothing":
        return;
      case "run":
        await this.startRun({
          environment: this.#id,
          kind: decision.kind,
          by: decision.by,
          reason: decision.reason,
          force: false,
        });
        return;
      case "fence_source":
        await this.#exclusiveFence();
        return;
    }
  }

  async #exclusiveFence(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#fencing = promise;
    try {
      await this.#lateFence.fence(this.#record, this.#stop.signal);
    } finally {
      resolve();
    }
  }

  #execute(run: StoredRun): void {
    if (this.#run?.id === run.id) return;
    this.#run = run;
    this.#end = new AbortController();
    this.#running = this.#runToEnd(run);
  }

  /** Rejects on a bug alone, and then the process is to end: what is durable stands, and its next start goes on from it. */
  async #runToEnd(run: StoredRun): Promise<void> {
    const { ledger, clock, random, log } = this.#ports;
    const { signal } = this.#stop;
    try {
      await this.#closeStandby();
      await this.#refreshRecord();
      this.#director.nudge();
      const onStepDone = (): Promise<void> => this.#refreshRecord();
      const script = scriptOf(this.#stage, run);
      await executeRun({ ledger, clock, random, log, onStepDone }, run, script, signal, this.#end.signal);
      this.#run = undefined;
      this.#runsKnown = undefined;
      await this.#refreshRecord();
      await this.#openStandby();
      this.#director.nudge();
    } catch (error) {
      if (signal.aborted) return;
      log.error({ environment: this.#id, run: run.id, err: error }, "a run broke off");
      throw error;
    }
  }

  /** The followers see a change of roles before anything else is done with it. */
  async #refreshRecord(): Promise<void> {
    const before = this.#record;
    this.#record = await readEnvironment(this.#ports.store, this.#id);
    if (before.activeSite !== this.#record.activeSite) await this.#follower.reload();
    await this.#ports.onRecord(this.#record);
  }

  async #openStandby(): Promise<void> {
    if (this.#record.phase !== "protected" || this.#standby !== undefined || this.#stop.signal.aborted)
      return;
    const { store, journal, clock, random, log, settings } = this.#ports;
    const { activeSite, standbySite, epoch } = this.#record;
    const { cloud, limiter } = this.#ports.site(standbySite);
    this.#standby = await openStandbyFollower({
      environment: this.#id,
      store,
      journal,
      clock,
      random,
      log,
      cloud,
      limiter,
      follower: this.#follower,
      policy: settings.reserve,
      translation: async () => {
        const known = await Promise.all([activeSite, standbySite].map((site) => readCatalogue(store, site)));
        if (known.includes(undefined)) return undefined;
        return translationFor(this.#stage, {
          from: activeSite,
          to: standbySite,
          sizing: "fit",
          nameSuffix: "",
        });
      },
      guard: () => Promise.resolve([epochGuard(this.#stage, epoch)]),
    });
  }

  async #closeStandby(): Promise<void> {
    const standby = this.#standby;
    this.#standby = undefined;
    await standby?.[Symbol.asyncDispose]();
  }

  async #sweepDrills(): Promise<void> {
    const { clock, ledger } = this.#ports;
    const { signal } = this.#stop;
    for (;;) {
      await clock.sleep(sweepEveryMs, signal);
      if (this.#run !== undefined || !isAtRest(this.#record)) continue;
      await sweepDrills(this.#stage, ledger, signal);
    }
  }

  async #nudgeOnChange(): Promise<void> {
    for (;;) {
      await this.#follower.changed(this.#follower.version, this.#stop.signal);
      this.#director.nudge();
    }
  }

  #loop(name: string, work: Promise<void>): void {
    this.#loops.push(
      work.catch((error: unknown) => {
        if (this.#stop.signal.aborted) return;
        this.#ports.log.error({ environment: this.#id, loop: name, err: error }, "a loop ended by itself");
        throw error;
      }),
    );
  }
}
