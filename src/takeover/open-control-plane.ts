/** The control plane over all environments: what the API asks, answered from verified parts. */
import { listGaps } from "#environment/gaps.ts";
import { readCatalogue } from "#environment/catalogue.ts";
import type { NoticeBoard } from "#health/notice-board.ts";
import { isFresh } from "#health/decide-failover.ts";
import type { Journal } from "#journal/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, runId, siteId } from "#kernel/ids.ts";
import type { Evidence } from "#model/evidence.ts";
import { noticeCodes } from "#model/notice.ts";
import type { ResourceKind } from "#model/resource.ts";
import { loadPairings } from "#standby/pairings.ts";
import { remainingQueue, type RemainingQueue } from "#standby/remaining-queue.ts";
import type { Store } from "#store/contract.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { translationFor } from "#takeover/converge-site.ts";
import type { RecoveryPoint } from "#recovery/recovery-points.ts";
import type { ProtectedDisk } from "#recovery/protect-disks.ts";
import type {
  ControlPlane,
  EnvironmentStatus,
  Finding,
  Health,
  PairingView,
  PointsView,
} from "#takeover/control.ts";
import { servingSite } from "#takeover/environment-record.ts";
import type { EnvironmentRuntime } from "#takeover/environment-runtime.ts";
import type { RunLedger, StoredRun, TimelineEvent } from "#takeover/run-ledger.ts";

export interface ControlPlanePorts {
  readonly runtimes: ReadonlyMap<string, EnvironmentRuntime>;
  readonly store: Store;
  readonly journal: Journal;
  readonly ledger: RunLedger;
  readonly notices: NoticeBoard;
  readonly clock: Clock;
  readonly disks: DiskViews;
}

/** What is known of each environment's protected disks. */
export interface DiskViews {
  disksOf(environment: string): readonly ProtectedDisk[];
  pointsOf(environment: string, signal: AbortSignal): Promise<PointsView>;
  evidenceOf(environment: string, id: string, signal: AbortSignal): Promise<Evidence>;
  createPoint(
    environment: string,
    consistency: "crash" | "application",
    signal: AbortSignal,
  ): Promise<RecoveryPoint>;
}

const eventPollMs = 100;

export function openControlPlane(ports: ControlPlanePorts): ControlPlane {
  const { runtimes, store, journal, ledger, notices, clock } = ports;

  function runtimeOf(environment: string): EnvironmentRuntime {
    const runtime = runtimes.get(environment);
    if (runtime !== undefined) return runtime;
    const names = [...runtimes.keys()].join(", ") || "none";
    throw new OperationalError(
      "not_found",
      `there is no environment "${environment}"; the environments are: ${names}`,
    );
  }

  async function runOf(id: string): Promise<StoredRun> {
    const run = await ledger.get(runId(id));
    if (run !== undefined) return run;
    throw new OperationalError("not_found", `there is no run "${id}": see "understudy run list"`);
  }

  return {
    environments: () => [...runtimes.keys()],
    status: (environment) => environmentStatus(ports, runtimeOf(environment)),
    resources(environment) {
      const all = [...runtimeOf(environment).state.resources()];
      return Promise.resolve(all.map(({ kind, id, tags, spec }) => ({ kind, id, tags, spec })));
    },
    points: (environment, signal) => ports.disks.pointsOf(runtimeOf(environment).record.id, signal),
    createPoint: (environment, consistency, signal) =>
      ports.disks.createPoint(runtimeOf(environment).record.id, consistency, signal),
    pointEvidence: (environment, id, signal) =>
      ports.disks.evidenceOf(runtimeOf(environment).record.id, id, signal),
    journal: (environment, limit, before) => journal.tail(runtimeOf(environment).record.id, limit, before),
    async pairings(environment) {
      runtimeOf(environment);
      const rows = await store.db
        .selectFrom("pairing")
        .select(["scope", "kind", "active_id", "standby_id", "state"])
        .where("environment", "=", environment)
        .where((where) => where.or([where("scope", "=", mainScope), where("scope", "like", "drill-%")]))
        .orderBy("scope")
        .orderBy("kind")
        .execute();
      return rows.map((row) => ({
        scope: row.scope,
        kind: row.kind as ResourceKind,
        activeId: row.active_id,
        standbyId: row.standby_id,
        state: row.state as PairingView["state"],
      }));
    },
    gaps: (environment) => listGaps(store, runtimeOf(environment).record.id),
    startRun: (request) => runtimeOf(request.environment).startRun(request),
    async cancelRun(id, by) {
      const run = await runOf(id);
      runtimeOf(run.environment).endRun(id, by);
      return run;
    },
    async run(id) {
      const run = await runOf(id);
      const { input: _input, ...view } = run;
      return { ...view, steps: await ledger.steps(run.id) };
    },
    runs: (environment, limit) => ledger.list(environment, limit),
    events: (environment, after, limit) => ledger.events(runtimeOf(environment).record.id, after, limit),
    async eventsAfter(environment, after, waitMs, signal) {
      const { id } = runtimeOf(environment).record;
      const deadline = clock.monotonicMs() + waitMs;
      for (;;) {
        const events: readonly TimelineEvent[] = await ledger.events(id, after, 500);
        if (events.length > 0 || signal.aborted || clock.monotonicMs() >= deadline) return events;
        await clock.sleep(eventPollMs);
      }
    },
    postNotices: (posted) => notices.post(posted),
  };
}

