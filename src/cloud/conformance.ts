/**
 * The contract of a cloud driver as tests, independent of any test runner: the project's own tests run it for each
 * driver, and `understudy cloud verify SITE` runs it in a user's own account. It works in a scope of its own, with
 * the smallest things there are, and removes all that it made, also after a failure or an interruption.
 */
import type { Catalogue, Cloud } from "#cloud/contract.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { ResourceKind } from "#model/resource.ts";
import { basicCases } from "./conformance-basics.ts";
import type { BenchLimits, ConformancePorts } from "./conformance-bench.ts";
import { ConformanceBench } from "./conformance-bench.ts";
import type {
  ConformanceCase,
  ConformanceContext,
  ConformanceHarness,
  ConformanceSizes,
} from "./conformance-case.ts";
import { smallestTypes, whyNotApplicable } from "./conformance-case.ts";
import { kindCases } from "./conformance-kinds.ts";
import { ruleCases } from "./conformance-rules.ts";
import { serverCases } from "./conformance-servers.ts";

/** Cheap ones first, so that a wrong password does not cost a server. */
export function cloudConformance(): readonly ConformanceCase[] {
  return [...basicCases, ...kindCases, ...ruleCases, ...serverCases];
}

export type ConformanceResult = { readonly name: string; readonly durationMs: number } & (
  | { readonly result: "passed" }
  | { readonly result: "failed"; readonly error: string }
  | { readonly result: "not_applicable"; readonly why: string }
);

export interface ConformanceReport {
  readonly scope: string;
  readonly results: readonly ConformanceResult[];
  /** Removed before the first case: what an earlier run left behind. */
  readonly leftovers: number;
  /** What could not be removed; empty after a clean run. */
  readonly notRemoved: readonly string[];
  readonly interrupted: boolean;
}

export interface ConformanceOptions {
  readonly cloud: Cloud;
  readonly ports: ConformancePorts;
  /** All of it is removed at start and end: two runs at once need two scopes. Default `verify`. */
  readonly scope?: string;
  /** What the catalogue does not tell: usually just the image. */
  readonly sizes?: Partial<ConformanceSizes>;
  readonly harness?: ConformanceHarness;
  /** Defaults fit real clouds: ten minutes, a look every two seconds. */
  readonly limits?: BenchLimits;
  /** False leaves out the cases that make servers. */
  readonly servers?: boolean;
  readonly signal: AbortSignal;
  readonly onStart?: (name: string) => void;
  readonly onResult?: (result: ConformanceResult) => void;
}

const realCloudLimits: BenchLimits = { waitMs: 600_000, pollMs: 2000 };

/** Smallest type and first image of its architecture, where the user did not say. */
export function chooseSizes(catalogue: Catalogue, asked: Partial<ConformanceSizes> = {}): ConformanceSizes {
  const image = catalogue.images.find(({ id }) => asked.imageId === undefined || id === asked.imageId);
  const [small, other] = smallestTypes(catalogue.types, image?.architecture ?? "x86_64");
  const imageId = asked.imageId ?? image?.id;
  const type = asked.type ?? small?.name;
  if (imageId === undefined || type === undefined) {
    throw new OperationalError(
      "input.invalid",
      "the site's catalogue has no image with a server type to run it: name one with --image",
    );
  }
  const otherType = asked.otherType ?? (other?.name === type ? undefined : other?.name);
  const zone = asked.zone ?? catalogue.zones[0];
  return {
    imageId,
    type,
    volumeGiB: asked.volumeGiB ?? 1,
    ...(otherType === undefined ? {} : { otherType }),
    ...(zone === undefined ? {} : { zone }),
  };
}

function failureText(error: unknown): string {
  if (!(error instanceof OperationalError)) return error instanceof Error ? error.message : String(error);
  const remote = error.remoteCode === undefined ? "" : ` (${error.remoteCode})`;
  return `${error.code}${remote}: ${publicMessage(error)}`;
}

async function runCase(one: ConformanceCase, context: ConformanceContext): Promise<ConformanceResult> {
  const { clock } = context.ports;
  const startedAt = clock.monotonicMs();
  const took = (): number => Math.round(clock.monotonicMs() - startedAt);
  const why = whyNotApplicable(one, context.cloud.facts, context.harness);
  if (why !== null) return { name: one.name, durationMs: 0, result: "not_applicable", why };
  try {
    await one.run(context);
    await context.bench.sweep();
  } catch (error) {
    return { name: one.name, durationMs: took(), result: "failed", error: failureText(error) };
  }
  return { name: one.name, durationMs: took(), result: "passed" };
}

async function sweepAtEnd(bench: ConformanceBench): Promise<string[]> {
  try {
    await bench.sweep();
    return [];
  } catch (error) {
    const left: string[] = [];
    for (const kind of ["server", "volume", "address", "network"] satisfies ResourceKind[]) {
      const found = await bench.list(kind, { scope: bench.scope }).catch(() => undefined);
      if (found === undefined) left.push(`perhaps ${kind} resources that could not be listed`);
      else left.push(...found.map(({ resource }) => `${kind} ${resource.id}`));
    }
    return left.length > 0 ? left : [`something, because the last sweep failed: ${failureText(error)}`];
  }
}

/** Never throws for a failing case or cloud after the catalogue was read: the report tells. */
export async function runConformance(options: ConformanceOptions): Promise<ConformanceReport> {
  const { cloud, ports, signal } = options;
  const scope = options.scope ?? "verify";
  const limits = options.limits ?? realCloudLimits;
  const harness = options.harness ?? {};
  const bench = new ConformanceBench(cloud, scope, ports, limits, signal);
  const sizes = chooseSizes(await bench.call(() => cloud.catalogue(signal)), options.sizes);
  const leftovers = (await bench.sweep()).length;
  const context: ConformanceContext = { cloud, ports, bench, sizes, harness, signal };
  const results: ConformanceResult[] = [];
  // Cleaning up must go on when the user has pressed ^C, so that it has a signal of its own.
  const lastBench = new ConformanceBench(cloud, scope, ports, limits, new AbortController().signal);
  for (const one of cloudConformance()) {
    if (signal.aborted) break;
    if (one.makesServers === true && options.servers === false) continue;
    options.onStart?.(one.name);
    const result = await runCase(one, context);
    results.push(result);
    options.onResult?.(result);
    if (result.result === "failed" && !signal.aborted) await sweepAtEnd(lastBench);
  }
  const notRemoved = await sweepAtEnd(lastBench);
  return { scope, results, leftovers, notRemoved, interrupted: signal.aborted };
}
