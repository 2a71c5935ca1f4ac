/** From understudy.yaml to the plain settings that the rooms take. Pure. */
import type { Config, EnvironmentConfig, ProbeConfig } from "#config/config-schema.ts";
import { resolve } from "node:path";
import type { Probe } from "#health/probe.ts";
import type { Verification, VerificationCheck } from "#health/verification.ts";
import { apiAddressOf } from "#main/open-cloud.ts";
import type { ReserveScale } from "#model/policy.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";
import { siteProbeName } from "#takeover/watch-environment.ts";

/** `folder`: where scripts that are named by relative paths are found. */
export function settingsOf(id: string, environment: EnvironmentConfig, folder = ""): EnvironmentSettings {
  const { reserve, translate, failover } = environment;
  const slowest = Math.max(...environment.probes.map(({ every, timeout }) => every + timeout));
  return {
    id,
    active: environment.active,
    standby: environment.standby,
    reserve: {
      servers: reserveScale(reserve.servers),
      onlyTags: reserve.onlyTags,
      smallerTypes: reserve.smallerTypes,
      volumes: reserve.volumes,
      recovered: environment.protect?.volumes ?? null,
    },
    mappings: translate,
    routes: environment.traffic.map(({ name, select, port }) => ({ name, select, port })),
    applicationProbes: environment.probes.flatMap((probe) => applicationProbe(probe) ?? []),
    verifications: environment.verify.map((one) => verificationOf(one, folder)),
    witnesses: witnessNames(environment),
    triggers: failover.triggers.map((trigger) => ({
      codes: trigger.codes,
      witnesses: trigger.witnesses,
      forMs: trigger.for,
    })),
    fence: failover.fence,
    returnPolicy: environment.return.policy,
    stableForMs: environment.return.stableFor,
    // Two missed reports may be chance; a third is silence.
    staleAfterMs: 3 * slowest,
  };
}

function verificationOf(
  { name, select, within, timeout, check }: EnvironmentConfig["verify"][number],
  folder: string,
): Verification {
  return { name, select, withinMs: within, timeoutMs: timeout, check: verificationCheck(check, folder) };
}

function verificationCheck(
  check: EnvironmentConfig["verify"][number]["check"],
  folder: string,
): VerificationCheck {
  if ("tcp" in check) return { type: "tcp", port: check.tcp };
  if ("script" in check) return { type: "script", path: resolve(folder, check.script) };
  if ("agent" in check) return { type: "agent", program: check.agent === "ping" ? null : check.agent };
  const { contains, ...http } = check.http;
  return { type: "http", ...http, ...(contains === undefined ? {} : { contains }) };
}

export function witnessNames(environment: EnvironmentConfig): readonly string[] {
  return environment.witnesses.map((witness) => (witness === "engine" ? witness : witness.name));
}

function reserveScale(servers: EnvironmentConfig["reserve"]["servers"]): ReserveScale {
  if (servers === "none" || servers === "full") return { mode: servers };
  return { mode: "ratio", ...servers };
}

/** What every witness of the environment looks at: a cloud's API is looked at on both sites, for leaving and for returning. */
export function probesOf(config: Config, environment: EnvironmentConfig): readonly Probe[] {
  return environment.probes.flatMap((probe) => {
    const ofApplication = applicationProbe(probe);
    if (ofApplication !== undefined) return [ofApplication];
    return [environment.active, environment.standby].flatMap((name) => {
      const site = config.sites[name];
      if (site === undefined) return [];
      return [
        toProbe(probe, siteProbeName(probe.name, name), { type: "cloud_api", url: apiAddressOf(site) }),
      ];
    });
  });
}

function toProbe(probe: ProbeConfig, name: string, check: Probe["check"]): Probe {
  return { name, everyMs: probe.every, timeoutMs: probe.timeout, check };
}

/** Undefined: it looks at a cloud's API. */
function applicationProbe(probe: ProbeConfig): Probe | undefined {
  return "cloudApi" in probe.check ? undefined : toProbe(probe, probe.name, appCheck(probe.check));
}

function appCheck(check: Exclude<ProbeConfig["check"], { cloudApi: "active" }>): Probe["check"] {
  if ("tcp" in check) return { type: "tcp", ...check.tcp };
  const { http: url, status, contains } = check;
  return { type: "http", url, status, ...(contains === undefined ? {} : { contains }) };
}