async function environmentStatus(
  ports: ControlPlanePorts,
  runtime: EnvironmentRuntime,
): Promise<EnvironmentStatus> {
  const { store, journal, notices, clock } = ports;
  const { record, state } = runtime;
  const { settings } = runtime.stage;
  const counts = await journal.counts(record.id);
  const pairings = await loadPairings(store, { environment: environmentId(record.id), scope: mainScope });
  const gaps = await listGaps(store, record.id);
  const resources: Partial<Record<ResourceKind, number>> = {};
  let active = 0;
  for (const { kind } of state.resources()) {
    resources[kind] = (resources[kind] ?? 0) + 1;
    if (kind === "server") active += 1;
  }
  const reserve = [...pairings.values()].filter(
    ({ kind, state: at }) => kind === "server" && at === "paired",
  ).length;
  const queue = await queueOf(ports, runtime);
  const lag = await runtime.standby?.lag();
  const now = clock.now();
  const observations = notices
    .observations(record.id)
    .filter((one) => isFresh(one, now, settings.staleAfterMs));
  const silent = settings.witnesses.filter((name) => !observations.some((one) => one.witness === name));
  const count = (severity: string): number => gaps.filter((gap) => gap.severity === severity).length;
  const findings = [
    ...silentFindings(silent, observations.length > 0),
    ...(lag?.alarm == null ? [] : [error(lag.alarm)]),
    ...unreadableFindings(runtime, queue === null),
    ...(runtime.reserveProblem === null
      ? []
      : [error(`the reserve can't be looked at: ${runtime.reserveProblem}`)]),
    ...(counts.open > 0
      ? [warning(`${counts.open} commands have no known outcome yet; the cloud is being asked`)]
      : []),
    ...(count("lost") > 0
      ? [warning(`${count("lost")} resources would be lost in a takeover: see "understudy gaps"`)]
      : []),
    ...runtime.director
      .status()
      .flatMap((route) => (route.error === null ? [] : [warning(`route ${route.route}: ${route.error}`)])),
    ...observations
      .filter(({ raised, code }) => raised && noticeCodes[code].about === "environment")
      .map(({ witness, code, detail }) => warning(`${witness} sees ${code}: ${detail}`)),
    ...(record.phase === "failed_over"
      ? [warning(`${record.activeSite} serves without a standby until a failback or a swap`)]
      : []),
  ];
  return {
    id: record.id,
    phase: record.phase,
    epoch: record.epoch,
    activeSite: record.activeSite,
    standbySite: record.standbySite,
    servingSite: servingSite(record),
    health: healthOf(runtime, findings),
    findings,
    journal: counts,
    behind: { state: counts.head - runtime.position, standby: lag?.positions ?? 0 },
    resources,
    servers: { active, reserve },
    queue: {
      creates: queue?.creates ?? 0,
      updates: queue?.updates ?? 0,
      deletes: queue?.deletes ?? 0,
      estimatedSeconds: queue?.estimatedSeconds ?? 0,
    },
    gaps: { lost: count("lost"), degraded: count("degraded"), note: count("note") },
    routes: runtime.director.status(),
    witnesses: observations,
    disks: ports.disks.disksOf(record.id),
    run: runtime.run === undefined ? null : { id: runtime.run.id, kind: runtime.run.kind },
  };
}

/** Null while a site's catalogue has never been read: then nothing can be said. */
async function queueOf(
  ports: ControlPlanePorts,
  runtime: EnvironmentRuntime,
): Promise<RemainingQueue | null> {
  const { store } = ports;
  const { activeSite, standbySite, id } = runtime.record;
  const known = await Promise.all(
    [activeSite, standbySite].map((site) => readCatalogue(store, siteId(site))),
  );
  if (known.includes(undefined)) return null;
  const translation = await translationFor(runtime.stage, {
    from: activeSite,
    to: standbySite,
    sizing: "fit",
    nameSuffix: "",
  });
  const pairings = await loadPairings(store, { environment: id, scope: mainScope });
  const desired = [...runtime.state.resources()];
  return remainingQueue({ desired, pairings, translation }, runtime.stage.site(standbySite).limiter.figures);
}

function healthOf(runtime: EnvironmentRuntime, findings: readonly Finding[]): Health {
  if (runtime.run !== undefined && runtime.run.kind !== "drill") return "moving";
  if (runtime.record.phase !== "protected") return "unprotected";
  if (findings.some(({ severity }) => severity === "error")) return "unprotected";
  return findings.some(({ severity }) => severity === "warning") ? "degraded" : "ready";
}

/** A site that is lost is no news in itself; never having known what it offers keeps everything from moving. */
function unreadableFindings(runtime: EnvironmentRuntime, unknown: boolean): readonly Finding[] {
  const named = [...runtime.unreadable].map(
    ([site, why]) => `what site "${site}" offers can't be read: ${why}`,
  );
  if (named.length === 0) return unknown ? [error("what the sites offer has not been read yet")] : [];
  return named.map((message) => (unknown ? error(message) : warning(message)));
}

function silentFindings(silent: readonly string[], othersSpeak: boolean): readonly Finding[] {
  if (silent.length === 0) return [];
  const names = silent.join(", ");
  return [warning(`${othersSpeak ? "no report from" : "no witness reports; silent:"} ${names}`)];
}

function error(message: string): Finding {
  return { severity: "error", message };
}

function warning(message: string): Finding {
  return { severity: "warning", message };
}
