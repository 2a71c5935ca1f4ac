// The control plane dies (SIGKILL) at every durable step of every kind of run, is started again, and each time the environment
// ends whole: each server once, no acknowledged command lost, roles and phase right, nothing of a drill left.
// SWEEP=all adds more rounds with two deaths, with a target cloud that loses answers, and under users. SWEEP_SEED picks them.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { after, before, test } from "node:test";
import fc from "fast-check";
import { request } from "undici";
import type { FaultSpec } from "#devcloud/front/fault-rules.ts";
import type { RunKind } from "#model/run.ts";
import { type Ending, untilWhole } from "./check-whole.ts";
import { type EngineUnderTest, isGone } from "./engine-under-test.ts";
import { buildShop, type Expected, Tagger, webPort } from "./small-shop.ts";
import { type Prepared, TwoClouds } from "./two-clouds.ts";
import { until } from "./until.ts";
import { freePort } from "../../../demo/free-ports.ts";

const wide = process.env["SWEEP"] === "all";
const limitMs = wide ? 3_600_000 : 600_000;
const givenSeed = process.env["SWEEP_SEED"];
const seed = Number(givenSeed ?? 20_240_607);
/** What another run of the tests picks anew. */
const firstSeed = givenSeed === undefined ? randomInt(1_000) : seed;
/** As many rounds at once: a part of each is waiting for the control plane's next look. */
const workers = 3;
/** No kind of run has more durable steps than this; reaching it means that the count runs away. */
const most = 400;

interface Play {
  readonly name: string;
  readonly kind: RunKind;
  readonly from: "protected" | "moved";
  /** The other cloud is down throughout. */
  readonly sourceIsDead?: boolean;
  readonly ending: Omit<Ending, "otherAsBefore" | "tagged">;
}

const plays: readonly Play[] = [
  {
    name: "failover from a dead site",
    kind: "failover",
    from: "protected",
    sourceIsDead: true,
    ending: { kind: "failover", serving: "west", phase: "failed_over", runs: 1, other: "down" },
  },
  {
    name: "failover from a site that lives",
    kind: "failover",
    from: "protected",
    ending: { kind: "failover", serving: "west", phase: "failed_over", runs: 1, other: "stopped" },
  },
  {
    name: "failback",
    kind: "failback",
    from: "moved",
    ending: { kind: "failback", serving: "east", phase: "protected", runs: 1, other: "reserve" },
  },
  {
    name: "migration",
    kind: "migrate",
    from: "protected",
    ending: { kind: "migrate", serving: "west", phase: "protected", runs: 1, other: "reserve" },
  },
  {
    name: "swap of a protected environment",
    kind: "swap",
    from: "protected",
    ending: { kind: "swap", serving: "west", phase: "protected", runs: 1, other: "reserve" },
  },
  {
    name: "swap after a failover",
    kind: "swap",
    from: "moved",
    ending: { kind: "swap", serving: "west", phase: "protected", runs: 1, other: "reserve" },
  },
  {
    name: "drill",
    kind: "drill",
    from: "protected",
    ending: { kind: "drill", serving: "east", phase: "protected", runs: 1, other: "reserve" },
  },
];

interface Round {
  /** The durable step, counted from the run's beginning, at which it dies; 0: it does not. */
  readonly killAt: number;
  /** It dies again at this durable step of its next life; 0: it does not. */
  readonly againAt?: number;
  readonly faults?: readonly Partial<FaultSpec>[];
}

interface Stage {
  readonly workers: readonly TwoClouds[];
  readonly expected: Expected;
  readonly prepared: Readonly<Record<Play["from"], Prepared>>;
}

let stage: Stage;
const tagged = "web-2";

async function whole(
  clouds: TwoClouds,
  engine: EngineUnderTest,
  expected: Expected,
  ending: Ending,
  what: string,
): Promise<void> {
  try {
    await untilWhole(clouds, engine, expected, ending, { what: `${what}: the environment to be whole` });
  } catch (error) {
    if (await isGone(engine)) throw error;
    const told = (await engine.events()).map(({ message }) => `\n  ${message}`).join("");
    assert.fail(`${(error as Error).message}${told}`);
  }
}

/** Builds the environment once, and keeps how everything is before the first move and after it. */
async function prepare(first: TwoClouds, more: readonly TwoClouds[]): Promise<Stage> {
  const engine = await first.mustStartEngine();
  const expected = await buildShop(engine.gateway());
  const home: Ending = { kind: "failover", serving: "east", phase: "protected", runs: 0, other: "reserve" };
  await whole(first, engine, expected, home, "preparing");
  await engine.stop();
  const ready = await first.save("protected");
  // East dies, and is back as it was: its servers run, and nobody has fenced them yet.
  await first.stop("east");
  const moving = await first.mustStartEngine();
  await moving.startRun("failover");
  const away: Ending = { ...home, serving: "west", phase: "failed_over", runs: 1, other: "down" };
  await whole(first, moving, expected, away, "preparing");
  await moving.stop();
  const moved = { ...(await first.save("moved")), east: ready.east };
  return { workers: [first, ...more], expected, prepared: { protected: ready, moved } };
}

