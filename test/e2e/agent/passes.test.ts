import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { rmSync, truncateSync } from "node:fs";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AgentStage } from "./agent-stage.ts";
import { undo } from "./undo.ts";
import { WrittenDisk } from "./written-disk.ts";

const block = 256 * 1024;
const volume = "vol-0a1b2c3d";
const sizeBytes = 24 * 1024 * 1024 + 4096;

function makeDisk(t: TestContext, name = "data"): WrittenDisk {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  const disk = new WrittenDisk(folder, name, sizeBytes);
  undo(t, () => {
    disk[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  return disk;
}

async function openStage(t: TestContext, disk: WrittenDisk, agentLines = ""): Promise<AgentStage> {
  const stage = await AgentStage.open(t, {
    agents: { web: [volume] },
    disks: [{ volume, path: disk.path }],
    agentLines: `every: 1s\n${disk.consistency}${agentLines}`,
  });
  await stage.startVault();
  return stage;
}

test(
  "a disk comes whole, then what changed of it, and nothing when nothing has",
  { timeout: 300_000 },
  async (t) => {
    const disk = makeDisk(t);
    disk.write(3 * block, randomBytes(8 * block));
    disk.write(sizeBytes - 100, randomBytes(100));
    const stage = await openStage(t, disk);
    await stage.startAgent();
    const first = await stage.nextPoint();
    const then = disk.content;
    let kept = await stage.content(volume, null);
    assert.ok(kept.bytes.equals(then));
    // The moment bears the time of the disk, not that of its arrival.
    assert.ok(kept.at >= first.instantMs && kept.at < Date.now());

    const before = stage.network.carriedBytes;
    await stage.nextPoint();
    await stage.nextPoint();
    assert.ok(
      stage.network.carriedBytes - before < 30_000,
      `${stage.network.carriedBytes - before} bytes for nothing`,
    );

    assert.ok(disk.write(5 * block + 17, randomBytes(1000)));
    assert.ok(disk.write(9 * block, Buffer.alloc(block)));
    const between = stage.network.carriedBytes;
    await stage.nextPoint();
    const sent = stage.network.carriedBytes - between;
    assert.ok(sent > block && sent < 2 * block, `${sent} bytes for one block, and one of zeroes`);
    kept = await stage.content(volume, null);
    assert.ok(kept.bytes.equals(disk.content));
    // And what it was before can still be named, by its own time.
    const earlier = await stage.content(volume, first.instantMs);
    assert.equal(earlier.at, first.instantMs);
    assert.ok(earlier.bytes.equals(then));
  },
);

test(
  "an agent that is installed anew does not send again what the vault has",
  { timeout: 300_000 },
  async (t) => {
    const disk = makeDisk(t);
    disk.write(0, randomBytes(sizeBytes));
    const stage = await openStage(t, disk);
    await stage.startAgent();
    await stage.nextPoint();
    await stage.stopAgent();
    rmSync(join(stage.folder, "agent"), { recursive: true });
    disk.write(40 * block, randomBytes(10));
    const before = stage.network.carriedBytes;
    await stage.startAgent();
    await stage.nextPoint();
    const sent = stage.network.carriedBytes - before;
    assert.ok(sent < 2 * block, `${sent} bytes`);
    assert.ok((await stage.content(volume, null)).bytes.equals(disk.content));
  },
);

test("a disk that grew; and one that became smaller is refused", { timeout: 300_000 }, async (t) => {
  const disk = makeDisk(t);
  disk.write(0, randomBytes(2 * block));
  const stage = await openStage(t, disk);
  await stage.startAgent();
  await stage.nextPoint();
  truncateSync(disk.path, sizeBytes + 3 * block);
  disk.write(sizeBytes + 2 * block, randomBytes(block));
  await stage.nextPoint();
  const kept = await stage.content(volume, null);
  assert.equal(kept.bytes.length, sizeBytes + 3 * block);
  assert.ok(kept.bytes.equals(disk.content));
  truncateSync(disk.path, sizeBytes);
  const { code, errors } = await stage.agentEnd;
  assert.equal(code, 3);
  assert.match(errors, /name it so/u);
});

test(
  "without anything that holds the disk, a pass is sent and never offered",
  { timeout: 300_000 },
  async (t) => {
    const disk = makeDisk(t);
    disk.write(0, randomBytes(2 * block));
    const stage = await AgentStage.open(t, {
      agents: { web: [volume] },
      disks: [{ volume, path: disk.path }],
      agentLines: "every: 1s\n",
    });
    await stage.startVault();
    await stage.startAgent();
    const { lastPass, point } = await stage.agentUntil(
      "a second pass",
      ({ lastPass }) => (lastPass?.pass ?? 0) > 1,
    );
    assert.equal(lastPass?.consistency, "fuzzy");
    assert.match(lastPass.reason ?? "", /configure `consistency`/u);
    assert.equal(point, null);
    await assert.rejects(stage.content(volume, null), /no moment yet/u);
  },
);
