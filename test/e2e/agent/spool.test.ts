import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AgentStage } from "./agent-stage.ts";
import { undo } from "./undo.ts";
import { WrittenDisk } from "./written-disk.ts";

const volume = "vol-0a1b2c3d";
const block = 256 * 1024;

async function open(
  t: TestContext,
  sizeBytes: number,
  more = "",
): Promise<{ readonly stage: AgentStage; readonly disk: WrittenDisk }> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  const disk = new WrittenDisk(folder, "data", sizeBytes);
  undo(t, () => {
    disk[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  const stage = await AgentStage.open(t, {
    agents: { web: [volume] },
    disks: [{ volume, path: disk.path }],
    agentLines: `every: 1s\n${disk.consistency}${more}`,
  });
  await stage.startVault();
  await stage.startAgent();
  await stage.nextPoint();
  return { stage, disk };
}

/** A pass that began after now has ended, wherever it is. */
async function nextPass(stage: AgentStage): Promise<number> {
  const from = Date.now();
  const { lastPass } = await stage.agentUntil(
    "a pass",
    (status) => (status.lastPass?.startedMs ?? 0) > from && status.lastPass?.consistency === "crash",
  );
  return lastPass?.instantMs ?? 0;
}

test(
  "without a network each pass is kept; when it is back, each is the moment that it was",
  { timeout: 300_000 },
  async (t) => {
    const { stage, disk } = await open(t, 8 * 1024 * 1024);
    stage.network.cut();
    const instants: number[] = [];
    for (let pass = 0; pass < 3; pass += 1) {
      while (!disk.write(pass * block, randomBytes(block)))
        await new Promise((resolve) => setTimeout(resolve, 5));
      instants.push(await nextPass(stage));
      // What is spooled is there after a restart, too.
      if (pass === 1) {
        await stage.killAgent();
        await stage.startAgent();
      }
    }
    const away = await stage.agentUntil("it to say so", ({ sending }) => sending.state === "away");
    assert.ok(away.spool.parts >= 3, `${away.spool.parts} parts`);
    assert.match(away.sending.problem ?? "", /does not answer/u);
    assert.ok((away.point?.instantMs ?? 0) < (instants[0] ?? 0));
    stage.network.mend();
    await stage.agentUntil("the spool to be empty", ({ spool }) => spool.parts === 0);
    for (const instantMs of instants) {
      const kept = await stage.content(volume, instantMs);
      assert.equal(kept.at, instantMs);
      assert.ok(kept.bytes.equals(disk.truthAt(instantMs)), `the moment ${instantMs}`);
    }
  },
);

test(
  "a spool that is full is no larger than its limit, and costs moments, not content",
  { timeout: 300_000 },
  async (t) => {
    const limit = 32 * 1024 * 1024;
    const { stage, disk } = await open(t, 64 * 1024 * 1024, "spoolLimit: 32MiB\n");
    stage.network.cut();
    while (!disk.write(0, randomBytes(64 * 1024 * 1024)))
      await new Promise((resolve) => setTimeout(resolve, 5));
    const full = await stage.agentUntil(
      "the spool to be full",
      ({ spool }) => spool.bytes + 9_000_000 > limit,
    );
    assert.ok(full.spool.bytes <= limit, `${full.spool.bytes} bytes`);
    stage.network.mend();
    await stage.nextPoint();
    const kept = await stage.content(volume, null);
    assert.ok(kept.bytes.equals(disk.content));
  },
);

test("outside of its window it reads, and sends nothing", { timeout: 300_000 }, async (t) => {
  const { stage, disk } = await open(t, 4 * 1024 * 1024);
  await stage.stopAgent();
  const config = join(stage.folder, "understudy-agent.yaml");
  const text = readFileSync(config, "utf8");
  const hours = (offset: number): string =>
    `${String((new Date().getUTCHours() + offset) % 24).padStart(2, "0")}:00`;
  writeFileSync(config, `${text}window: {ranges: ["${hours(2)}-${hours(3)}"]}\n`);
  disk.write(0, randomBytes(block));
  const before = stage.network.carriedBytes;
  await stage.startAgent();
  await nextPass(stage);
  const status = await stage.agentUntil("a second pass", ({ spool }) => spool.parts >= 2);
  assert.equal(status.sending.state, "outside_window");
  assert.equal(stage.network.carriedBytes, before);
  await stage.stopAgent();
  writeFileSync(config, `${text}window: {ranges: ["${hours(0)}-${hours(2)}"]}\n`);
  await stage.startAgent();
  await stage.nextPoint();
  assert.ok((await stage.content(volume, null)).bytes.equals(disk.content));
});

const skip = process.getuid?.() === 0 ? false : "needs root: a small file system is mounted";

test(
  "a full disk under the agent's folder is said; once there is room it goes on",
  { skip, timeout: 300_000 },
  async (t) => {
    const { stage, disk } = await open(t, 64 * 1024 * 1024);
    await stage.stopAgent();
    const small = mkdtempSync(join(tmpdir(), "understudy-small-"));
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=24m", "none", small]);
    undo(t, async () => {
      await stage.killAgent();
      execFileSync("umount", [small]);
      rmSync(small, { recursive: true });
    });
    const config = join(stage.folder, "understudy-agent.yaml");
    writeFileSync(config, readFileSync(config, "utf8").replace("state: ./agent", `state: ${small}/agent`));
    stage.agentFolder = join(small, "agent");
    // Another installation: it compares its disk with what the vault has, and then the network goes.
    await stage.startAgent();
    await stage.nextPoint();
    stage.network.cut();
    while (!disk.write(0, randomBytes(64 * 1024 * 1024)))
      await new Promise((resolve) => setTimeout(resolve, 5));
    const full = await stage.agentUntil("it to say so", ({ problem }) => problem !== null);
    assert.match(full.problem ?? "", /the disk is full/u);
    stage.network.mend();
    await stage.nextPoint();
    assert.ok((await stage.content(volume, null)).bytes.equals(disk.content));
  },
);