before(async () => {
  const first = await TwoClouds.open();
  const others = Array.from({ length: workers - 1 }, () => TwoClouds.open({}, first));
  stage = await prepare(first, await Promise.all(others));
});

after(async () => {
  for (const worker of stage.workers) await worker[Symbol.asyncDispose]();
});

/** Answers how often it died. */
async function playRound(
  clouds: TwoClouds,
  play: Play,
  round: Round,
  { prepared: all, expected }: Stage = stage,
  andThen: (ending: Ending) => Promise<void> = () => Promise.resolve(),
): Promise<number> {
  const prepared = all[play.from];
  await clouds.restore(prepared);
  if (play.sourceIsDead === true) await clouds.stop("east");
  const target = play.from === "moved" ? "east" : "west";
  if (round.faults !== undefined) await clouds.setFaults(target, round.faults);
  await using lives = new Lives(clouds);
  const first = await lives.begin();
  const keys = await playRun(lives, first, play, round);
  if (round.faults !== undefined) await clouds.setFaults(target, []);
  const ending: Ending = {
    ...play.ending,
    ...(play.kind === "drill" ? { otherAsBefore: prepared.west } : {}),
    ...(keys === undefined ? {} : { tagged: { server: tagged, keys } }),
  };
  const again = round.againAt === undefined ? "" : ` and ${round.againAt}`;
  const what = `${play.name}, killed at step ${round.killAt}${again}`;
  try {
    await whole(clouds, lives.current, expected, ending, what);
  } catch (error) {
    // Its last durable steps come after the run's end: then it has died only now.
    if (!(await isGone(lives.current))) throw error;
    await whole(clouds, await lives.begin(), expected, ending, what);
  }
  await andThen(ending);
  return lives.deaths;
}

/** Answers with the tags that were acknowledged meanwhile. */
async function playRun(
  lives: Lives,
  first: EngineUnderTest,
  play: Play,
  round: Round,
): Promise<readonly string[] | undefined> {
  // A drill leaves the environment alone, and a dead site takes no commands.
  const busy = play.sourceIsDead !== true && play.kind !== "drill";
  const tagger = busy
    ? new Tagger(first.gateway(play.from === "moved" ? "west" : "east"), await idOf(first, tagged))
    : undefined;
  await until(
    "the first acknowledged tag",
    () => Promise.resolve(tagger),
    (seen) => seen === undefined || seen.acknowledged.length > 0,
  );
  await first.arm(round.killAt);
  const ended = await startAndFollow(first, play.kind);
  const keys = await tagger?.stop();
  if (ended) return keys;
  const second = await lives.begin(round.againAt ?? 0);
  if (second !== undefined && (await resumeAndFollow(second, play.kind))) return keys;
  assert.ok(await resumeAndFollow(await lives.begin(), play.kind), "it was not told to die a third time");
  return keys;
}

/** The control plane's processes over one data folder, one after the other. */
class Lives implements AsyncDisposable {
  readonly #clouds: TwoClouds;
  #current: EngineUnderTest | undefined;
  #begun = 0;

  constructor(clouds: TwoClouds) {
    this.#clouds = clouds;
  }

  get deaths(): number {
    return this.#begun - 1;
  }

  get current(): EngineUnderTest {
    assert.ok(this.#current);
    return this.#current;
  }

  begin(): Promise<EngineUnderTest>;
  begin(killAt: number): Promise<EngineUnderTest | undefined>;
  async begin(killAt = 0): Promise<EngineUnderTest | undefined> {
    await this.#current?.stop();
    this.#begun += 1;
    this.#current = await this.#clouds.startEngine(killAt);
    return this.#current;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#current?.kill();
  }
}

async function idOf(engine: EngineUnderTest, name: string): Promise<string> {
  const found = (await engine.resources()).find(
    ({ kind, tags }) => kind === "server" && tags["Name"] === name,
  );
  assert.ok(found);
  return found.id;
}

/** False: it died. */
async function startAndFollow(engine: EngineUnderTest, kind: RunKind): Promise<boolean> {
  try {
    await engine.startRun(kind, { force: kind === "migrate" });
  } catch (error) {
    // Killed at the run's first record: it stands, although nobody was told.
    if (await isGone(engine)) return false;
    throw error;
  }
  return followRun(engine, kind);
}

/** Whoever asked for a run and was not answered looks whether it was begun, and asks again if it was not. */
async function resumeAndFollow(engine: EngineUnderTest, kind: RunKind): Promise<boolean> {
  try {
    const runs = await engine.runs();
    if (!runs.some((run) => run.kind === kind)) await engine.startRun(kind, { force: kind === "migrate" });
  } catch (error) {
    if (await isGone(engine)) return false;
    throw error;
  }
  return followRun(engine, kind);
}

async function followRun(engine: EngineUnderTest, kind: RunKind): Promise<boolean> {
  try {
    await until(
      `the ${kind} to end`,
      () => engine.runs(),
      (runs) => runs.some((run) => run.kind === kind) && runs.every(({ state }) => state !== "running"),
      60_000,
    );
    return true;
  } catch (error) {
    if (await isGone(engine)) return false;
    throw error;
  }
}

/** Rounds taken by the workers, each on clouds of its own, until there are no more. */
async function inParallel(work: (clouds: TwoClouds) => Promise<boolean>): Promise<void> {
  const failures: unknown[] = [];
  await Promise.all(
    stage.workers.map(async (clouds) => {
      for (let more = true; more && failures.length < 5;) {
        try {
          more = await work(clouds);
        } catch (error) {
          failures.push(error);
        }
      }
    }),
  );
  if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join("\n"));
}

