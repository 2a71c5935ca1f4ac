import assert from "node:assert/strict";
import { test } from "node:test";
import type { Observation } from "#health/notice-board.ts";
import { environmentId, siteId } from "#kernel/ids.ts";
import type { EnvironmentPhase } from "#model/run.ts";
import type { EnvironmentRecord } from "#takeover/environment-record.ts";
import type { EnvironmentSettings } from "#takeover/settings.ts";
import { decideNext, siteProbeName, type Decision, type Past } from "#takeover/watch-environment.ts";

const now = 100_000_000;
const settings: EnvironmentSettings = {
  id: "shop",
  active: "east",
  standby: "west",
  reserve: { servers: { mode: "none" }, onlyTags: {}, smallerTypes: false, volumes: "all" },
  mappings: { types: {}, images: {}, zones: {} },
  routes: [],
  applicationProbes: [],
  witnesses: ["north", "middle", "south"],
  triggers: [{ codes: ["cloud.api_unreachable"], witnesses: 2, forMs: 3000 }],
  fence: "stop_servers",
  returnPolicy: "wait",
  stableForMs: 10_000,
  staleAfterMs: 3000,
};

function record(phase: EnvironmentPhase, active = "east"): EnvironmentRecord {
  return {
    id: environmentId("shop"),
    activeSite: siteId(active),
    standbySite: siteId(active === "east" ? "west" : "east"),
    phase,
    epoch: 2,
    updatedAt: 0,
  };
}

function seen(witness: string, site: string, raised: boolean, over: Partial<Observation> = {}): Observation {
  return {
    witness,
    probe: siteProbeName("cloud", site),
    code: "cloud.api_unreachable",
    raised,
    detail: "",
    since: now - 60_000,
    confirmedAt: now,
    ...over,
  };
}

const nothingBefore: Past = { fenced: true, leftByWitnesses: true, brokeOffAt: null };

function decide(
  phase: EnvironmentPhase,
  observations: readonly Observation[],
  over: Partial<EnvironmentSettings> = {},
  past: Partial<Past> = {},
): string {
  const active = phase === "failed_over" || phase === "failing_back" ? "west" : "east";
  const decision: Decision = decideNext({ ...settings, ...over }, record(phase, active), observations, now, {
    ...nothingBefore,
    ...past,
  });
  return decision.next === "run" ? `${decision.kind} by ${decision.by}` : decision.next;
}

const names = settings.witnesses;
const allSee = (site: string, raised: boolean, over: Partial<Observation> = {}): Observation[] =>
  names.map((name) => seen(name, site, raised, over));

test("two of three over time leave; one does not, nor two about the other site", () => {
  assert.equal(decide("protected", [seen("north", "east", true)]), "nothing");
  assert.equal(decide("protected", [seen("north", "east", true), seen("middle", "west", true)]), "nothing");
  assert.equal(decide("protected", allSee("west", true)), "nothing");
  assert.equal(
    decide("protected", [seen("north", "east", true), seen("south", "east", true)]),
    "failover by witnesses",
  );
  const young = { since: now - 2999 };
  assert.equal(decide("protected", allSee("east", true, young)), "nothing");
  assert.equal(decide("protected", allSee("east", true, { since: now - 3000 })), "failover by witnesses");
  assert.equal(decide("protected", allSee("east", true, { confirmedAt: now - 3001 })), "nothing");
});

test("an application counts wherever it is looked at; nothing is decided while a run moves the environment", () => {
  const triggers = [{ codes: ["application.unresponsive" as const], witnesses: 2, forMs: 0 }];
  const over = { probe: "shop", code: "application.unresponsive" } as const;
  const observations = allSee("east", true, over);
  assert.equal(decide("protected", observations, { triggers }), "failover by witnesses");
  for (const phase of ["failing_over", "failing_back", "failed_over"] as const)
    assert.equal(decide(phase, observations, { triggers }), "nothing");
});

test("a site that was left is fenced when it answers anybody, and before anything returns", () => {
  const back = allSee("east", false);
  assert.equal(decide("failed_over", back, {}, { fenced: false }), "fence_source");
  assert.equal(decide("failed_over", [seen("north", "east", false)], {}, { fenced: false }), "fence_source");
  const stale = { confirmedAt: now - 3001 };
  assert.equal(
    decide("failed_over", [seen("north", "east", false, stale)], {}, { fenced: false }),
    "nothing",
  );
  assert.equal(decide("failed_over", allSee("east", true), {}, { fenced: false }), "nothing");
  assert.equal(decide("failed_over", allSee("west", false), {}, { fenced: false }), "nothing");
  const manual = { returnPolicy: "manual" } as const;
  assert.equal(
    decide("failed_over", back, manual, { fenced: false }),
    "fence_source",
    "whoever left, and whatever the policy",
  );
  assert.equal(decide("failed_over", back, {}, { fenced: false, leftByWitnesses: false }), "fence_source");
});

test("the return waits for a stable source, for most of the witnesses, and for nobody to say otherwise", () => {
  assert.equal(decide("failed_over", allSee("east", false)), "failback by return policy");
  assert.equal(decide("failed_over", allSee("east", false).slice(0, 2)), "failback by return policy");
  assert.equal(decide("failed_over", allSee("east", false).slice(0, 1)), "nothing");
  assert.equal(decide("failed_over", allSee("east", false, { since: now - 9999 })), "nothing");
  const [first, ...others] = allSee("east", false);
  assert.ok(first);
  assert.equal(decide("failed_over", [{ ...first, raised: true }, ...others]), "nothing");
  const five = { witnesses: ["a", "b", "c", "d", "e"] };
  assert.equal(decide("failed_over", allSee("east", false).slice(0, 2), five), "nothing");
});

test("what a person began a person ends", () => {
  const back = allSee("east", false);
  for (const returnPolicy of ["wait", "swap"] as const)
    assert.equal(decide("failed_over", back, { returnPolicy }, { leftByWitnesses: false }), "nothing");
  assert.equal(decide("failed_over", back, { returnPolicy: "manual" }), "nothing");
});

test("to swap by policy needs nothing of the old site", () => {
  assert.equal(decide("failed_over", [], { returnPolicy: "swap" }), "swap by return policy");
});

test("what broke off is not begun again at once, and a takeover half-way is not left there", () => {
  const lost = allSee("east", true);
  assert.equal(decide("protected", lost, {}, { brokeOffAt: now - 59_999 }), "nothing");
  assert.equal(decide("protected", lost, {}, { brokeOffAt: now - 60_000 }), "failover by witnesses");
  const back = allSee("east", false);
  assert.equal(decide("failed_over", back, {}, { brokeOffAt: now - 299_999 }), "nothing");
  assert.equal(decide("failed_over", back, {}, { brokeOffAt: now - 300_000 }), "failback by return policy");
  assert.equal(decide("failing_over", [], {}, { brokeOffAt: now - 59_999 }), "nothing");
  assert.equal(decide("failing_over", [], {}, { brokeOffAt: now - 60_000 }), "failover by witnesses");
});
