import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { promisify } from "node:util";
import { argumentsOf, identifyProcess, stillRuns } from "./process-identity.ts";

test("a process is known until it ends, also one that nobody has waited for", async () => {
  const child = spawn("sleep", ["60"]);
  await once(child, "spawn");
  const identity = await identifyProcess(child.pid ?? 0);
  assert.ok(identity !== null);
  assert.equal(await stillRuns(identity), true);
  assert.equal(await stillRuns({ ...identity, startTicks: "1" }), false);
  assert.deepEqual((await argumentsOf(identity.pid)).slice(0, 2), ["sleep", "60"]);
  child.kill("SIGKILL");
  await once(child, "exit");
  assert.equal(await stillRuns(identity), false);
  assert.deepEqual(await argumentsOf(identity.pid), []);
});

test("a process that can't be looked at is not taken for one that ended", async () => {
  const script = `
    import { openSync } from "node:fs";
    import { identifyProcess, stillRuns, argumentsOf } from "#hypervisor/process-identity.ts";
    const own = await identifyProcess(process.pid);
    try {
      for (;;) openSync("/dev/null", "r");
    } catch {}
    const code = (error) => error.code;
    const said = [await stillRuns(own).catch(code), await argumentsOf(own.pid).catch(code)];
    process.stdout.write(JSON.stringify(said));
  `;
  const { stdout } = await promisify(execFile)("/bin/sh", [
    "-c",
    'ulimit -n 60; exec "$0" --input-type=module -e "$1"',
    process.execPath,
    script,
  ]);
  assert.deepEqual(JSON.parse(stdout), ["machine.failing", "machine.failing"]);
});
