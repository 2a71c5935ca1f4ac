/** Reads understudy.yaml, in one place. Every problem is reported at once, each with its line. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { checkDocument, type ConfigProblem, formatProblems } from "#config/check-document.ts";
import {
  configSchema,
  type Config,
  type EnvironmentConfig,
  type SiteConfig,
  type VaultConfig,
} from "#config/config-schema.ts";
import { withAbsoluteHost } from "#config/host-config.ts";
import { withAbsoluteImages } from "#config/hypervisor-site.ts";
import { OperationalError } from "#kernel/errors.ts";

const MAX_CONFIG_BYTES = 1024 * 1024;

export type ConfigCheck =
  | { readonly ok: true; readonly config: Config; readonly warnings: readonly ConfigProblem[] }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

/** Pure: text in, configuration or the list of what is wrong with it out. */
export function checkConfig(text: string): ConfigCheck {
  const document = checkDocument(text, configSchema);
  if (!document.ok) return document;
  const { value, lineOf } = document;
  const problems = crossChecks(value).map(({ path, message }) => ({
    line: lineOf(path),
    path: path.join("."),
    message,
  }));
  if (problems.length > 0) return { ok: false, problems };
  const warnings = caveats(value).map(({ path, message }) => ({
    line: lineOf(path),
    path: path.join("."),
    message,
  }));
  return { ok: true, config: value, warnings };
}

/**
 * Reads and checks the file. Relative paths inside it are relative to its own folder.
 * Errors: `config.missing`, `config.invalid` (all problems in the message, a line each).
 */
export function readConfig(path: string): { readonly config: Config; readonly folder: string } {
  const check = checkConfig(readConfigText(path));
  if (!check.ok) throw new OperationalError("config.invalid", formatProblems(path, check.problems));
  const folder = dirname(resolve(path));
  return { config: withAbsolutePaths(check.config, folder), folder };
}

function withAbsolutePaths(config: Config, folder: string): Config {
  const { vault } = config;
  const sites = Object.entries(config.sites).map(([name, site]): [string, SiteConfig] => {
    const placed = site.driver === "hypervisor" ? withAbsoluteImages(site, folder) : site;
    const { host } = placed;
    return [name, host === undefined ? placed : { ...placed, host: withAbsoluteHost(host, folder) }];
  });
  return {
    ...config,
    data: resolve(folder, config.data),
    sites: Object.fromEntries(sites),
    ...(vault === undefined ? {} : { vault: withAbsoluteFolders(vault, folder) }),
  };
}

function withAbsoluteFolders(vault: VaultConfig, folder: string): VaultConfig {
  const { store, agents, hosts } = vault;
  return {
    ...vault,
    ...(agents && { agents: { ...agents, certificate: resolve(folder, agents.certificate) } }),
    ...(hosts && { hosts: { ...hosts, certificates: resolve(folder, hosts.certificates) } }),
    data: resolve(folder, vault.data),
    store: "folder" in store ? { folder: resolve(folder, store.folder) } : store,
  };
}

/** Errors: `config.missing`, `config.invalid` for what is too large to be a configuration. */
export function readConfigText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    const advice =
      code === "ENOENT"
        ? `there is no ${path}: write one with "understudy init", or name yours with --config`
        : `cannot read ${path} (${String(code)}): it must be a file that this user may read`;
    throw new OperationalError("config.missing", advice, { cause: error });
  }
  if (bytes.length > MAX_CONFIG_BYTES) {
    throw new OperationalError("config.invalid", `${path} is larger than 1 MiB; that is not a configuration`);
  }
  return bytes.toString("utf8");
}

