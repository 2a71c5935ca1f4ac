import assert from "node:assert/strict";
import { test } from "node:test";
import type { Cloud } from "#cloud/contract.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { systemRandom } from "#kernel/random.ts";
import { conformancePassed, formatConformanceReport, formatConformanceResult } from "./conformance-report.ts";
import type { ConformanceResult } from "./conformance.ts";
import { chooseSizes, cloudConformance, runConformance } from "./conformance.ts";

const ports = { clock: systemClock, random: systemRandom };
const limits = { waitMs: 5000, pollMs: 5 };
const open = () => createMemoryCloud({ ...ports, readyMs: 2 });
const live = () => new AbortController().signal;

void test("a run removes what an earlier one left, tells every case, and leaves nothing", async () => {
  const cloud = open();
  const left = { tags: {}, token: "left", scope: "verify", mayExist: false } as const;
  await cloud.create({ ...left, kind: "volume", spec: { sizeGiB: 1 } }, live());
  const others = await cloud.create(
    { ...left, token: "other", scope: "shop", kind: "volume", spec: { sizeGiB: 1 } },
    live(),
  );
  const report = await runConformance({ cloud, ports, limits, signal: live() });
  assert.equal(report.leftovers, 1);
  assert.equal(report.results.length, cloudConformance().length);
  assert.ok(
    conformancePassed(report),
    JSON.stringify(report.results.filter(({ result }) => result === "failed")),
  );
  assert.deepEqual(
    cloud.inspect.resources().map(({ id }) => id),
    [others.resource.id],
    "only what is of another scope is there",
  );
  assert.match(
    formatConformanceReport(report).join("\n"),
    /removed 1 resources that an earlier run left behind/,
  );
});

/** Each breaks one promise of the contract; the suite must notice. */
const broken: readonly [promise: string, (cloud: Cloud) => Partial<Cloud>][] = [
  [
    "a create forgets its token",
    (cloud) => ({
      create: (request, signal) => cloud.create({ ...request, token: systemRandom.uuid() }, signal),
    }),
  ],
  ["a delete does nothing", () => ({ delete: async () => {} })],
  [
    "a listing leaves out the scope",
    (cloud) => ({
      list: (kind, { scope: _scope, ...filter }, signal) => cloud.list(kind, filter, signal),
    }),
  ],
  ["an update is forgotten", () => ({ update: async () => {} })],
  [
    "tags are not removed",
    (cloud) => ({
      setTags: (kind, id, set, _remove, signal) => cloud.setTags(kind, id, set, [], signal),
    }),
  ],
  ["signals are ignored", (cloud) => ({ identify: () => cloud.identify(live()) })],
  [
    "a conflict is told as a refusal",
    (cloud) => ({
      delete: (kind, id, signal) =>
        cloud.delete(kind, id, signal).catch((error: unknown) => {
          throw new OperationalError("cloud.refused", String(error));
        }),
    }),
  ],
];

for (const [promise, breakIt] of broken) {
  void test(`the suite notices when ${promise}`, async () => {
    const cloud = open();
    const liar: Cloud = { ...cloud, ...breakIt(cloud) };
    const short = { waitMs: 30, pollMs: 1 };
    const report = await runConformance({ cloud: liar, ports, limits: short, signal: live() });
    assert.ok(!conformancePassed(report));
    assert.ok(report.results.some(({ result }) => result === "failed"));
  });
}

void test("an interrupted run cleans up, says so, and has not passed", async () => {
  const cloud = open();
  const user = new AbortController();
  const report = await runConformance({
    cloud,
    ports,
    limits,
    signal: user.signal,
    onStart: (name) => {
      if (name.startsWith("server: resized")) setTimeout(() => user.abort(new Error("^C")), 3);
    },
  });
  assert.ok(report.interrupted && !conformancePassed(report));
  assert.deepEqual(cloud.inspect.resources(), []);
  assert.ok(report.results.length < cloudConformance().length);
});

void test("what could not be removed is named", async () => {
  const cloud = open();
  const stuck: Cloud = {
    ...cloud,
    delete: async (kind, id, signal) => {
      if (kind === "volume") throw new OperationalError("cloud.refused", `volume ${id} is stuck`);
      await cloud.delete(kind, id, signal);
    },
  };
  const report = await runConformance({ cloud: stuck, ports, limits, signal: live(), servers: false });
  assert.ok(!conformancePassed(report));
  assert.match(report.notRemoved.join(), /^volume volume-/);
});

void test("sizes are the smallest of the catalogue, unless the user says otherwise", async () => {
  const catalogue = await open().catalogue(live());
  const sizes = chooseSizes(catalogue);
  assert.deepEqual(sizes, {
    imageId: "img-debian",
    type: "tiny",
    otherType: "small",
    zone: "zone-a",
    volumeGiB: 1,
  });
  assert.equal(chooseSizes(catalogue, { imageId: "img-private", type: "large" }).imageId, "img-private");
  assert.throws(() => chooseSizes({ ...catalogue, images: [] }), /--image/);
});

void test("results are lines for people", () => {
  const results: ConformanceResult[] = [
    { name: "a", durationMs: 1200, result: "passed" },
    { name: "b", durationMs: 1, result: "failed", error: "x\ny" },
    { name: "c", durationMs: 0, result: "not_applicable", why: "no volumes" },
  ];
  assert.deepEqual(results.map(formatConformanceResult), [
    "ok   a (1.2 s)",
    "FAIL b\n       x\n       y",
    "n/a  c: no volumes",
  ]);
});
