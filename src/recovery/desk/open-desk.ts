/** The vault's desk: every group that has a log here, served by NBD on a Unix socket. */
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ExportProvider, NbdExport } from "#nbd/export-provider.ts";
import { type NbdServer, type NbdServerOptions, startNbdServer } from "#nbd/nbd-server.ts";
import type { NbdServerTls } from "#nbd/nbd-tls.ts";
import {
  type KeptPointsCache,
  listKeptPoints,
  readEvidence,
  storeEvidence,
  storeVerdict,
  type StoredPoint,
} from "#recovery/kept-points.ts";
import type { KeptPointFacts, VaultDesk } from "#recovery/vault-desk.ts";
import type { PointId } from "#vault/point-manifest.ts";
import type { FileRule } from "#recovery/priorities/file-rules.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { RetentionPolicy } from "#vault/plan-retention.ts";
import type { LogWindow } from "#vault/write-log/prune-log.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";
import { decodeExportName, encodeExportName, type ExportName } from "./export-name.ts";
import { GroupDesk } from "./group-desk.ts";
import { OpenGroups } from "./open-groups.ts";

export interface DeskOptions {
  /** Logs and sockets; made if absent, used by one process at a time. */
  readonly folder: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  readonly window: LogWindow;
  readonly foldEveryMs: number;
  /** Which files of a disk are fetched first when a machine starts on it, after what its last start read. */
  readonly priorities?: readonly FileRule[];
  /** Undefined: every point stays. */
  readonly retention?: DeskRetention;
  /** The same exports for hosts on other machines. */
  readonly remote?: {
    readonly listen: { readonly host: string; readonly port: number };
    readonly tls: NbdServerTls;
  };
}

export interface DeskRetention {
  readonly policy: RetentionPolicy;
  /** Points that are kept no longer are let go so often, */
  readonly applyEveryMs: number;
  /** and the space of what is gone is freed so often. */
  readonly collectEveryMs: number;
}

/** Where the desk's NBD server is found. */
export function nbdSocketIn(folder: string): string {
  return join(folder, "nbd.sock");
}

/** Where a group's log and its record are. */
export function groupFolderIn(folder: string, group: string): string {
  return join(folder, "groups", group);
}

