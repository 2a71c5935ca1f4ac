/**
 * A process of its own that holds disks still and lets them go: when it is asked to, when the limit is over, and when the agent is gone,
 * however it went. A file system that stays frozen takes its machine with it; so the one who freezes it must outlive the agent.
 *
 *     node hold-keeper.ts FILE      FILE: the plan (hold-plan); gone once all is let go without a problem
 */
import { readFile, rm } from "node:fs/promises";
import { holdPlan, type HoldPlan, type KeeperWord } from "./hold-plan.ts";
import { freezeCommand, runHoldCommand, thawCommand } from "./run-hold-command.ts";

const path = process.argv[2] ?? "";
const plan = holdPlan.parse(JSON.parse(await readFile(path, "utf8")));

// What ends the agent's process group does not end this one before it has let go.
for (const name of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(name, () => {});
// Nobody may be left to hear it.
process.stdout.on("error", () => {});
const say = (word: KeeperWord): void => void process.stdout.write(`${JSON.stringify(word)}\n`);

const released = Promise.withResolvers<"asked" | "limit" | "gone">();
process.stdin.on("data", () => released.resolve("asked"));
process.stdin.on("end", () => released.resolve("gone"));
process.stdin.on("error", () => released.resolve("gone"));

const frozen: string[] = [];
const problem = await hold(plan);
let why: "asked" | "limit" | "gone" = "asked";
if (problem !== null) say({ word: "refused", problem });
else {
  const limit = setTimeout(() => released.resolve("limit"), plan.limitMs);
  say({ word: "held", instantMs: Date.now() });
  why = await released.promise;
  clearTimeout(limit);
}
const problems = await release(plan);
if (problems.length === 0) await rm(path, { force: true });
say({ word: "released", why, problems });
process.exitCode = 0;
process.stdin.destroy();

/** Why it is not held; what was done until then is undone by the release. */
async function hold({ before, freeze, limitMs, hookLimitMs }: HoldPlan): Promise<string | null> {
  const failed = before === null ? null : await runHoldCommand(before, hookLimitMs);
  if (failed !== null) return failed;
  for (const mountPoint of freeze) {
    // A freeze that was ended half-way may have happened.
    frozen.push(mountPoint);
    const problem = await runHoldCommand(freezeCommand(mountPoint), limitMs);
    if (problem !== null) return problem;
  }
  return null;
}

async function release({ after, hookLimitMs }: HoldPlan): Promise<string[]> {
  const problems: (string | null)[] = [];
  for (const mountPoint of frozen.toReversed()) {
    const problem = await runHoldCommand(thawCommand(mountPoint), hookLimitMs);
    // That it was not frozen is no problem: its freeze had failed.
    if (problem !== null && !problem.includes("Invalid argument")) problems.push(problem);
  }
  if (after !== null) problems.push(await runHoldCommand(after, hookLimitMs));
  return problems.filter((one) => one !== null);
}
