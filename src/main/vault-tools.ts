/** The vault's commands, put together: a store, a key, and what is asked of them. */
import type { Terminal } from "#cli/terminal.ts";
import type {
  VaultEnvironmentView,
  VaultFlags,
  VaultPointView,
  VaultRecoveryPointsView,
  VaultRecoveryPointView,
  VaultTools,
  VaultVolumeView,
} from "#cli/vault-tools.ts";
import type { VaultConfig } from "#config/config-schema.ts";
import { systemClock } from "#kernel/clock.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { repairFrom, speakProgress, verifyWhole } from "#main/care-for-vault.ts";
import { nbdTlsOf } from "#main/host-place.ts";
import { catContent, mountContent } from "#main/vault-content.ts";
import { retentionPolicyOf } from "#main/retention-policy-of.ts";
import { openVaultPlace, withVault } from "#main/vault-place.ts";
import { keptGroups, listKeptPoints, type StoredPoint, unpackConfiguration } from "#recovery/kept-points.ts";
import { bringBackLog } from "#recovery/desk/bring-back-log.ts";
import { nbdSocketIn, openDesk } from "#recovery/desk/open-desk.ts";
import type { FileRule } from "#recovery/priorities/file-rules.ts";
import { deskSocketIn, serveDesk } from "#recovery/desk/serve-desk.ts";
import type { ServedIntake } from "#recovery/intake/serve-intake.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { shippedGroups } from "#recovery/shipped-logs.ts";
import { initVault, type Vault } from "#vault/open-vault.ts";

export function createVaultTools(terminal: Terminal, openLog: () => Promise<Log>): VaultTools {
  return {
    async init(flags) {
      const { storage, passphrase } = await openVaultPlace(flags);
      try {
        await using vault = await initVault({ storage, unlock: { passphrase } });
        return { id: vault.id, store: storage.description };
      } finally {
        await storage.close();
      }
    },

    serve: async (flags, signal) => serve(terminal, await openLog(), flags, signal),

    status: async (flags, signal) =>
      withVault(flags, await openLog(), async (vault, { storage, config }) => ({
        id: vault.id,
        store: storage.description,
        volumes: volumesOf(await pointsOf(vault, undefined, signal)),
        environments: await environmentsOf(vault, signal),
        retention: config === undefined ? null : retentionPolicyOf(config.retention),
      })),

    environments: async (flags, signal) =>
      withVault(flags, await openLog(), (vault) => environmentsOf(vault, signal)),

    recoveryPoints: async (flags, environment, signal) =>
      withVault(flags, await openLog(), (vault) => recoveryPointsOf(vault, environment, signal)),

    points: async (flags, volume, signal) =>
      withVault(flags, await openLog(), (vault) => pointsOf(vault, volume, signal)),

    cat: async (flags, wanted, output, signal) =>
      withVault(flags, await openLog(), (vault) => catContent(terminal, vault, wanted, output, signal)),

    mount: async (flags, wanted, options, signal) => {
      const log = await openLog();
      return withVault(flags, log, (vault) => mountContent(terminal, log, vault, wanted, options, signal));
    },

    verify: async (flags, depth, signal) =>
      withVault(flags, await openLog(), (vault) => verifyWhole(terminal, vault, depth, signal)),

    collectGarbage: async (flags, signal) =>
      withVault(flags, await openLog(), (vault) => vault.collectGarbage({ signal })),

    restoreLog: async (flags, environment, signal) =>
      withVault(flags, await openLog(), async (vault, { config }) => {
        const { data: folder } = requireConfig(config, "restore-log");
        const onProgress = speakProgress(terminal, systemClock, "brought back");
        const own = { folder, group: environment, vault, clock: systemClock, signal, onProgress };
        return { environment, ...(await bringBackLog(own)) };
      }),

    repair: async (flags, source, signal) => {
      const log = await openLog();
      return withVault(flags, log, (vault) => repairFrom(terminal, vault, source, log, signal));
    },
  };
}

async function serve(terminal: Terminal, log: Log, flags: VaultFlags, signal: AbortSignal): Promise<void> {
  await withVault(flags, log, async (vault, { config, storage }) => {
    const served = requireConfig(config, "serve");
    const { data: folder, window, windowSize, foldEvery, retention, priorities, hosts } = served;
    await makeFolder(folder);
    await using desk = await openDesk({
      folder,
      vault,
      clock: systemClock,
      log,
      window: { windowMs: window, windowBytes: windowSize },
      foldEveryMs: foldEvery,
      priorities: priorities.map(fileRuleOf),
      retention: {
        policy: retentionPolicyOf(retention),
        applyEveryMs: retention.applyEvery,
        collectEveryMs: retention.collectEvery,
      },
      ...(hosts && { remote: { listen: hosts.listen, tls: nbdTlsOf(hosts) } }),
    });
    await using _served = await serveDesk(desk, folder, log);
    await using intake = await intakeOf(served, flags.config, { vault, desk, log });
    const ready = {
      ready: true,
      store: storage.description,
      desk: deskSocketIn(folder),
      nbd: nbdSocketIn(folder),
      ...(hosts && { hosts: `nbds://${hosts.listen.host}:${hosts.listen.port}` }),
      ...(intake && { agents: intake.url }),
    };
    terminal.out(
      flags.json ? JSON.stringify(ready) : `the vault in ${ready.store} takes in writes at ${ready.nbd}`,
    );
    await aborted(signal);
  });
}

