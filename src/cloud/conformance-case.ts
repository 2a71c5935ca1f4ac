/** The words of the conformance suite: what a case is, and what it is run with. */
import type { Cloud, CloudFacts, ServerType } from "#cloud/contract.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { ConformanceBench, ConformancePorts } from "./conformance-bench.ts";

/** Small and cheap things of the site, which servers and volumes of the suite are made of. */
export interface ConformanceSizes {
  readonly imageId: string;
  readonly type: string;
  /** A second type, for the resize; absent: that part is left out. */
  readonly otherType?: string;
  readonly zone?: string;
  readonly volumeGiB: number;
}

/**
 * What only the owner of the cloud can do, in tests mostly. Each is optional, and cases that need it do not apply
 * without it.
 */
export interface ConformanceHarness {
  /** The same site with wrong credentials. */
  readonly badCredentials?: () => Promise<Cloud>;
  /** A listing page holds at most so many, which is few enough to go beyond it. */
  readonly pageSize?: number;
  /** From now on, calls are throttled until the answered function is called. */
  readonly throttle?: () => Promise<() => Promise<void>>;
  /** The next server that is created fails after it was accepted. */
  readonly failNextServer?: () => Promise<void>;
}

export interface ConformanceContext {
  readonly cloud: Cloud;
  readonly ports: ConformancePorts;
  readonly bench: ConformanceBench;
  readonly sizes: ConformanceSizes;
  readonly harness: ConformanceHarness;
  readonly signal: AbortSignal;
}

export interface ConformanceCase {
  readonly name: string;
  /** Kinds without which the case says nothing. */
  readonly needs: readonly ResourceKind[];
  /** Parts of the harness that it needs. */
  readonly harness?: readonly (keyof ConformanceHarness)[];
  /** Whether servers, which cost money and minutes, are made. */
  readonly makesServers?: boolean;
  run(context: ConformanceContext): Promise<void>;
}

/** Why a case does not apply to this cloud; `null`: it does. */
export function whyNotApplicable(
  { needs, harness }: ConformanceCase,
  facts: CloudFacts,
  given: ConformanceHarness,
): string | null {
  const kind = needs.find((name) => !facts.kinds[name]);
  if (kind !== undefined) return `the cloud has no ${kind} resources`;
  const missing = harness?.find((name) => given[name] === undefined);
  return missing === undefined ? null : `it needs ${missing}, which cannot be provoked here`;
}

/** The smallest type by memory, and the next one of the same architecture. */
export function smallestTypes(types: readonly ServerType[], architecture: string): ServerType[] {
  return types
    .filter((type) => type.architecture === architecture && type.gpus === 0)
    .sort((a, b) => a.memoryMiB - b.memoryMiB || a.vcpus - b.vcpus)
    .slice(0, 2);
}
