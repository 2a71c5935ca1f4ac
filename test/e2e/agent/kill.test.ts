import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { AgentStage } from "./agent-stage.ts";
import { traceSkip } from "./trace-skip.ts";
import { undo } from "./undo.ts";
import { WrittenDisk } from "./written-disk.ts";

const volume = "vol-0a1b2c3d";
const sizeBytes = 32 * 1024 * 1024;
const rounds = Number(process.env["AGENT_ROUNDS"] ?? "8");
const seed = Number(process.env["AGENT_SEED"] ?? Date.now() % 100_000);

const title = (disk: string): string =>
  `agent, vault and network fail ${rounds} times under writes to ${disk} (seed ${seed}): each moment is the disk as it was`;
const timeout = 300_000 + rounds * 30_000;

test(title("a file"), { timeout }, (t) => failures(t, "file"));
test(title("a device, which are traced"), { skip: traceSkip, timeout }, (t) => failures(t, "device"));

async function failures(t: TestContext, kind: "file" | "device"): Promise<void> {
  const random = createSeededRandom(seed);
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  const disk = new WrittenDisk(folder, "data", sizeBytes, kind);
  undo(t, () => {
    disk[Symbol.dispose]();
    rmSync(folder, { recursive: true, force: true });
  });
  const stage = await AgentStage.open(t, {
    agents: { web: [volume] },
    disks: [{ volume, path: disk.path }],
    agentLines: `every: 1s\n${disk.consistency}`,
  });
  await stage.startVault();
  await stage.startAgent();
  const seen = new Map<number, number>();
  const stop = new AbortController();
  undo(t, () => stop.abort());
  const writing = write(disk, () => random.fraction(), stop.signal);
  const watching = watch(stage, seen, stop.signal);
  await stage.nextPoint();

  for (let round = 0; round < rounds; round += 1) {
    await pause(random.fraction() * 1500);
    const kind = random.fraction();
    if (kind < 0.5) {
      await stage.killAgent();
      await stage.startAgent();
    } else if (kind < 0.75) {
      await stage.killVault();
      await pause(random.fraction() * 1000);
      await stage.startVault();
    } else {
      stage.network.cut();
      await pause(random.fraction() * 1500);
      stage.network.mend();
    }
    if (round % 4 === 3) await stage.nextPoint();
  }
  const last = await stage.nextPoint();
  stop.abort();
  await Promise.all([writing, watching]);
  seen.set(last.pass, last.instantMs);

  t.diagnostic(`${seen.size} moments were told`);
  assert.ok(seen.size >= 3, `only ${seen.size} moments`);
  for (const instantMs of seen.values()) {
    const kept = await stage.content(volume, instantMs);
    assert.equal(kept.at, instantMs);
    assert.ok(
      kept.bytes.equals(disk.truthAt(instantMs)),
      `the moment ${instantMs} is not the disk as it was`,
    );
  }
}

async function write(disk: WrittenDisk, fraction: () => number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const data = fraction() < 0.2 ? Buffer.alloc(300_000) : randomBytes(1 + Math.floor(fraction() * 20_000));
    disk.write(Math.floor(fraction() * (sizeBytes - data.length)), data);
    await pause(50);
  }
}

/** Every moment that the agent says to have at the vault. */
async function watch(stage: AgentStage, seen: Map<number, number>, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    const point = (await stage.agentStatus())?.point;
    if (point != null) seen.set(point.pass, point.instantMs);
    await pause(50);
  }
}

/** Faults come at times of their own: what is waited for is state. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
