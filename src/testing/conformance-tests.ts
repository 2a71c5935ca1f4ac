/** The conformance suite as tests of node:test, one a case; only cases that apply are registered. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Cloud } from "#cloud/contract.ts";
import { ConformanceBench } from "#cloud/conformance-bench.ts";
import type { BenchLimits, ConformancePorts } from "#cloud/conformance-bench.ts";
import type { ConformanceHarness, ConformanceSizes } from "#cloud/conformance-case.ts";
import { whyNotApplicable } from "#cloud/conformance-case.ts";
import { chooseSizes, cloudConformance } from "#cloud/conformance.ts";
import { systemClock } from "#kernel/clock.ts";
import { systemRandom } from "#kernel/random.ts";

export interface ConformanceTests {
  /** Stands before each test's name. */
  readonly name: string;
  readonly cloud: Cloud;
  readonly harness?: ConformanceHarness;
  readonly sizes?: Partial<ConformanceSizes>;
  readonly limits?: BenchLimits;
  readonly ports?: ConformancePorts;
}

const testLimits: BenchLimits = { waitMs: 30_000, pollMs: 10 };

/** Call it once at a test file's top level. Each case has a scope of its own and leaves nothing behind. */
export async function conformanceTests(options: ConformanceTests): Promise<void> {
  const { cloud, harness = {}, limits = testLimits } = options;
  const ports = options.ports ?? { clock: systemClock, random: systemRandom };
  const signal = new AbortController().signal;
  const catalogueBench = new ConformanceBench(cloud, "catalogue", ports, limits, signal);
  const catalogue = await catalogueBench.call(() => cloud.catalogue(signal));
  const sizes = chooseSizes(catalogue, options.sizes);
  for (const one of cloudConformance()) {
    if (whyNotApplicable(one, cloud.facts, harness) !== null) continue;
    void test(`${options.name}: ${one.name}`, async () => {
      const scope = `conformance-${ports.random.hex(4)}`;
      const bench = new ConformanceBench(cloud, scope, ports, limits, signal);
      try {
        await one.run({ cloud, ports, bench, sizes, harness, signal });
      } finally {
        await bench.sweep();
      }
      assert.deepEqual(await bench.sweep(), [], "nothing is left behind");
    });
  }
  after(() => cloud.close());
}
