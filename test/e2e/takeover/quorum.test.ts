// Three witnesses. One that lies moves nothing; two that agree over time begin the takeover; the site that comes back is fenced
// first, and the environment returns by itself when nobody says otherwise.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { request } from "undici";
import { type Ending, untilWhole } from "./check-whole.ts";
import type { EngineUnderTest } from "./engine-under-test.ts";
import { buildShop, webPort } from "./small-shop.ts";
import { TwoClouds } from "./two-clouds.ts";
import { until } from "./until.ts";
import { WitnessUnderTest } from "./witness-under-test.ts";
import { freePort } from "../../../demo/free-ports.ts";

const names = ["north", "middle", "south"] as const;

/** Quick probes, so that the test need not wait long: a witness that was silent for 2.1 s says nothing. */
function environment(port: number): string {
  return `    traffic: [{name: web, select: {tier: web}, port: ${webPort}, through: {forwarder: {listen: "127.0.0.1:${port}", mode: http, drain: 100ms}}}]
    probes: [{name: cloud, every: 200ms, timeout: 500ms, check: {cloudApi: active}}]
    witnesses: [${names.map((name) => `{name: ${name}, token: {file: ./${name}.token}}`).join(", ")}]
    failover: {triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: 1s}]}
    return: {policy: wait, stableFor: 1s}
`;
}

/** Who answers at the users' address: the id of a server. */
async function answering(port: number): Promise<string> {
  try {
    const { body } = await request(`http://127.0.0.1:${port}/`, { reset: true });
    return await body.text();
  } catch (error) {
    return `nobody: ${String(error)}`;
  }
}

/** How long the state that a witness tells of one site has lasted, in milliseconds; -1 if it says otherwise. */
async function saidFor(
  engine: EngineUnderTest,
  witness: string,
  probe: string,
  raised: boolean,
): Promise<number> {
  const { witnesses } = await engine.status();
  const said = witnesses.find(
    (one) => one.witness === witness && one.probe === probe && one.code === "cloud.api_unreachable",
  );
  return said?.raised === raised ? said.confirmedAt - said.since : -1;
}

test("witnesses decide together", { timeout: 300_000 }, async (t) => {
  const port = await freePort();
  await using clouds = await TwoClouds.open({
    compute: "process",
    addressBases: ["127.45.0.0/16", "127.46.0.0/16"],
    more: environment(port),
  });
  for (const name of names)
    writeFileSync(join(clouds.folder, `${name}.token`), randomBytes(24).toString("hex"), { mode: 0o600 });
  await using engine = await clouds.mustStartEngine();
  const expected = await buildShop(engine.gateway());
  const home: Ending = { kind: "failover", serving: "east", phase: "protected", runs: 0, other: "reserve" };
  await untilWhole(clouds, engine, expected, home, { limitMs: 60_000 });
  const start = (name: string): Promise<WitnessUnderTest> =>
    WitnessUnderTest.start(engine.api, join(clouds.folder, `${name}.token`));
  const [north, middle, south] = await Promise.all([start("north"), start("middle"), start("south")]);
  t.after(() => Promise.all([north.stop(), middle.stop(), south.stop()]));

  south.lies = true;
  await until(
    "the liar to have said so for long enough",
    () => saidFor(engine, "south", "cloud@east", true),
    (ms) => ms > 3000,
  );
  assert.deepEqual(await engine.runs(), [], "one voice of three begins nothing");
  assert.match(await answering(port), /^i-/);

  await clouds.stop("east");
  await until(
    "the takeover",
    () => engine.runs(),
    (runs) => runs.some(({ state }) => state === "succeeded"),
    60_000,
  );
  const [failover] = await engine.runs();
  assert.equal(failover?.trigger, "witnesses");
  await untilWhole(
    clouds,
    engine,
    expected,
    {
      ...home,
      serving: "west",
      phase: "failed_over",
      runs: 1,
      other: "down",
    },
    { limitMs: 60_000 },
  );
  const westIds = (await clouds.dump("west")).tables.server.map(({ id }) => id);
  assert.ok(westIds.includes(await answering(port)), "users are answered by the copy");

  // It is back with all its servers running, as after a cut network: they are stopped before anything else.
  await clouds.start("east");
  await until(
    "the old side to be fenced",
    () => clouds.dump("east"),
    ({ tables }) => tables.server.every(({ state }) => state === "stopped"),
  );
  await until(
    "it to be seen for long enough",
    () => saidFor(engine, "north", "cloud@east", false),
    (ms) => ms > 3000,
  );
  assert.equal((await engine.runs()).length, 1, "while one says otherwise nothing returns");
  assert.ok(westIds.includes(await answering(port)));

  // What it lied about is no longer told, and an old word is no word.
  await south.stop();
  await untilWhole(clouds, engine, expected, { ...home, kind: "failback", runs: 1 }, { limitMs: 60_000 });
  const back = (await engine.runs()).find(({ kind }) => kind === "failback");
  assert.equal(back?.trigger, "return policy");
  const eastIds = (await clouds.dump("east")).tables.server.map(({ id }) => id);
  await until(
    "users to be answered at home",
    () => answering(port),
    (id) => eastIds.includes(id),
  );
});
