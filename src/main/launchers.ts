/** The long-lived commands, put together. Their parts are loaded when they are asked for: `status` needs no driver. */
import { join, resolve } from "node:path";
import type {
  AccessKeyView,
  DevcloudFlags,
  HostFlags,
  KeyStore,
  Launchers,
  VerifyFlags,
  WitnessFlags,
} from "#cli/command-context.ts";
import type { Terminal } from "#cli/terminal.ts";
import type { VaultTools } from "#cli/vault-tools.ts";
import { createApiClient, findTarget } from "#cli/api-client.ts";
import type { Probe } from "#health/probe.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { makeDataFolder } from "#main/operator-token.ts";

export interface LauncherPorts {
  readonly terminal: Terminal;
  readonly version: string;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

export function createLaunchers(ports: LauncherPorts): Launchers {
  const openLog = (): Promise<Log> => loadLog(ports.environment["UNDERSTUDY_LOG_LEVEL"]);
  return {
    up: async (options, signal) => up(ports, await openLog(), options, signal),
    devcloudUp: async (flags, signal) => devcloudUp(ports, await openLog(), flags, signal),
    hostUp: async (flags, signal) => hostUp(ports, await openLog(), flags, signal),
    witness: async (flags, signal) => witness(ports, await openLog(), flags, signal),
    verifyCloud: async (flags, signal) => verifyCloud(ports, await openLog(), flags, signal),
    keys: createKeyStore(),
    vault: whenAsked(async () => {
      const { createVaultTools } = await import("#main/vault-tools.ts");
      return createVaultTools(ports.terminal, openLog);
    }),
    agent: {
      run: async (flags, signal) => {
        const { runConfiguredAgent } = await import("#main/agent-tools.ts");
        await runConfiguredAgent(ports.terminal, await openLog(), flags, signal);
      },
      status: async (config, signal) => {
        const { askAgent } = await import("#main/agent-tools.ts");
        return askAgent(config, signal);
      },
    },
    exportDisk: async (wanted, signal) => {
      const { exportDisk } = await import("#main/export-disk.ts");
      return exportDisk(ports.terminal, await openLog(), wanted, signal);
    },
  };
}

/** Tools whose parts are loaded with the first call of any of them. Every one of them must answer with a promise. */
function whenAsked(load: () => Promise<VaultTools>): VaultTools {
  let loaded: Promise<VaultTools> | undefined;
  return new Proxy({} as VaultTools, {
    get:
      (_tools, name) =>
      async (...given: readonly unknown[]): Promise<unknown> => {
        loaded ??= load();
        const tools = await loaded;
        const tool = tools[name as keyof VaultTools] as (...args: readonly unknown[]) => Promise<unknown>;
        return tool.apply(tools, given as unknown[]);
      },
  });
}

const logLevels = ["debug", "info", "warn", "error", "silent"];

async function loadLog(level = "info"): Promise<Log> {
  if (!logLevels.includes(level)) {
    throw new OperationalError(
      "input.invalid",
      `UNDERSTUDY_LOG_LEVEL is "${level}"; it takes one of: ${logLevels.join(", ")}`,
    );
  }
  const { createPinoLog } = await import("#main/pino-log.ts");
  return createPinoLog(level);
}

async function up(
  { terminal, version }: LauncherPorts,
  log: Log,
  options: { readonly config: string; readonly json: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { readConfig } = await import("#config/read-config.ts");
  const { config, folder } = readConfig(options.config);
  const { startEngine } = await import("#main/engine.ts");
  const engine = await startEngine({
    config,
    folder,
    version,
    clock: systemClock,
    random: systemRandom,
    log,
  });
  const { gatewayUrl, apiUrl } = engine;
  if (options.json) terminal.out(JSON.stringify({ ready: true, gateway: gatewayUrl, api: apiUrl }));
  else {
    terminal.out(`understudy ${version} is up`);
    terminal.out(`  gateway  ${gatewayUrl}   AWS_ENDPOINT_URL=${gatewayUrl} aws ec2 describe-instances`);
    terminal.out(`  api      ${apiUrl}   understudy status`);
    terminal.out(`  data     ${config.data}`);
  }
  await aborted(signal);
  await engine.close();
}

async function devcloudUp(
  { terminal }: LauncherPorts,
  log: Log,
  flags: DevcloudFlags,
  signal: AbortSignal,
): Promise<void> {
  const { dialectKinds, readFaults, startDevcloud } = await import("#devcloud/start-devcloud.ts");
  if (!Object.hasOwn(dialectKinds, flags.dialect)) {
    throw new OperationalError("input.invalid", `devcloud does not speak ${flags.dialect}`);
  }
  const devcloud = await startDevcloud({
    dialect: flags.dialect,
    dataDir: resolve(flags.data),
    port: flags.port,
    compute: flags.compute,
    log,
    ...(flags.region === undefined ? {} : { region: flags.region }),
    ...(flags.addressBase === undefined ? {} : { addressBase: flags.addressBase }),
    ...(flags.latency === undefined ? {} : { latency: parseLatency(flags.latency) }),
    ...(flags.rate === undefined
      ? {}
      : { rateLimits: { "*": { perSecond: flags.rate, burst: Math.max(1, flags.rate / 10) } } }),
    ...(flags.faults === undefined ? {} : { faults: await readFaults(flags.faults) }),
  });
  terminal.out(JSON.stringify(devcloud.ready));
  await aborted(signal);
  await devcloud.close();
}

async function hostUp(
  { terminal, version }: LauncherPorts,
  log: Log,
  { config: path, site, json, accelerator }: HostFlags,
  signal: AbortSignal,
): Promise<void> {
  const { readConfig } = await import("#config/read-config.ts");
  const { config } = readConfig(path);
  const { startHostAgent } = await import("#main/host-agent.ts");
  const ports = { clock: systemClock, random: systemRandom, log };
  const agent = await startHostAgent(config, site, ports, accelerator);
  if (json) terminal.out(JSON.stringify({ ready: true, site, socket: agent.socket, url: agent.url }));
  else {
    terminal.out(`understudy ${version}: host ${site} is up`);
    terminal.out(`  socket   ${agent.socket}   understudy cloud verify ${site}`);
    if (agent.url !== null) terminal.out(`  api      ${agent.url}   for a control plane on another machine`);
  }
  await aborted(signal);
  await agent[Symbol.asyncDispose]();
}

/** `20`, or `10-50`: milliseconds. */
function parseLatency(text: string): { readonly fixedMs: number; readonly jitterMs: number } {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/u.exec(text);
  const from = Number(match?.[1]);
  const to = Number(match?.[2] ?? match?.[1]);
  if (match === null || to < from) {
    throw new OperationalError(
      "input.invalid",
      `--latency ${text} is not a number of milliseconds like 20, or a range like 10-50`,
    );
  }
  return { fixedMs: from, jitterMs: to - from };
}

async function witness(
  { terminal }: LauncherPorts,
  log: Log,
  flags: WitnessFlags,
  signal: AbortSignal,
): Promise<void> {
  const { runWitness } = await import("#health/witness.ts");
  const api = createApiClient(await findTarget({ config: "", ...flags }, {}));
  const assigned = await api.get<{ environment: string; witness: string; probes: readonly Probe[] }>(
    "/v1/witness/probes",
    signal,
  );
  terminal.out(
    JSON.stringify({
      ready: true,
      environment: assigned.environment,
      witness: assigned.witness,
      probes: assigned.probes.length,
    }),
  );
  await runWitness(
    {
      environment: assigned.environment,
      name: assigned.witness,
      probes: assigned.probes,
      report: (notices) => {
        const seen = notices.map(({ probe, code, raised, detail, at }) => ({
          probe,
          code,
          raised,
          detail,
          at,
        }));
        return api.post("/v1/witness/notices", { notices: seen }, signal);
      },
      clock: systemClock,
      log,
    },
    signal,
  );
}

async function verifyCloud(
  { terminal }: LauncherPorts,
  log: Log,
  flags: VerifyFlags,
  signal: AbortSignal,
): Promise<boolean> {
  const { readConfig } = await import("#config/read-config.ts");
  const { openCloud } = await import("#main/open-cloud.ts");
  const { runConformance } = await import("#cloud/conformance.ts");
  const { conformancePassed, formatConformanceReport, formatConformanceResult } =
    await import("#cloud/conformance-report.ts");
  const { config, folder } = readConfig(flags.config);
  const site = config.sites[flags.site];
  if (site === undefined) {
    throw new OperationalError(
      "not_found",
      `there is no site "${flags.site}"; the sites are: ${Object.keys(config.sites).join(", ")}`,
    );
  }
  const cloud = openCloud(site, { folder, clock: systemClock, log });
  try {
    // Once: a site that does not answer, or refuses the credentials, is told at once.
    const { account, endpoint } = await cloud.identify(signal);
    terminal.err(`in account ${account} at ${endpoint}`);
    const report = await runConformance({
      cloud,
      ports: { clock: systemClock, random: systemRandom },
      scope: `verify-${systemRandom.hex(3)}`,
      signal,
      onStart: (name) => terminal.err(`... ${name}`),
      onResult: (result) => terminal.err(formatConformanceResult(result)),
    });
    terminal.out(flags.json ? JSON.stringify(report) : formatConformanceReport(report).join("\n"));
    return conformancePassed(report);
  } finally {
    await cloud.close();
  }
}

/** Keys are files of the data folder: they can be made before the first start, and take effect without a restart. */
function createKeyStore(): KeyStore {
  const open = async (path: string) => {
    const { readConfig } = await import("#config/read-config.ts");
    const { openAccessKeys } = await import("#gateway/access-keys.ts");
    const { config } = readConfig(path);
    makeDataFolder(config.data);
    const keys = await openAccessKeys(join(config.data, "access-keys.json"), {
      clock: systemClock,
      random: systemRandom,
    });
    return { config, keys };
  };
  return {
    async create(path, { environment, rights, note }) {
      const { config, keys } = await open(path);
      if (!Object.hasOwn(config.environments, environment)) {
        const names = Object.keys(config.environments).join(", ");
        throw new OperationalError(
          "not_found",
          `there is no environment "${environment}"; the environments are: ${names}`,
        );
      }
      const key = await keys.create({
        environment: environmentId(environment),
        rights: rights === "read" ? "read-only" : "change",
        label: note,
      });
      return { accessKeyId: key.id, secretAccessKey: key.secret.reveal() };
    },
    async list(path) {
      const { keys } = await open(path);
      return (await keys.list()).map((key): AccessKeyView => ({
        accessKeyId: key.id,
        environment: key.environment,
        rights: key.rights === "change" ? "change" : "read",
        enabled: key.disabledAt === null,
        note: key.label,
      }));
    },
    async disable(path, accessKeyId) {
      const { keys } = await open(path);
      await keys.disable(accessKeyId);
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
