/** The agent, put together from its configuration. */
import { readFileSync } from "node:fs";
import { agentMethods, agentSocketIn, type AgentStatus } from "#agent/agent-status.ts";
import type { AgentSettings, HoldSettings } from "#agent/agent-settings.ts";
import { runAgent } from "#agent/run-agent.ts";
import type { Terminal } from "#cli/terminal.ts";
import { type AgentConfig, readAgentConfig } from "#config/agent-config.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { LocalApiClient } from "#wire/local-api/local-api-client.ts";

export async function runConfiguredAgent(
  terminal: Terminal,
  log: Log,
  flags: { readonly config: string; readonly json: boolean },
  signal: AbortSignal,
): Promise<void> {
  const { config, folder } = readAgentConfig(flags.config);
  const settings = settingsOfAgent(config, folder);
  const ready = { ready: true, state: config.state, vault: config.vault.url };
  const said = flags.json
    ? JSON.stringify(ready)
    : `the agent reads ${config.disks.length} disks for ${ready.vault}: see "understudy agent status"`;
  await runAgent(
    settings,
    { clock: systemClock, random: systemRandom, log },
    () => terminal.out(said),
    signal,
  );
}

export async function askAgent(configPath: string, signal: AbortSignal): Promise<AgentStatus> {
  const { config } = readAgentConfig(configPath);
  await using client = new LocalApiClient({
    place: { socketPath: agentSocketIn(config.state) },
    methods: agentMethods,
    unreachable: "api.unreachable",
    peer: `the agent of ${config.state} ("understudy agent run")`,
  });
  return await client.call("status", {}, signal);
}

/** Errors: `config.missing` for a secret or a certificate that cannot be read. */
export function settingsOfAgent(config: AgentConfig, folder: string): AgentSettings {
  const { vault, disks, consistency, window } = config;
  return {
    stateFolder: config.state,
    vault: {
      url: vault.url,
      key: resolveSecret(vault.key, folder),
      ca: vault.ca === undefined ? undefined : readPem(vault.ca),
    },
    disks: disks.map(({ volume, path, snapshot }) => ({ volume, path, snapshot: snapshot ?? null })),
    hold: consistency === undefined ? null : holdOf(consistency),
    everyMs: config.every,
    wholeEveryMs: config.wholeEvery,
    spoolLimitBytes: config.spoolLimit,
    bytesPerSecond: config.bandwidth ?? null,
    window: window ?? { zone: "utc", ranges: [] },
  };
}

function holdOf({
  freeze,
  hook,
  gives,
  limit,
  hookLimit,
}: NonNullable<AgentConfig["consistency"]>): HoldSettings {
  return {
    freeze,
    before: hook?.before ?? null,
    after: hook?.after ?? null,
    gives,
    limitMs: limit,
    hookLimitMs: hookLimit,
  };
}

export function readPem(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    throw new OperationalError(
      "config.missing",
      `cannot read ${path}, which the configuration names: it must be a file that this user may read`,
      { cause },
    );
  }
}
