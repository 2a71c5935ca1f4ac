import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import type { MachineSpecInput } from "#hypervisor/machine-spec.ts";
import { until } from "#testing/until.ts";
import { get, guestImage, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const CHILD = join(import.meta.dirname, "agent-child.ts");

/** Starts an agent and follows what it says; resolves when it says `until`, or is dead. */
async function agent(
  stage: Stage,
  spec: MachineSpecInput,
  actions: string,
  { dieAt = 0, until = "" } = {},
): Promise<{ child: ChildProcess; lines: string[] }> {
  const args = [stage.hostFolder, JSON.stringify(spec), actions, String(dieAt)];
  const child = spawn(process.execPath, [CHILD, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stdout })) {
    lines.push(line);
    if (line === until) break;
  }
  return { child, lines };
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exited;
}

/** Processes that run with this machine's folder as their own. */
function qemusIn(folder: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^[0-9]+$/.test(name))
    .filter((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
        const state = /\) (\S)/.exec(readFileSync(`/proc/${pid}/stat`, "latin1"))?.[1];
        const cwd = readlinkSync(`/proc/${pid}/cwd`);
        return words[0]?.startsWith("qemu-system") === true && state !== "Z" && cwd === folder;
      } catch {
        return false;
      }
    })
    .map(Number);
}

test(
  "guests outlive an agent that is killed, and the next one adopts them",
  { skip, timeout: 90_000 },
  async (t) => {
    await using stage = new Stage();
    const port = await freePort();
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const spec = webGuest("web", port, { disks: [{ id: "data", content }] });
    const { child } = await agent(stage, spec, "create start", { until: "done start" });
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    await kill(child);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
    const [qemu] = qemusIn(join(stage.hostFolder, "machines/web"));

    const host = await stage.openHost();
    await host.resumed;
    const machine = host.machine("web");
    assert.equal(machine.state, "running");
    assert.equal(machine.record.process?.pid, qemu);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "3");

    // A second agent is refused while this one has the folder.
    const second = await agent(stage, spec, "start", { until: "done start" });
    assert.deepEqual(second.lines, []);
    await kill(second.child);

    // A QEMU that dies is seen, though it is nobody's child.
    process.kill(qemu ?? 0, "SIGKILL");
    await stage.notice("machine.died");
    assert.equal(machine.state, "off");
  },
);

test(
  "killed at any step, an agent's successor brings about what was asked for, and no guest runs twice",
  { skip, timeout: 240_000 },
  async (t) => {
    const { kernelPath, initrdPath } = guestImage();
    const spec: MachineSpecInput = {
      id: "swept",
      memoryMiB: 96,
      cpus: 1,
      boot: { kind: "kernel", kernelPath, initrdPath },
      disks: [{ id: "data", content: { kind: "blank", sizeBytes: 1024 * 1024 } }],
    };
    const actions = "create start pause resume stop destroy";
    for (let dieAt = 1; ; dieAt++) {
      await using stage = new Stage();
      const { child, lines } = await agent(stage, spec, actions, { dieAt, until: "done destroy" });
      await kill(child);
      const folder = join(stage.hostFolder, "machines/swept");
      const host = await stage.openHost();
      await host.resumed;
      const step = lines.at(-1) ?? "";
      const running = qemusIn(folder);
      assert.ok(running.length <= 1, `${step}: ${running.length} run`);
      const machine = host.list()[0];
      const failed = stage.notices.filter(({ code }) => code === "machine.not_resumed");
      assert.deepEqual(failed, [], step);
      if (machine !== undefined) {
        assert.equal(machine.record.phase, "present", step);
        const wanted = { on: "running", paused: "paused", off: "off" }[machine.record.power];
        // A QEMU that has just been started opens its monitor late on a busy machine; it is asked again until it does.
        await until(`${step}: a monitor that answers`, () => machine.state !== "unreachable" || undefined);
        assert.equal(machine.state, wanted, step);
        assert.equal(running.length, wanted === "off" ? 0 : 1, step);
        // What was acknowledged is what is wanted.
        const last = lines.findLast((line) => line.startsWith("done"));
        const next = lines.findLast((line) => line.startsWith("checkpoint"));
        if (last === "done start" && next?.includes("after") === false) assert.equal(wanted, "running", step);
      } else {
        assert.equal(existsSync(folder), false, step);
        assert.equal(running.length, 0, step);
      }
      // And it can be used: the same calls again end as they would have.
      const again = await host.create(spec);
      await again.start();
      assert.equal(again.state, "running", step);
      assert.equal(qemusIn(folder).length, 1, step);
      await host.destroy("swept");
      assert.equal(qemusIn(folder).length, 0, step);
      if (lines.includes("done destroy")) {
        t.diagnostic(`${dieAt - 1} steps`);
        assert.ok(dieAt > 15, "the child went through its steps");
        break;
      }
    }
  },
);