/** Errors: `config.invalid` for a folder whose name is too long. A log that cannot be opened is an error of its own group's calls. */
export async function openDesk(options: DeskOptions): Promise<VaultDesk> {
  const { folder, vault, clock, log, window, foldEveryMs, priorities = [] } = options;
  const groups = await OpenGroups.open({
    folder: join(folder, "groups"),
    open: (group, itsFolder) =>
      GroupDesk.open({ group, folder: itsFolder, vault, clock, log, window, foldEveryMs, priorities }),
    clock,
    log,
  });

  const provider: ExportProvider = {
    openExport: async (name, { signal }) => {
      const wanted = decodeExportName(name);
      return wanted === undefined ? undefined : openExport(wanted, signal);
    },
    // What there is to read would be every moment: nobody wants that list.
    listExports: async () => [],
  };

  async function openExport(wanted: ExportName, signal: AbortSignal): Promise<NbdExport | undefined> {
    switch (wanted.kind) {
      case "capture":
        return (await groups.get(wanted.group))?.openCapture(wanted, signal);
      case "image":
        return (await groups.get(wanted.group))?.openImage(wanted.volume, wanted.epoch);
      case "moment":
        return (await groups.get(wanted.group))?.openMomentExport(wanted.volume, wanted.sequence);
      case "point": {
        const device = await vault.openPoint(wanted.point as PointId, { signal });
        return {
          writable: false,
          device,
          multiConn: true,
          cheapExtents: true,
          [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
        };
      }
    }
  }

  const path = nbdSocketIn(folder);
  const servers = await startServers([
    { listen: { kind: "unix", path }, provider, clock, log, maxConnections: 1024 },
    ...(options.remote === undefined ? [] : [remoteOptions(options.remote)]),
  ]);
  const uriOf = (name: ExportName): string =>
    formatNbdUri({ address: { kind: "unix", path }, exportName: encodeExportName(name), tls: false });

  function remoteOptions({ listen, tls }: NonNullable<DeskOptions["remote"]>): NbdServerOptions {
    return { listen: { kind: "tcp", ...listen }, tls, provider, clock, log, maxConnections: 1024 };
  }

  async function known(group: string): Promise<GroupDesk> {
    const desk = await groups.get(group);
    if (desk !== undefined) return desk;
    throw new OperationalError("not_found", `no disk of "${group}" was ever captured`);
  }

  const cache: KeptPointsCache = new Map();
  async function kept(group: string, signal: AbortSignal): Promise<readonly StoredPoint[]> {
    const { points, damaged } = await listKeptPoints(vault, group, signal, cache);
    for (const { object, problem } of damaged) log.warn({ group, object }, problem);
    return points;
  }

  const stop = new AbortController();
  const retaining = retain(options, groups, stop.signal);

  return {
    async protect(group, { volume, sizeBytes, epoch }) {
      const desk = await groups.make(group);
      await desk.protect(volume, sizeBytes, epoch);
      const { history } = desk;
      return { uri: uriOf({ kind: "capture", group, volume, epoch, history }), history };
    },
    release: async (group, volume) => (await known(group)).release(volume),
    fence: async (group, epoch) => (await groups.make(group)).fence(epoch),
    markWhole: async (group, volume, session) => (await known(group)).markWhole(volume, session),
    async takeImage(group, { volume, epoch, image }) {
      await (await known(group)).takeImage(volume, epoch, image);
      return { uri: uriOf({ kind: "image", group, volume, epoch }) };
    },
    completeImage: async (group, { volume, epoch, image }) =>
      (await known(group)).completeImage(volume, epoch, image),
    volumes: async (group) => (await groups.get(group))?.volumes() ?? [],
    status: async (group, signal) => (await groups.get(group))?.status(signal),
    moment: async (group, atMs, signal) => (await known(group)).moment(atMs, signal),
    async serve(group, volume, moment, signal) {
      const { sequence } = moment;
      const sizeBytes = await (await known(group)).serve(volume, sequence, undefined, signal);
      return { uri: uriOf({ kind: "moment", group, volume, sequence }), sizeBytes };
    },
    async pin(group, volume, { sequence }, taker, signal) {
      const sizeBytes = await (await known(group)).serve(volume, sequence, taker, signal);
      return { uri: uriOf({ kind: "moment", group, volume, sequence }), sizeBytes };
    },
    unpin: async (group, { volume, sequence, taker }) =>
      (await groups.get(group))?.unpin(volume, sequence, taker),
    pins: async (group) =>
      ((await groups.get(group))?.pins() ?? []).map((pin) => ({
        ...pin,
        uri: uriOf({ kind: "moment", group, volume: pin.volume, sequence: pin.sequence }),
      })),
    keepPoint: async (group, point, signal) => (await known(group)).keepPoint(point, signal),
    keepVerdict: (group, point, verdict, signal) => storeVerdict(vault, group, point, verdict, signal),
    keptPoints: async (group, signal) => (await kept(group, signal)).map(factsOf),
    keepEvidence: (group, point, evidence, signal) => storeEvidence(vault, group, point, evidence, signal),
    async keptEvidence(group, id, signal) {
      const found = (await kept(group, signal)).find((point) => point.id === id);
      if (found !== undefined) return readEvidence(vault, group, found, signal);
      throw new OperationalError("not_found", `the vault keeps no recovery point ${id} of "${group}"`);
    },
    async keptConfiguration(group, id, signal) {
      const found = (await kept(group, signal)).find((point) => point.id === id);
      if (found !== undefined) return found.configuration;
      throw new OperationalError("not_found", `the vault keeps no recovery point ${id} of "${group}"`);
    },
    async [Symbol.asyncDispose]() {
      stop.abort(new OperationalError("aborted", "the vault's desk closes"));
      await retaining;
      await Promise.all(servers.map((server) => server.close()));
      await groups[Symbol.asyncDispose]();
    },
  };
}

/** All of them, or none. */
async function startServers(wanted: readonly NbdServerOptions[]): Promise<readonly NbdServer[]> {
  const servers: NbdServer[] = [];
  try {
    for (const one of wanted) servers.push(await startNbdServer(one));
    return servers;
  } catch (error) {
    for (const server of servers) await server.close();
    throw error;
  }
}

function factsOf({ configuration: _configuration, ...facts }: StoredPoint): KeptPointFacts {
  return facts;
}

/** Until the signal aborts. What fails is tried again at the next turn, and said; it keeps nothing else from being done. */
async function retain(
  { retention, vault, clock, log }: DeskOptions,
  groups: OpenGroups,
  signal: AbortSignal,
): Promise<void> {
  if (retention === undefined) return;
  const { policy, applyEveryMs, collectEveryMs } = retention;
  const attempt = async (what: string, work: () => Promise<void>): Promise<void> => {
    try {
      await work();
    } catch (error) {
      if (signal.aborted) return;
      if (!isOperational(error)) throw error;
      log.warn({ code: error.code }, `${what}: ${publicMessage(error)}`);
    }
  };
  let collectedMs = clock.monotonicMs();
  for (;;) {
    await clock.sleep(applyEveryMs, signal).catch(() => {});
    if (signal.aborted) return;
    for (const { group, desk } of await groups.all()) {
      if (signal.aborted) return;
      await attempt(`points of "${group}" could not be let go`, () => desk.retain(policy, signal));
    }
    if (clock.monotonicMs() - collectedMs < collectEveryMs) continue;
    collectedMs = clock.monotonicMs();
    await attempt("what no point needs could not be collected", async () =>
      log.info({ ...(await vault.collectGarbage({ signal })) }, "what no point needs was collected"),
    );
  }
}
