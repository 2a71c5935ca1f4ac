import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { silentLog } from "#kernel/log.ts";
import { checkFreezable, holdDisks, letGo } from "./hold-disks.ts";
import type { HoldPlan } from "./hold-plan.ts";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-hold-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Hooks that write down that they ran. */
function planIn(folder: string, more: Partial<HoldPlan> = {}): HoldPlan {
  const note = (word: string): string[] => ["sh", "-c", `echo ${word} >> ${join(folder, "ran")}`];
  return {
    before: note("before"),
    freeze: [],
    after: note("after"),
    limitMs: 60_000,
    hookLimitMs: 10_000,
    ...more,
  };
}

const ran = (folder: string): string[] => readFileSync(join(folder, "ran"), "utf8").trim().split("\n");

test("held between the hooks, and let go when it is asked for", async (t) => {
  const folder = folderOf(t);
  const before = Date.now();
  const held = await holdDisks(folder, planIn(folder), silentLog);
  assert.ok(held.ok);
  assert.ok(held.instantMs >= before && held.instantMs <= Date.now());
  assert.deepEqual(ran(folder), ["before"]);
  assert.equal(await held.release(), null);
  assert.deepEqual(ran(folder), ["before", "after"]);
  assert.ok(!existsSync(join(folder, "hold.json")));
});

test("who asks too late is told that nothing was held any more", async (t) => {
  const folder = folderOf(t);
  const held = await holdDisks(folder, planIn(folder, { limitMs: 1 }), silentLog);
  assert.ok(held.ok);
  while (!ran(folder).includes("after")) await new Promise((resolve) => setTimeout(resolve, 5));
  assert.match((await held.release()) ?? "", /the limit was over/u);
  assert.deepEqual(ran(folder), ["before", "after"]);
});

test("a hook that fails, or takes too long, holds nothing; what it may have done is undone", async (t) => {
  for (const [before, says] of [
    [["sh", "-c", "echo the database is busy; exit 3"], /the database is busy/u],
    [["sleep", "60"], /took longer than 1500 ms/u],
    [["/nonexistent/hook"], /ENOENT/u],
  ] as const) {
    const folder = folderOf(t);
    const plan = planIn(folder, { before: [...before], hookLimitMs: 1500 });
    const held = await holdDisks(folder, plan, silentLog);
    assert.ok(!held.ok);
    assert.match(held.problem, says);
    assert.deepEqual(ran(folder), ["after"]);
  }
});

test("a mount point that cannot be frozen holds nothing", async (t) => {
  const folder = folderOf(t);
  const held = await holdDisks(folder, planIn(folder, { freeze: ["/nonexistent/mount"] }), silentLog);
  assert.ok(!held.ok);
  assert.match(held.problem, /fsfreeze/u);
});

test("what a machine left held when it was switched off is let go at the next start", async (t) => {
  const folder = folderOf(t);
  await letGo(folder, silentLog);
  assert.ok(!existsSync(join(folder, "ran")));
  writeFileSync(join(folder, "hold.json"), JSON.stringify(planIn(folder)));
  await letGo(folder, silentLog);
  assert.deepEqual(ran(folder), ["after"]);
  await letGo(folder, silentLog);
  assert.deepEqual(ran(folder), ["after"]);
});

test("a mount point that holds the agent's own folder, or is not there, is refused", async (t) => {
  const folder = folderOf(t);
  await assert.rejects(checkFreezable(folder, [folder]), /which is to be frozen/u);
  await assert.rejects(checkFreezable(folder, ["/nonexistent"]), /is not there/u);
  await checkFreezable(folder, ["/proc"]);
});
