/** One convergence of a site within a run: plans from what is durable, carries out, and plans again for what failed. */
import type { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import { environmentId } from "#kernel/ids.ts";
import { OperationalError } from "#kernel/errors.ts";
import { converge, type ConvergenceProgress, type ConvergenceReport } from "#standby/converge.ts";
import { loadPairings, type PairingScope } from "#standby/pairings.ts";
import { planConvergence } from "#standby/plan-convergence.ts";
import type { Translation } from "#standby/translate.ts";
import type { Statement } from "#store/contract.ts";
import { invertMappings } from "#takeover/settings.ts";
import type { Stage } from "#takeover/stage.ts";

export interface SiteConvergence {
  /** Where the environment is now, and where it is converged to. */
  readonly from: string;
  readonly to: string;
  /** `main`, or a drill's own. */
  readonly scope: string;
  readonly desired: readonly Resource[];
  /** Keys of what stands and is left as it is, although it is not among what is desired. */
  readonly keep?: ReadonlySet<string>;
  readonly sizing: Translation["sizing"];
  readonly nameSuffix: string;
  /** The fencing epoch under which this is done: a commit under another one is refused. */
  readonly epoch: number;
  readonly onProgress?: (progress: ConvergenceProgress) => void;
}

/** What failed for a passing reason is planned anew so often before it counts as failed. */
const passes = 3;

/** Errors: `cloud.*` when the site took nothing at all; what it refused in part is in the report. */
export async function convergeSite(
  stage: Stage,
  wanted: SiteConvergence,
  signal: AbortSignal,
): Promise<ConvergenceReport> {
  const of: PairingScope = { environment: environmentId(stage.settings.id), scope: wanted.scope };
  const translation = await translationFor(stage, wanted);
  const { cloud, limiter } = stage.site(wanted.to);
  const { store, clock, random, log, settings } = stage;
  const onProgress = wanted.onProgress === undefined ? {} : { onProgress: wanted.onProgress };
  const keep = wanted.keep === undefined ? {} : { keep: wanted.keep };
  let total: ConvergenceReport | undefined;
  for (let pass = 1; ; pass += 1) {
    const pairings = await loadPairings(store, of);
    const plan = planConvergence({ desired: wanted.desired, pairings, translation, ...keep });
    const target = {
      ...of,
      cloudScope: wanted.scope === "main" ? settings.id : `${settings.id}/${wanted.scope}`,
      guard: [epochGuard(stage, wanted.epoch)],
    };
    const report = await converge(
      plan,
      pairings,
      target,
      { cloud, store, clock, random, log, limiter, ...onProgress },
      signal,
    );
    total = total === undefined ? report : addReports(total, report);
    if (report.failed === 0) return total;
    const achieved = report.created + report.updated + report.retagged + report.deleted + report.confirmed;
    const [first] = report.failures;
    if (achieved === 0 && first !== undefined && isSilence(first.code)) {
      throw new OperationalError(
        "cloud.unreachable",
        `site "${wanted.to}" takes no commands: ${first.message}`,
      );
    }
    if (pass >= passes) return total;
  }
}

function isSilence(code: string): boolean {
  return code === "cloud.unreachable" || code === "cloud.timeout" || code === "cloud.failing";
}

/** Counts add up; what is wrong is what was wrong in the last pass. */
function addReports(before: ConvergenceReport, last: ConvergenceReport): ConvergenceReport {
  return {
    ...last,
    created: before.created + last.created,
    updated: before.updated + last.updated,
    retagged: before.retagged + last.retagged,
    deleted: before.deleted + last.deleted,
    confirmed: before.confirmed + last.confirmed,
    calls: before.calls + last.calls,
    elapsedMs: before.elapsedMs + last.elapsedMs,
  };
}

export async function translationFor(
  stage: Stage,
  wanted: Pick<SiteConvergence, "from" | "to" | "sizing" | "nameSuffix">,
): Promise<Translation> {
  const { mappings, active } = stage.settings;
  return {
    facts: stage.site(wanted.to).cloud.facts,
    source: await stage.catalogue(wanted.from),
    target: await stage.catalogue(wanted.to),
    mappings: wanted.from === active ? mappings : invertMappings(mappings),
    sizing: wanted.sizing,
    nameSuffix: wanted.nameSuffix,
  };
}

/** Touches the environment's row only if it is still in this epoch. */
export function epochGuard(stage: Stage, epoch: number): Statement {
  return {
    query: stage.store.db
      .updateTable("environment")
      .set({ epoch })
      .where("id", "=", stage.settings.id)
      .where("epoch", "=", epoch)
      .compile(),
    expectRows: 1,
    onMismatch: () =>
      new OperationalError(
        "state.fenced",
        `environment "${stage.settings.id}" has left epoch ${epoch}: another run has moved it`,
      ),
  };
}

/** Servers that should run, by their id on the active side. */
export function runningServers(state: EnvironmentState): readonly Resource[] {
  return [...state.resources()].filter((one) => one.kind === "server" && one.spec.power === "running");
}

export function describeReport(report: ConvergenceReport): string {
  const parts = [
    [report.created, "created"],
    [report.updated, "changed"],
    [report.deleted, "removed"],
    [report.failed, "failed"],
    [report.skipped, "skipped"],
  ] as const;
  const said = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return `${said.join(", ") || "nothing to do"} (${report.calls} calls, ${(report.elapsedMs / 1000).toFixed(1)} s)`;
}