interface Finding {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** What no single value shows: references between parts. */
function crossChecks(config: Config): Finding[] {
  const findings: Finding[] = [];
  const siteNames = Object.keys(config.sites);
  const { hosts } = config.vault ?? {};
  if (hosts !== undefined && hosts.address === undefined && ["0.0.0.0", "::"].includes(hosts.listen.host)) {
    findings.push({
      path: ["vault", "hosts"],
      message: `hosts cannot call ${hosts.listen.host}: add \`address\`, as they reach this machine`,
    });
  }
  for (const [name, environment] of Object.entries(config.environments)) {
    const at = ["environments", name];
    for (const role of ["active", "standby"] as const) {
      if (!siteNames.includes(environment[role])) {
        findings.push({
          path: [...at, role],
          message: `there is no site "${environment[role]}"; the sites are: ${siteNames.join(", ") || "none"}`,
        });
      }
    }
    if (environment.active === environment.standby) {
      findings.push({
        path: [...at, "standby"],
        message: "the standby must be another site than the active one",
      });
    }
    if (environment.protect !== undefined && config.vault === undefined) {
      findings.push({
        path: [...at, "protect"],
        message: "disks can be protected only with a vault: add `vault` (store and passphrase) at the top",
      });
    }
    for (const role of ["active", "standby"] as const) {
      const host = config.sites[environment[role]]?.host;
      if (environment.protect === undefined || host === undefined || !("url" in host)) continue;
      if (config.vault === undefined || config.vault.hosts !== undefined) continue;
      findings.push({
        path: ["vault"],
        message: `site "${environment[role]}" is on another machine: say under \`hosts\` where its machines reach the vault`,
      });
    }
    const witnesses = environment.witnesses.map((witness) => (witness === "engine" ? witness : witness.name));
    for (const [index, trigger] of environment.failover.triggers.entries()) {
      if (trigger.witnesses > witnesses.length) {
        findings.push({
          path: [...at, "failover", "triggers", index, "witnesses"],
          message: `asks for ${trigger.witnesses} witnesses, but only ${witnesses.length} are named (${witnesses.join(", ")})`,
        });
      }
    }
    findings.push(...duplicates(witnesses, [...at, "witnesses"], "witness"));
    findings.push(
      ...duplicates(
        environment.traffic.map((route) => route.name),
        [...at, "traffic"],
        "route",
      ),
    );
    findings.push(
      ...duplicates(
        environment.probes.map((probe) => probe.name),
        [...at, "probes"],
        "probe",
      ),
    );
  }
  return [...findings, ...sharedListeners(config)];
}

/** Two of ours on one address: the second one would fail at its start, after the first one has begun. */
function sharedListeners(config: Config): Finding[] {
  const places: { readonly at: string; readonly path: readonly PropertyKey[] }[] = (
    ["gateway", "api"] as const
  ).map((name) => ({
    at: `${config.listen[name].host}:${config.listen[name].port}`,
    path: ["listen", name],
  }));
  for (const [name, environment] of Object.entries(config.environments)) {
    for (const [index, route] of environment.traffic.entries()) {
      if (!("forwarder" in route.through)) continue;
      const { host, port } = route.through.forwarder.listen;
      places.push({ at: `${host}:${port}`, path: ["environments", name, "traffic", index, "through"] });
    }
  }
  return places.flatMap(({ at, path }, index) => {
    const first = places.findIndex((place) => place.at === at);
    const other = places[first]?.path.join(".") ?? "";
    return first < index && !at.endsWith(":0")
      ? [{ path, message: `${at} is taken by ${other} already` }]
      : [];
  });
}

function duplicates(names: readonly string[], path: readonly PropertyKey[], what: string): Finding[] {
  return names
    .filter((name, index) => names.indexOf(name) !== index)
    .map((name) => ({ path, message: `two ${what} entries are named "${name}"` }));
}

/** Allowed, but an operator should know. */
function caveats(config: Config): Finding[] {
  return Object.entries(config.environments).flatMap(([name, environment]) => [
    ...loneWitnesses(name, environment),
    ...hostlessSites(config, name, environment),
    ...withoutApi(config, name, environment),
  ]);
}

function loneWitnesses(name: string, { failover }: EnvironmentConfig): Finding[] {
  return failover.triggers.flatMap((trigger, index) =>
    trigger.witnesses < 2
      ? [
          {
            path: ["environments", name, "failover", "triggers", index, "witnesses"],
            message: "one witness alone can start a failover: a fault on its own path is enough",
          },
        ]
      : [],
  );
}

function withoutApi(config: Config, name: string, { active }: EnvironmentConfig): Finding[] {
  if (config.sites[active]?.driver !== "hypervisor") return [];
  const message = `site "${active}" has no API that tools can be pointed at: the gateway takes no commands for this environment while it serves there`;
  return [{ path: ["environments", name, "active"], message }];
}

function hostlessSites(config: Config, name: string, environment: EnvironmentConfig): Finding[] {
  const { protect } = environment;
  if (protect === undefined) return [];
  const reasons = {
    active: "the disks there are not captured",
    standby: "no disk can be given its content there",
  } as const;
  return (["active", "standby"] as const).flatMap((role) => {
    const site = environment[role];
    if (config.sites[site]?.host !== undefined) return [];
    // Only there clouds give out what snapshots hold.
    const hasSnapshots = config.sites[site]?.driver === "ec2" && protect.snapshots !== undefined;
    if (role === "active" && hasSnapshots) return [];
    return [
      {
        path: ["environments", name, "protect"],
        message: `site "${site}" (${role}) has no \`host\`: ${reasons[role]}`,
      },
    ];
  });
}
