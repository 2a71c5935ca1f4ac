import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import type { Probe } from "#health/probe.ts";
import { systemClock } from "#kernel/clock.ts";
import { describeProbes, probeApplication } from "#takeover/probe-application.ts";

const signal = new AbortController().signal;

/** A site whose pages fail a number of times before they are served. */
async function withApplication(
  failures: Readonly<Record<string, number>>,
  look: (probeOf: (name: string) => Probe) => Promise<void>,
): Promise<void> {
  const left = new Map(Object.entries(failures));
  const server = createServer((request, response) => {
    const name = (request.url ?? "/").slice(1);
    const remaining = left.get(name) ?? 0;
    left.set(name, remaining - 1);
    response.statusCode = remaining > 0 ? 503 : 200;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    await look((name) => ({
      name,
      everyMs: 1000,
      timeoutMs: 1000,
      check: { type: "http", url: `http://127.0.0.1:${port}/${name}`, status: 200 },
    }));
  } finally {
    server.close();
  }
}

test("a probe that comes round within the patience is no failure", () =>
  withApplication({ shop: 2, api: 0 }, async (probeOf) => {
    const probes = [probeOf("shop"), probeOf("api")];
    const failures = await probeApplication({ probes, clock: systemClock, patienceMs: 30_000, signal });
    assert.deepEqual(failures, []);
    assert.equal(describeProbes(probes, failures), "shop, api: users are answered");
  }));

test("one that goes on failing is named, with what it saw", () =>
  withApplication({ shop: 1000, api: 0 }, async (probeOf) => {
    const probes = [probeOf("shop"), probeOf("api")];
    const failures = await probeApplication({ probes, clock: systemClock, patienceMs: 300, signal });
    assert.deepEqual(failures, [{ probe: "shop", detail: "answered 503, expected 200" }]);
    assert.equal(describeProbes(probes, failures), "probe shop fails: answered 503, expected 200");
  }));

test("without probes nothing is claimed", () => {
  assert.equal(describeProbes([], []), "no probe of the application is configured");
});
