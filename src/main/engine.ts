/** The control plane in one process: store, journal, gateway, environments, API; opened bottom up, closed top down. */
import { join } from "node:path";
import type { ApiToken } from "#api/api-auth.ts";
import { startApi } from "#api/api-server.ts";
import { tokenFileName } from "#cli/api-client.ts";
import type { Config } from "#config/config-schema.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { openAccessKeys } from "#gateway/access-keys.ts";
import { openAwsDialect } from "#gateway/aws/aws-dialect.ts";
import type { Dialect, MovedTo, Upstreams } from "#gateway/dialect.ts";
import { createOpenstackDialect } from "#gateway/openstack/openstack-dialect.ts";
import { startGateway, type Gateway } from "#gateway/start-gateway.ts";
import { createNoticeBoard, type NoticeBoard } from "#health/notice-board.ts";
import { runWitness } from "#health/witness.ts";
import { openJournal } from "#journal/open-journal.ts";
import type { Clock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { Secret } from "#kernel/secret.ts";
import { checkStanding } from "#main/check-standing.ts";
import { DiskRooms } from "#main/disk-rooms.ts";
import { collectMetrics } from "#main/metrics.ts";
import { openCloud } from "#main/open-cloud.ts";
import { openSwitch } from "#main/open-switch.ts";
import { openOperatorToken } from "#main/operator-token.ts";
import { probesOf, settingsOf, witnessNames } from "#main/settings-of.ts";
import { upstreamsOf } from "#main/upstreams-of.ts";
import { createCallLimiter } from "#standby/call-limiter.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { openControlPlane } from "#takeover/open-control-plane.ts";
import { EnvironmentRuntime } from "#takeover/environment-runtime.ts";
import {
  ensureEnvironment,
  servingSite,
  type EnvironmentRecord,
  isAtRest,
} from "#takeover/environment-record.ts";
import { openRunLedger } from "#takeover/run-ledger.ts";
import type { Site } from "#takeover/stage.ts";

export interface EngineOptions {
  readonly config: Config;
  /** Where the configuration stands: secrets named by relative path are found from there. */
  readonly folder: string;
  readonly version: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** After each durable batch; see the store. */
  readonly onCommit?: (count: number) => void;
}

export interface Engine {
  readonly gatewayUrl: string;
  readonly apiUrl: string;
  close(): Promise<void>;
}

/** What each environment's requests are told while it is elsewhere. */
interface Standing {
  record: EnvironmentRecord;
  readonly upstreams: ReadonlyMap<string, Upstreams>;
}

/** Errors: `config.*`, `store.*`, `port.*`: nothing stays open then. */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const stack = new AsyncDisposableStack();
  try {
    const urls = await openAll(options, stack);
    const opened = stack.move();
    return { ...urls, close: () => opened.disposeAsync() };
  } catch (error) {
    await stack.disposeAsync();
    throw error;
  }
}

async function openAll(options: EngineOptions, stack: AsyncDisposableStack): Promise<Omit<Engine, "close">> {
  const { config, folder, clock, random, log, version } = options;
  const token = await openOperatorToken(config.data, tokenFileName, random);
  const store = await openSqliteStore({
    path: join(config.data, "understudy.db"),
    serving: true,
    log,
    clock,
    ...(options.onCommit === undefined ? {} : { onCommit: options.onCommit }),
  });
  stack.defer(() => store.close());
  const journal = await openJournal(store, { clock });
  const ledger = await openRunLedger({ store, clock, random });
  const sites = openSites(options, stack);
  const standings = await openStandings(options, store);
  const keys = await openAccessKeys(join(config.data, "access-keys.json"), { clock, random });
  const disks = new DiskRooms(config, {
    store,
    clock,
    random,
    log,
    snapshotsOf: (name) => siteOf(sites, name).cloud.snapshots,
  });
  stack.use(disks);
  const runtimes = new Map<string, EnvironmentRuntime>();
  let gateway: Gateway | undefined;
  const notices = createNoticeBoard({
    store,
    clock,
    witnesses: new Map(
      Object.entries(config.environments).map(([id, environment]) => [
        id,
        new Set(witnessNames(environment)),
      ]),
    ),
    staleAfterMs: new Map(
      Object.entries(config.environments).map(([id, environment]) => [
        id,
        settingsOf(id, environment).staleAfterMs,
      ]),
    ),
    onReport: (id) => void runtimes.get(id)?.evaluate(),
  });
  for (const [id, environment] of Object.entries(config.environments)) {
    const settings = settingsOf(id, environment, folder);
    const routes = [];
    for (const route of environment.traffic) {
      const through = await openSwitch(route, { environment: id, folder, data: config.data, log });
      stack.use(through);
      const rule = settings.routes.find(({ name }) => name === route.name);
      invariant(rule !== undefined, "every route of the configuration is in the settings");
      routes.push({ rule, through });
    }
    const openDisks = disks.moverOf(id);
    const runtime = await EnvironmentRuntime.open({
      settings,
      store,
      journal,
      ledger,
      notices,
      site: (name) => siteOf(sites, name),
      routes,
      clock,
      random,
      log: log.child({ environment: id }),
      hostOf: (name) => disks.hostOf(name),
      onRecord: (record) => follow(gateway, standings, record),
      ...(openDisks === undefined ? {} : { openDisks }),
    });
    stack.use(runtime);
    runtimes.set(id, runtime);
  }
  const dialects: Dialect[] = [
    createOpenstackDialect({
      keys,
      clock,
      random,
      known: (id) => (kind, name) => knownTo(runtimes, id).get(kind, name),
    }),
    // The last one takes what no other claims.
    await openAwsDialect({ keys, clock, random, known: (id) => knownTo(runtimes, id) }),
  ];
  gateway = await startGateway({
    listen: config.listen.gateway,
    environments: [...standings].map(([id, standing]) => ({
      id: environmentId(id),
      services: servicesOf(standing),
    })),
    dialects,
    journal,
    fence: (id) => fenceView(standings, id),
    clock,
    random,
    log,
  });
  const opened = gateway;
  stack.use(opened);
  const controlPlane = openControlPlane({ runtimes, store, journal, ledger, notices, clock, disks });
  const api = await startApi({
    listen: config.listen.api,
    controlPlane,
    tokens: apiTokens(config, folder, token),
    probesOf: (id) => {
      const environment = config.environments[id];
      return environment === undefined ? [] : probesOf(config, environment);
    },
    metrics: () => collectMetrics(controlPlane, opened),
    version,
    log,
  });
  stack.defer(() => api.close());
  for (const runtime of runtimes.values()) await runtime.start();
  disks.start();
  stack.defer(startLocalWitnesses(options, notices));
  return { gatewayUrl: opened.address, apiUrl: urlOf(api.address) };
}