for (const play of plays) {
  test(`${play.name}: killed at every durable step`, { timeout: limitMs }, async (t) => {
    let next = 1;
    let last = 0;
    let survived = false;
    await inParallel(async (clouds) => {
      const killAt = next;
      next += 1;
      assert.ok(killAt < most, "the durable steps of a run are bounded");
      if ((await playRound(clouds, play, { killAt })) > 0) last = Math.max(last, killAt);
      else survived = true;
      // The others have gone past the last step too when they answer.
      return !survived;
    });
    t.diagnostic(`${last} durable steps`);
    assert.ok(last > 10, "a run has more than a handful of durable steps");
  });
}

test("killed twice, at random", { timeout: limitMs }, async (t) => {
  t.diagnostic(`SWEEP_SEED=${seed}`);
  const round = fc.record({
    play: fc.constantFrom(...plays),
    killAt: fc.integer({ min: 1, max: 25 }),
    againAt: fc.integer({ min: 1, max: 25 }),
  });
  const rounds = fc.sample(round, { seed, numRuns: wide ? 120 : 16 });
  let twice = 0;
  await inParallel(async (clouds) => {
    const one = rounds.shift();
    if (one === undefined) return false;
    if ((await playRound(clouds, one.play, one)) === 2) twice += 1;
    return true;
  });
  assert.ok(twice > 0, "some of them died twice");
});

test("killed while the target cloud loses answers and throttles", { timeout: limitMs }, async (t) => {
  t.diagnostic(`SWEEP_SEED=${seed}`);
  const round = fc.record({
    play: fc.constantFrom(...plays),
    killAt: fc.integer({ min: 0, max: 25 }),
    faultSeed: fc.integer({ min: 1, max: 1_000_000 }),
    answer: fc.constantFrom("error", "cut"),
  });
  const rounds = fc.sample(round, { seed, numRuns: wide ? 120 : 16 });
  await inParallel(async (clouds) => {
    const one = rounds.shift();
    if (one === undefined) return false;
    const { play, killAt, faultSeed, answer } = one;
    const faults: Partial<FaultSpec>[] = [
      "Run*",
      "Create*",
      "A*",
      "Modify*",
      "Delete*",
      "Terminate*",
      "St*",
    ].map((operation, index) => ({
      operation,
      effect: "fail-after",
      answer,
      probability: 0.4,
      count: 3,
      seed: faultSeed + index,
    }));
    faults.push({
      operation: "*",
      effect: "refuse",
      status: 503,
      code: "RequestLimitExceeded",
      probability: 0.15,
      count: 8,
      seed: faultSeed,
    });
    await playRound(clouds, play, { killAt, faults });
    return true;
  });
});

test(
  "killed under its users: afterwards they are answered by the site that serves",
  { timeout: limitMs },
  async (t) => {
    const port = await freePort();
    await using clouds = await TwoClouds.open({
      compute: "process",
      addressBases: ["127.47.0.0/16", "127.48.0.0/16"],
      more: `    traffic: [{name: web, select: {tier: web}, port: ${webPort}, through: {forwarder: {listen: "127.0.0.1:${port}", mode: http, drain: 100ms}}}]
    probes: [{name: cloud, every: 1s, timeout: 1s, check: {cloudApi: active}}]
    failover: {triggers: []}
`,
    });
    const routed = await prepare(clouds, []);
    // Three of a run's first thirty, ten apart.
    const some = [0, 10, 20].map((more) => 1 + (firstSeed % 10) + more);
    const steps = wide ? Array.from({ length: 45 }, (_, index) => index + 1) : some;
    t.diagnostic(`SWEEP_SEED=${firstSeed}: killed at ${steps.join(", ")}`);
    for (const play of plays.filter(({ kind }) => kind !== "drill")) {
      for (const killAt of steps) {
        await playRound(clouds, play, { killAt }, routed, async ({ serving }) => {
          const ids = (await clouds.dump(serving)).tables.server.map(({ id }) => id);
          const { statusCode, body } = await request(`http://127.0.0.1:${port}/`, { reset: true });
          const answer = await body.text();
          assert.equal(statusCode, 200, answer);
          assert.ok(
            ids.includes(answer),
            `${play.name}, killed at ${killAt}: ${answer} answers, not ${serving}`,
          );
        });
      }
    }
  },
);
