/** Holds disks still for the time of a pass, by a keeper process. */
import { type ChildProcess, spawn } from "node:child_process";
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { holdPlan, type HoldPlan, keeperWord, type KeeperWord } from "./hold-plan.ts";
import { runHoldCommand, thawCommand } from "./run-hold-command.ts";

export type Held =
  | { readonly ok: false; readonly problem: string }
  | {
      readonly ok: true;
      /** The moment that the disks stay at. */
      readonly instantMs: number;
      /** Null: they were held until now. Else why they were not. */
      release(): Promise<string | null>;
    };

const planIn = (folder: string): string => join(folder, "hold.json");

/** `state`: the agent's folder. Nothing is held when it answers `ok: false`. Errors: `store.*` when the plan cannot be kept. */
export async function holdDisks(state: string, plan: HoldPlan, log: Log): Promise<Held> {
  const path = planIn(state);
  await replaceFile(path, JSON.stringify(plan));
  const keeper = spawn(process.execPath, [keeperPath, path], {
    stdio: ["pipe", "pipe", "inherit"],
    // A group of its own: what a terminal sends to the agent's does not reach it.
    detached: true,
  });
  const words = listen(keeper);
  const first = await words.next();
  if (first?.word === "held") {
    const { instantMs } = first;
    return { ok: true, instantMs, release: () => release(state, keeper, words, log) };
  }
  const problem = first?.word === "refused" ? first.problem : "the keeper of the hold ended";
  const end = await words.next();
  if (end?.word !== "released") await letGo(state, log);
  else if (end.problems.length > 0) log.error({}, `what was held is not let go: ${end.problems.join("; ")}`);
  return { ok: false, problem };
}

const keeperPath = fileURLToPath(new URL("./hold-keeper.ts", import.meta.url));

/** What a machine that was switched off, or a keeper that was killed, left held. To be called before anything is held. */
export async function letGo(state: string, log: Log): Promise<void> {
  const text = await readFileIfAny(planIn(state));
  if (text === null) return;
  const { freeze, after, hookLimitMs } = holdPlan.parse(JSON.parse(text));
  for (const mountPoint of freeze.toReversed()) {
    // Most likely it is not frozen any more: then this is refused, and that is well.
    await runHoldCommand(thawCommand(mountPoint), hookLimitMs);
  }
  const problem = after === null ? null : await runHoldCommand(after, hookLimitMs);
  if (problem === null) await rm(planIn(state), { force: true });
  else log.error({}, `what an earlier hold left behind could not be cleaned up: ${problem}`);
}

/** A file system that is frozen cannot hold the agent's own folder: the pass would wait for itself. Errors: `config.invalid`. */
export async function checkFreezable(state: string, freeze: readonly string[]): Promise<void> {
  const { dev } = await stat(state);
  for (const mountPoint of freeze) {
    const facts = await stat(mountPoint).catch((cause: unknown) => {
      throw new OperationalError("config.invalid", `consistency.freeze: ${mountPoint} is not there`, {
        cause,
      });
    });
    if (facts.dev !== dev) continue;
    throw new OperationalError(
      "config.invalid",
      `the agent's state folder ${state} lies in ${mountPoint}, which is to be frozen: put it elsewhere, or use a snapshot (consistency.hook)`,
    );
  }
}

async function release(state: string, keeper: ChildProcess, words: Words, log: Log): Promise<string | null> {
  keeper.stdin?.end("release\n");
  const word = await words.next();
  if (word?.word !== "released") {
    await letGo(state, log);
    return "the keeper of the hold ended before it was asked to";
  }
  if (word.problems.length > 0) log.error({}, `what was held is not let go: ${word.problems.join("; ")}`);
  return word.why === "asked" ? null : "the disks could not be held until they were read: the limit was over";
}

interface Words {
  /** Undefined: the keeper has ended. */
  next(): Promise<KeeperWord | undefined>;
}

function listen(keeper: ChildProcess): Words {
  // It may have ended, or never begun: both show in that nothing more is said.
  keeper.on("error", () => {});
  keeper.stdin?.on("error", () => {});
  if (keeper.stdout === null) return { next: async () => undefined };
  const lines = createInterface({ input: keeper.stdout })[Symbol.asyncIterator]();
  return {
    async next() {
      const line = await lines.next();
      return line.done === true ? undefined : keeperWord.parse(JSON.parse(line.value));
    },
  };
}
