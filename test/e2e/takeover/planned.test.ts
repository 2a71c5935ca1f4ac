// Moves that a person asks for: refused, rolled back or forced; and what the gateway says meanwhile.
import assert from "node:assert/strict";
import { test } from "node:test";
import { CreateTagsCommand } from "@aws-sdk/client-ec2";
import { type Ending, untilWhole } from "./check-whole.ts";
import type { EngineUnderTest } from "./engine-under-test.ts";
import { buildShop, type Expected } from "./small-shop.ts";
import { TwoClouds } from "./two-clouds.ts";
import { until } from "./until.ts";

const home: Ending = { kind: "drill", serving: "east", phase: "protected", runs: 0, other: "reserve" };

async function open(): Promise<{ clouds: TwoClouds; engine: EngineUnderTest; expected: Expected }> {
  const clouds = await TwoClouds.open();
  const engine = await clouds.mustStartEngine();
  const expected = await buildShop(engine.gateway());
  await untilWhole(clouds, engine, expected, home);
  return { clouds, engine, expected };
}

async function ended(
  engine: EngineUnderTest,
  kind: string,
): Promise<{ state: string; error: string | null }> {
  const runs = await until(
    `the ${kind} to end`,
    () => engine.runs(),
    (all) => all.some((run) => run.kind === kind) && all.every(({ state }) => state !== "running"),
    90_000,
  );
  const run = runs.find((one) => one.kind === kind);
  assert.ok(run);
  return run;
}

function tag(engine: EngineUnderTest, id: string, side: "east" | "west" = "east"): Promise<unknown> {
  const command = new CreateTagsCommand({ Resources: [id], Tags: [{ Key: "after", Value: "1" }] });
  return engine.gateway(side).send(command);
}

test(
  "a standby that refuses: the move is rolled back and everything is as before",
  { timeout: 180_000 },
  async () => {
    const { clouds, engine, expected } = await open();
    await using _clouds = clouds;
    await using _engine = engine;
    await clouds.setQuotas("west", { servers: 2 });
    await engine.startRun("failover");
    const run = await ended(engine, "failover");
    assert.equal(run.state, "rolled_back");
    assert.match(run.error ?? "", /east works and west would not be whole: .*--force/);
    const server = expected.ids.get("web-2") ?? "";
    await tag(engine, server);
    await untilWhole(clouds, engine, expected, { ...home, tagged: { server: "web-2", keys: ["after"] } });
    assert.equal((await engine.status()).epoch, 3, "one epoch for the move, one for the way back");
  },
);

test(
  "with force and a reason it goes as far as it gets, and says what is missing",
  { timeout: 180_000 },
  async () => {
    const { clouds, engine, expected } = await open();
    await using _clouds = clouds;
    await using _engine = engine;
    await clouds.setQuotas("west", { servers: 4 });
    await assert.rejects(engine.startRun("failover", { force: true, reason: " " }), /400 .*say why/);
    await engine.startRun("failover", { force: true, reason: "the building burns" });
    const run = await ended(engine, "failover");
    assert.equal(run.state, "incomplete");
    assert.match(run.error ?? "", /not whole: 4 of 5 servers/);
    const [kept] = await engine.runs();
    assert.equal(kept?.reason, "the building burns");
    const status = await engine.status();
    assert.deepEqual([status.phase, status.activeSite], ["failed_over", "west"]);
    assert.ok(status.gaps.lost > 0, "what is missing is named");
    // All of the old side is stopped, the server without a counterpart as well.
    const east = await clouds.dump("east");
    assert.deepEqual([...new Set(east.tables.server.map(({ state }) => state))], ["stopped"]);
    // The way back finds the one again that could not follow.
    await engine.startRun("failback");
    assert.equal((await ended(engine, "failback")).state, "succeeded");
    await untilWhole(clouds, engine, expected, { ...home, kind: "failback", runs: 1 });
  },
);

test(
  "while the environment moves its gateway takes no change, and says where it goes",
  { timeout: 180_000 },
  async () => {
    const { clouds, engine, expected } = await open();
    await using _clouds = clouds;
    await using _engine = engine;
    const server = expected.ids.get("web-2") ?? "";
    // The site that it moves to takes its time.
    const slow = { operation: "RunInstances", effect: "slow", delayMs: 2000 } as const;
    await clouds.setFaults("west", [slow]);
    await engine.startRun("failover");
    await until(
      "the move to be seen",
      () => engine.status(),
      ({ phase }) => phase === "failing_over",
    );
    const refusal = await tag(engine, server).then(
      () => undefined,
      (error: Error) => error,
    );
    assert.ok(refusal, "it was acknowledged while the environment moved");
    assert.match(refusal.message, /west|takes commands again/);
    const { journal } = await engine.status();
    assert.equal(journal.open, 0, "what was refused is not left open");
    await assert.rejects(engine.startRun("drill"), /409 .*in a failover already/);
    assert.equal((await ended(engine, "failover")).state, "succeeded");
    await clouds.setFaults("west", []);
    const copy = (await engine.resources()).find(({ tags }) => tags["Name"] === "web-2")?.id ?? "";
    await tag(engine, copy, "west");
    await assert.rejects(tag(engine, server), "the old side's tool is told");
    await assert.rejects(engine.startRun("drill"), /409 .*failed over/);
    await engine.startRun("failback");
    assert.equal((await ended(engine, "failback")).state, "succeeded");
    await tag(engine, server);
    const tagged = { server: "web-2", keys: ["after"] };
    await untilWhole(clouds, engine, expected, { ...home, kind: "failback", runs: 1, tagged });
  },
);