/** Errors: `input.invalid` where the vault was named on the command line: its folder is the configuration's. */
function requireConfig(config: VaultConfig | undefined, verb: string): VaultConfig {
  if (config !== undefined) return config;
  throw new OperationalError(
    "input.invalid",
    `vault ${verb} takes its vault from the configuration, not from --store`,
  );
}

function fileRuleOf(rule: VaultConfig["priorities"][number]): FileRule {
  const { path, kind, modifiedWithin, smallerThan, largerThan, weight } = rule;
  return {
    weight,
    ...(path === undefined ? {} : { path }),
    ...(kind === undefined ? {} : { kind }),
    ...(modifiedWithin === undefined ? {} : { modifiedWithinMs: modifiedWithin }),
    ...(smallerThan === undefined ? {} : { smallerThanBytes: smallerThan }),
    ...(largerThan === undefined ? {} : { largerThanBytes: largerThan }),
  };
}

/** Undefined: no agents are configured. */
async function intakeOf(
  config: VaultConfig,
  path: string,
  ports: { readonly vault: Vault; readonly desk: VaultDesk; readonly log: Log },
): Promise<ServedIntake | undefined> {
  if (config.agents === undefined) return undefined;
  const { serveConfiguredIntake } = await import("#main/vault-intake.ts");
  return serveConfiguredIntake(config, config.agents, path, ports);
}

async function pointsOf(
  vault: Vault,
  volume: string | undefined,
  signal: AbortSignal,
): Promise<readonly VaultPointView[]> {
  const points: VaultPointView[] = [];
  for (const { id } of await vault.listPoints(volume, signal)) {
    const { volumeId, timeMs, sizeBytes, consistency, attributes } = await vault.pointFacts(id, signal);
    points.push({
      id,
      volume: volumeId,
      timeMs,
      sizeBytes,
      consistency,
      whole: attributes["log.whole"] !== "no",
    });
  }
  return points;
}

async function environmentsOf(vault: Vault, signal: AbortSignal): Promise<readonly VaultEnvironmentView[]> {
  const views: VaultEnvironmentView[] = [];
  const shipped = await shippedGroups(vault.context.storage, signal);
  const names = new Set([...(await keptGroups(vault, signal)), ...shipped]);
  for (const environment of [...names].toSorted()) {
    const { points, damaged } = await listKeptPoints(vault, environment, signal);
    views.push({
      environment,
      points: points.length,
      newestMs: points[0]?.at ?? null,
      oldestMs: points.at(-1)?.at ?? null,
      log: shipped.includes(environment),
      damaged: damaged.length,
    });
  }
  return views;
}

/** The names of the environments are few: without one, that of the only one is taken. Errors: `not_found`, `input.invalid`. */
async function recoveryPointsOf(
  vault: Vault,
  wanted: string | undefined,
  signal: AbortSignal,
): Promise<VaultRecoveryPointsView> {
  const groups = await keptGroups(vault, signal);
  const environment = wanted ?? (groups.length === 1 ? groups[0] : undefined);
  if (environment === undefined || !groups.includes(environment)) {
    const names = groups.length === 0 ? "none" : groups.join(", ");
    throw new OperationalError(
      environment === undefined && groups.length > 1 ? "input.invalid" : "not_found",
      `name an environment whose recovery points the vault keeps: ${names}`,
    );
  }
  const { points, damaged } = await listKeptPoints(vault, environment, signal);
  return { environment, points: points.map(recoveryPointView), damaged };
}

function recoveryPointView({ verdict, configuration, ...point }: StoredPoint): VaultRecoveryPointView {
  return { ...point, verifiedAt: verdict?.at ?? null, configuration: unpackConfiguration(configuration) };
}

/** By name. */
function volumesOf(points: readonly VaultPointView[]): readonly VaultVolumeView[] {
  const byVolume = Map.groupBy(points, ({ volume }) => volume);
  return [...byVolume].map(([volume, own]) => {
    const times = own.map(({ timeMs }) => timeMs);
    return {
      volume,
      points: own.length,
      sizeBytes: own.at(-1)?.sizeBytes ?? 0,
      oldestMs: Math.min(...times),
      newestMs: Math.max(...times),
    };
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
