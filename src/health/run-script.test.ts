import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runScript } from "#health/run-script.ts";

const folder = mkdtempSync(join(tmpdir(), "script-"));
after(() => rmSync(folder, { recursive: true }));
const { signal } = new AbortController();

function script(name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

const run = (path: string, limitMs = 10_000) =>
  runScript({ path, variables: { UNDERSTUDY_SERVER_ADDRESS: "127.0.0.9" }, limitMs }, signal);

test("its exit code is the verdict, and what it printed is kept", async () => {
  const good = await run(script("good", 'echo "at $UNDERSTUDY_SERVER_ADDRESS"; echo fine >&2'));
  assert.equal(good.problem, null);
  assert.match(good.output, /at 127\.0\.0\.9/u);
  assert.match(good.output, /fine/u);
  assert.deepEqual(await run(script("bad", "echo torn; exit 7")), {
    problem: "it ended with 7",
    output: "torn\n",
  });
  assert.match((await run(script("shot", "kill -TERM $$"))).problem ?? "", /SIGTERM ended it/u);
});

test("it sees nothing of our own environment", async () => {
  process.env["SECRET_OF_OURS"] = "hunter2";
  const { output } = await run(script("env", "env"));
  delete process.env["SECRET_OF_OURS"];
  assert.doesNotMatch(output, /hunter2/u);
  assert.match(output, /PATH=/u);
});

test("past its limit it is ended, with what it has started", async () => {
  const mark = join(folder, "mark");
  const path = script("slow", `(sleep 1; touch ${mark}) & sleep 60`);
  assert.equal((await run(path, 200)).problem, "it did not end within 200 ms");
  await new Promise((resolve) => setTimeout(resolve, 1300));
  assert.equal(existsSync(mark), false);
});

test("what it leaves in the background holds nothing up; endless output is bounded to its end", async () => {
  assert.equal((await run(script("left", "sleep 60 & exit 0"))).problem, null);
  const { output } = await run(script("loud", "yes line | head -c 300000; echo last"));
  assert.ok(output.length <= 16_384);
  assert.match(output, /last\n$/u);
});

test("a program that is none is a verdict, not a crash; an abort ends it", async () => {
  assert.match((await run(join(folder, "nowhere"))).problem ?? "", /can't be started/u);
  const stop = new AbortController();
  const asked = runScript({ path: script("long", "sleep 60"), variables: {}, limitMs: 60_000 }, stop.signal);
  stop.abort(new Error("enough"));
  await assert.rejects(asked, /enough/u);
});
