import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AgentStage, until } from "./agent-stage.ts";
import { undo } from "./undo.ts";

/** Loop devices, mounts and freezes are the kernel's own: only root has them. */
const skip =
  process.getuid?.() === 0 && canMount() ? false : "needs root, loop devices and fsfreeze (util-linux)";

const volume = "vol-0a1b2c3d";
const mebibyte = 1024 * 1024;

interface MountedDisk {
  readonly device: string;
  readonly mountPoint: string;
}

function run(program: string, ...args: string[]): string {
  return execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] }).trim();
}

function canMount(): boolean {
  try {
    run("fsfreeze", "--version");
    run("losetup", "--find");
    return true;
  } catch {
    return false;
  }
}

/** An ext4 file system on a loop device. */
function mountDisk(t: TestContext, sizeBytes = 64 * mebibyte): MountedDisk {
  const folder = mkdtempSync(join(tmpdir(), "understudy-loop-"));
  const image = join(folder, "image");
  const mountPoint = join(folder, "mnt");
  mkdirSync(mountPoint);
  run("truncate", "-s", String(sizeBytes), image);
  run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image);
  const device = run("losetup", "--find", "--show", image);
  run("mount", device, mountPoint);
  undo(t, () => {
    try {
      run("fsfreeze", "--unfreeze", mountPoint);
    } catch {
      // It is not frozen, as it should be.
    }
    run("umount", mountPoint);
    run("losetup", "--detach", device);
    rmSync(folder, { recursive: true, force: true });
  });
  return { device, mountPoint };
}

function isFrozen(mountPoint: string): boolean {
  try {
    // A second freeze is refused; one that succeeds is taken back at once.
    run("fsfreeze", "--freeze", mountPoint);
  } catch {
    return true;
  }
  run("fsfreeze", "--unfreeze", mountPoint);
  return false;
}

function open(t: TestContext, { device, mountPoint }: MountedDisk, more: string): Promise<AgentStage> {
  return AgentStage.open(t, {
    agents: { web: [volume] },
    disks: [{ volume, path: device }],
    agentLines: `every: 1s\n${more.replaceAll("MNT", mountPoint)}`,
  });
}

/** Numbered records, each synchronised before the next one begins. */
function record(path: string, count: number): void {
  const file = openSync(path, "w");
  for (let index = 0; index < count; index += 1) {
    writeSync(file, `${String(index).padStart(7, "0")}\n`);
    fsyncSync(file);
  }
  closeSync(file);
}

test(
  "a mounted file system, frozen for the pass: what comes out mounts, is sound, and holds what was synchronised",
  { skip, timeout: 300_000 },
  async (t) => {
    const disk = mountDisk(t);
    const stage = await open(t, disk, "consistency: {freeze: [MNT], limit: 20s}\n");
    await stage.startVault();
    await stage.startAgent();
    await stage.nextPoint();
    const stop = spawn("sh", [
      "-c",
      `i=0; while :; do i=$((i+1)); echo $i > ${disk.mountPoint}/n; sync ${disk.mountPoint}/n; done`,
    ]);
    undo(t, () => void stop.kill("SIGKILL"));
    record(join(disk.mountPoint, "records"), 200);
    const point = await stage.nextPoint();
    assert.equal(point.consistency, "crash");
    const { bytes } = await stage.content(volume, point.instantMs);
    const copy = mkdtempSync(join(tmpdir(), "understudy-copy-"));
    undo(t, () => rmSync(copy, { recursive: true, force: true }));
    const image = join(copy, "image");
    writeFileSync(image, bytes);
    // A frozen file system is clean: nothing is to be repaired, no journal to be replayed.
    run("e2fsck", "-fn", image);
    mkdirSync(join(copy, "mnt"));
    run("mount", "-o", "ro,loop", image, join(copy, "mnt"));
    const lines = readFileSync(join(copy, "mnt", "records"), "utf8")
      .trim()
      .split("\n");
    run("umount", join(copy, "mnt"));
    assert.equal(lines.length, 200);
    assert.equal(lines.at(-1), "0000199");
    await stage.stopAgent();
    assert.ok(!isFrozen(disk.mountPoint));
  },
);

test(
  "an agent that is killed while a file system is frozen leaves it thawed",
  { skip, timeout: 300_000 },
  async (t) => {
    const disk = mountDisk(t);
    const folder = mkdtempSync(join(tmpdir(), "understudy-hook-"));
    undo(t, () => rmSync(folder, { recursive: true, force: true }));
    const after = `after: [touch, ${join(folder, "after")}]`;
    const before = `before: [touch, ${join(folder, "before")}]`;
    const stage = await open(
      t,
      disk,
      `consistency: {freeze: [MNT], hook: {${before}, ${after}}, limit: 60s}\n`,
    );
    await stage.startVault();
    for (let round = 0; round < 3; round += 1) {
      rmSync(join(folder, "after"), { force: true });
      rmSync(join(folder, "before"), { force: true });
      await stage.startAgent();
      await until("the hold to begin", () => existsSync(join(folder, "before")) || undefined);
      await stage.killAgent();
      // The keeper of the hold outlives the agent, lets go, and says so in this way.
      await until("the hold to be let go", () => existsSync(join(folder, "after")) || undefined);
      const state = join(stage.folder, "agent", "hold.json");
      await until("the plan to be done with", () => !existsSync(state) || undefined);
      assert.ok(!isFrozen(disk.mountPoint));
    }
  },
);

test(
  "a disk that cannot be read within the limit is let go, and the pass is no moment",
  { skip, timeout: 300_000 },
  async (t) => {
    const disk = mountDisk(t);
    const stage = await open(t, disk, "consistency: {freeze: [MNT], limit: 1ms}\n");
    await stage.startVault();
    await stage.startAgent();
    const { lastPass, point } = await stage.agentUntil("a pass", (status) => status.lastPass !== null);
    assert.equal(lastPass?.consistency, "fuzzy");
    assert.match(lastPass.reason ?? "", /the limit was over|took longer than 1 ms/u);
    assert.equal(point, null);
    await stage.stopAgent();
    assert.ok(!isFrozen(disk.mountPoint));
  },
);

test(
  "a disk that is written to although it is said to stand still is no moment",
  { skip, timeout: 300_000 },
  async (t) => {
    const disk = mountDisk(t);
    const stage = await open(t, disk, 'consistency: {hook: {before: ["true"]}}\n');
    await stage.startVault();
    const writer = spawn("sh", [
      "-c",
      `while :; do echo x > ${disk.mountPoint}/n; sync ${disk.mountPoint}/n; done`,
    ]);
    undo(t, () => void writer.kill("SIGKILL"));
    await stage.startAgent();
    const { lastPass } = await stage.agentUntil("a pass", (status) => status.lastPass !== null);
    assert.equal(lastPass?.consistency, "fuzzy");
    assert.match(lastPass.reason ?? "", /was written to while it was held still/u);
  },
);

test("the agent's own folder cannot lie in what is frozen", { skip, timeout: 300_000 }, async (t) => {
  const disk = mountDisk(t);
  const stage = await open(t, disk, "consistency: {freeze: [MNT]}\n");
  const config = join(stage.folder, "understudy-agent.yaml");
  const state = join(disk.mountPoint, "agent");
  writeFileSync(config, readFileSync(config, "utf8").replace("state: ./agent", `state: ${state}`));
  await assert.rejects(stage.startAgent(), /which is to be frozen/u);
});