function urlOf({ host, port }: { readonly host: string; readonly port: number }): string {
  return `http://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function apiTokens(config: Config, folder: string, operator: Secret): readonly ApiToken[] {
  const tokens: ApiToken[] = [{ caller: { role: "operator", name: "operator" }, token: operator }];
  for (const [environment, { witnesses }] of Object.entries(config.environments)) {
    for (const witness of witnesses) {
      if (witness === "engine") continue;
      const { name } = witness;
      tokens.push({
        caller: { role: "witness", name, environment },
        token: resolveSecret(witness.token, folder),
      });
    }
  }
  return tokens;
}

function openSites(
  { config, folder, clock, log }: EngineOptions,
  stack: AsyncDisposableStack,
): ReadonlyMap<string, Site> {
  const sites = new Map<string, Site>();
  for (const [name, site] of Object.entries(config.sites)) {
    const cloud = openCloud(site, { folder, clock, log: log.child({ site: name }) });
    stack.defer(() => cloud.close());
    sites.set(name, { name, cloud, limiter: createCallLimiter(cloud.facts, clock) });
  }
  return sites;
}

function siteOf(sites: ReadonlyMap<string, Site>, name: string): Site {
  const site = sites.get(name);
  invariant(site !== undefined, `site "${name}" is in the configuration`);
  return site;
}

async function openStandings(
  { config, folder, clock, log }: EngineOptions,
  store: Store,
): Promise<Map<string, Standing>> {
  const upstreams = new Map(
    Object.entries(config.sites).map(([name, site]) => [name, upstreamsOf(site, folder, clock)]),
  );
  const standings = new Map<string, Standing>();
  for (const [id, { active, standby }] of Object.entries(config.environments)) {
    const record = await ensureEnvironment(store, clock, { id, active, standby });
    const standing = checkStanding(id, { active, standby }, record);
    if (!standing.agrees) log.info({ environment: id }, standing.note);
    standings.set(id, { record, upstreams });
  }
  for (const { id } of await store.db.selectFrom("environment").select("id").execute()) {
    if (standings.has(id)) continue;
    const left = `environment "${id}" is in the data folder, but not in the configuration any more`;
    log.warn({ environment: id }, `${left}: its journal is kept, its reserve is not looked after`);
  }
  return standings;
}

function servicesOf({ record, upstreams }: Standing): Upstreams {
  return upstreams.get(record.activeSite) ?? new Map();
}

function fenceView(
  standings: ReadonlyMap<string, Standing>,
  id: string,
): { epoch: number; moved: MovedTo | null } {
  const standing = standings.get(id);
  invariant(standing !== undefined, `environment "${id}" is in the configuration`);
  const { record } = standing;
  if (isAtRest(record)) return { epoch: record.epoch, moved: null };
  const site = servingSite(record);
  const advice = "it takes commands again when the move is complete: see understudy status";
  return { epoch: record.epoch, moved: { site, at: record.updatedAt, advice } };
}

async function follow(
  gateway: Gateway | undefined,
  standings: Map<string, Standing>,
  record: EnvironmentRecord,
): Promise<void> {
  const standing = standings.get(record.id);
  invariant(standing !== undefined, `environment "${record.id}" is in the configuration`);
  const moved = standing.record.activeSite !== record.activeSite;
  standing.record = record;
  if (moved) await gateway?.setUpstream(record.id, servicesOf(standing));
}

function knownTo(runtimes: ReadonlyMap<string, EnvironmentRuntime>, id: string): EnvironmentRuntime["known"] {
  const runtime = runtimes.get(id);
  invariant(runtime !== undefined, `environment "${id}" is open`);
  return runtime.known;
}

/** Answers with what ends them. */
function startLocalWitnesses(
  { config, clock, log }: EngineOptions,
  notices: NoticeBoard,
): () => Promise<void> {
  const stop = new AbortController();
  const running = Object.entries(config.environments)
    .filter(([, { witnesses }]) => witnesses.includes("engine"))
    .map(([environment, settings]) =>
      runWitness(
        {
          environment,
          name: "engine",
          probes: probesOf(config, settings),
          report: (seen) => notices.post(seen),
          clock,
          log,
        },
        stop.signal,
      ),
    );
  return async () => {
    stop.abort(new Error("the control plane is closing"));
    await Promise.all(running);
  };
}
