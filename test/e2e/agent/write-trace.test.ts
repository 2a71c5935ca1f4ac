// The kernel's own trace over loop devices: what was written is told, and what could have been missed is not known.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { traceName } from "#agent/trace-instance.ts";
import { openWriteTrace, type WriteTrace } from "#agent/write-trace.ts";
import { ReadPlan, type ToRead } from "#agent/read-plan.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { passBlockBytes } from "#wire/agent/pass-part.ts";
import { AgentStage } from "./agent-stage.ts";
import { traceSkip } from "./trace-skip.ts";
import { undo } from "./undo.ts";
import { WrittenDisk } from "./written-disk.ts";

const sizeBytes = 64 * 1024 * 1024;
const volume = "vol-0a1b2c3d";
const { signal } = new AbortController();

function scratch(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-trace-"));
  undo(t, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function attach(t: TestContext, folder: string, prepare: (image: string) => void = () => {}): string {
  const image = join(folder, "image");
  writeFileSync(image, "");
  truncateSync(image, sizeBytes);
  prepare(image);
  const device = execFileSync("losetup", ["--find", "--show", image], { encoding: "utf8" }).trim();
  undo(t, () => void execFileSync("losetup", ["--detach", device]));
  return device;
}

async function traced(
  t: TestContext,
  path: string,
  bytes: number,
  stateFolder: string,
  bufferKiB?: number,
): Promise<WriteTrace> {
  const disks = [{ path, sizeBytes: bytes }];
  const options = { disks, stateFolder, clock: systemClock, log: silentLog };
  const trace = await openWriteTrace(bufferKiB === undefined ? options : { ...options, bufferKiB });
  undo(t, () => trace[Symbol.asyncDispose]());
  return trace;
}

function planOver(t: TestContext, stateFolder: string): ReadPlan {
  const plan = new ReadPlan({ stateFolder, wholeEveryMs: 86_400_000, clock: systemClock, log: silentLog });
  undo(t, () => plan[Symbol.asyncDispose]());
  return plan;
}

function writeTo(path: string, places: readonly number[], length = 4096): void {
  const file = openSync(path, constants.O_RDWR | constants.O_SYNC);
  for (const at of places) writeSync(file, randomBytes(length), 0, length, at);
  closeSync(file);
}

/** A DOS label: two partitions of 32,768 sectors, from 8,192 and from 40,960 on. */
function twoPartitions(): Buffer {
  const label = Buffer.alloc(512);
  for (const [index, start] of [8192, 40_960].entries()) {
    const entry = label.subarray(446 + 16 * index);
    entry[4] = 0x83;
    entry.writeUInt32LE(start, 8);
    entry.writeUInt32LE(32_768, 12);
  }
  label.writeUInt16BE(0x55aa, 510);
  return label;
}

/** Numbers of blocks. */
async function blocksOf(trace: WriteTrace): Promise<number[] | null> {
  return numbersOf(await trace.take());
}

function numbersOf(toRead: ToRead): number[] | null {
  const [dirty] = toRead ?? [];
  if (dirty === undefined) return null;
  const blocks = Array.from({ length: sizeBytes / passBlockBytes }, (_, block) => block);
  return blocks.filter((block) => dirty.spanIn(block * passBlockBytes, passBlockBytes) !== undefined);
}

test("what was written is told once, from the first answer on", { skip: traceSkip }, async (t) => {
  const folder = scratch(t);
  const device = attach(t, folder);
  const trace = await traced(t, device, sizeBytes, folder);
  assert.equal(await blocksOf(trace), null, "what was before is not known");
  assert.deepEqual(await blocksOf(trace), []);
  writeTo(device, [0, 5 * passBlockBytes + 8192, sizeBytes - 4096]);
  writeTo(device, [9 * passBlockBytes - 4096], 8192);
  execFileSync("blkdiscard", [
    "--offset",
    String(20 * passBlockBytes),
    "--length",
    String(2 * passBlockBytes),
    device,
  ]);
  execFileSync("dd", [`if=${device}`, "of=/dev/null", "bs=1M", "iflag=direct", "status=none"]);
  assert.deepEqual(await blocksOf(trace), [0, 5, 8, 9, 20, 21, sizeBytes / passBlockBytes - 1]);
  assert.deepEqual(await blocksOf(trace), []);
});

test(
  "a partition's writes are told by its own offsets, and its neighbour's are not",
  { skip: traceSkip },
  async (t) => {
    const folder = scratch(t);
    const device = attach(t, folder, (image) => writeFileSync(image, twoPartitions(), { flag: "r+" }));
    // By hand: not every kernel knows the label.
    execFileSync("partx", ["--add", device]);
    undo(t, () => void execFileSync("partx", ["--delete", device]));
    const trace = await traced(t, `${device}p2`, 32_768 * 512, folder);
    await blocksOf(trace);
    writeTo(`${device}p1`, [passBlockBytes]);
    writeTo(`${device}p2`, [3 * passBlockBytes]);
    assert.deepEqual(await blocksOf(trace), [3]);
  },
);

test(
  "more than the kernel had room for is not known; after that it is again",
  { skip: traceSkip },
  async (t) => {
    const folder = scratch(t);
    const device = attach(t, folder);
    const trace = await traced(t, device, sizeBytes, folder, 4);
    await blocksOf(trace);
    // In one go: nobody looks meanwhile.
    writeTo(
      device,
      Array.from({ length: 2000 }, (_, at) => (at * 4096) % sizeBytes),
    );
    assert.equal(await blocksOf(trace), null);
    writeTo(device, [7 * passBlockBytes]);
    assert.deepEqual(await blocksOf(trace), [7]);
  },
);

test(
  "a file is no device, and what an agent that was killed left behind is removed",
  { skip: traceSkip },
  async (t) => {
    const folder = scratch(t);
    const options = { stateFolder: folder, clock: systemClock, log: silentLog };
    writeFileSync(join(folder, "file"), "x");
    const refused = openWriteTrace({ ...options, disks: [{ path: join(folder, "file"), sizeBytes: 1 }] });
    await assert.rejects(refused, /is a file/u);
    const device = attach(t, folder);
    const disks = [{ path: device, sizeBytes }];
    const none = openWriteTrace({ ...options, tracefs: ["/nonexistent"], disks });
    await assert.rejects(none, /mount -t tracefs/u);
    // Others may be at work at the same time: ours is found by its name.
    const own = join("/sys/kernel/tracing/instances", await traceName(folder));
    const first = await openWriteTrace({ ...options, disks });
    // One that runs is nobody's to remove; its process's end lets it go.
    await assert.rejects(openWriteTrace({ ...options, disks }), /busy/iu);
    assert.ok(existsSync(own));
    await first[Symbol.asyncDispose]();
    assert.ok(!existsSync(own));
  },
);

test("zeroes that the kernel is told to write are writes", { skip: traceSkip }, async (t) => {
  const folder = scratch(t);
  const device = attach(t, folder);
  const trace = await traced(t, device, sizeBytes, folder);
  await blocksOf(trace);
  const place = ["--offset", String(3 * passBlockBytes), "--length", String(passBlockBytes)];
  execFileSync("blkdiscard", ["--zeroout", ...place, device]);
  assert.deepEqual(await blocksOf(trace), [3]);
});

test(
  "another form of the machine's trace, and a trace that was switched off",
  { skip: traceSkip },
  async (t) => {
    const folder = scratch(t);
    const device = attach(t, folder);
    const raw = "/sys/kernel/tracing/options/raw";
    writeFileSync(raw, "1");
    undo(t, () => writeFileSync(raw, "0"));
    const trace = await traced(t, device, sizeBytes, folder);
    await blocksOf(trace);
    writeTo(device, [0]);
    assert.deepEqual(await blocksOf(trace), [0]);
    const on = join("/sys/kernel/tracing/instances", await traceName(folder), "tracing_on");
    for (const switches of [["0"], ["0", "1"]]) {
      writeFileSync(on, "0");
      writeTo(device, [passBlockBytes]);
      if (switches.length > 1) writeFileSync(on, "1");
      // Switched on again, only the kernel's count of sectors tells.
      const answer = blocksOf(trace);
      if (switches.length > 1) assert.equal(await answer, null);
      else await assert.rejects(answer, /switched/u);
      writeFileSync(on, "1");
      await blocksOf(trace);
    }
  },
);

test("another medium behind the same name is read whole", { skip: traceSkip }, async (t) => {
  const folder = scratch(t);
  const device = attach(t, folder);
  const plan = planOver(t, folder);
  const disks = [{ path: device, sizeBytes }];
  const pass = async (): Promise<number[] | null> => {
    await plan.begin(disks);
    await plan.live(signal);
    const read = numbersOf(await plan.held());
    plan.ended();
    return read;
  };
  await pass();
  assert.deepEqual(await pass(), []);
  writeFileSync(join(folder, "other"), "");
  truncateSync(join(folder, "other"), sizeBytes);
  execFileSync("losetup", ["--detach", device]);
  execFileSync("losetup", [device, join(folder, "other")]);
  await plan.begin(disks);
  assert.equal(await plan.live(signal), null);
});

test(
  "what is written between a snapshot and the look at the trace is in the next pass",
  { skip: traceSkip },
  async (t) => {
    const folder = scratch(t);
    const device = attach(t, folder);
    const plan = planOver(t, folder);
    const pass = async (write?: number): Promise<number[] | null> => {
      await plan.begin([{ path: device, sizeBytes }]);
      // Here a hook makes the snapshot; the machine goes on.
      if (write !== undefined) writeTo(device, [write * passBlockBytes]);
      const read = numbersOf(await plan.held());
      plan.ended();
      return read;
    };
    assert.equal(await pass(7), null);
    assert.deepEqual(await pass(), [7]);
    assert.deepEqual(await pass(9), [9]);
    assert.deepEqual(await pass(), [9]);
    assert.deepEqual(await pass(), []);
  },
);

test("a disk that was read whole in use is held for what changed alone", { skip: traceSkip }, async (t) => {
  const folder = scratch(t);
  const device = attach(t, folder);
  const plan = planOver(t, folder);
  for (let round = 0; round < 3; round += 1) {
    plan.readWhole();
    await plan.begin([{ path: device, sizeBytes }]);
    assert.equal(await plan.live(signal), null);
    writeTo(device, [round * passBlockBytes]);
    const held = numbersOf(await plan.held());
    assert.ok(held?.includes(round) === true && held.length <= 2, String(held));
    if (round > 0) plan.ended();
  }
});

test(
  "an agent reads what was written, and its moments are the disk as it was",
  { skip: traceSkip, timeout: 300_000 },
  async (t) => {
    const folder = scratch(t);
    const disk = new WrittenDisk(folder, "data", sizeBytes, "device");
    undo(t, () => disk[Symbol.dispose]());
    disk.write(0, randomBytes(sizeBytes / 2));
    const stage = await AgentStage.open(t, {
      agents: { web: [volume] },
      disks: [{ volume, path: disk.path }],
      agentLines: `every: 1s\n${disk.consistency}`,
    });
    await stage.startVault();
    await stage.startAgent();
    await stage.nextPoint();
    const whole = await stage.agentStatus();
    assert.equal(whole?.wholeReads, null);
    // In use, and of what was written meanwhile once more.
    assert.equal(whole.lastPass?.readBytes, sizeBytes);
    for (const at of [3, 70, 200]) disk.write(at * passBlockBytes + 17, randomBytes(1000));
    const point = await stage.nextPoint();
    const status = await stage.agentStatus();
    assert.ok(
      (status?.lastPass?.readBytes ?? sizeBytes) <= 12 * passBlockBytes,
      `${status?.lastPass?.readBytes} bytes were read`,
    );
    const kept = await stage.content(volume, point.instantMs);
    assert.ok(kept.bytes.equals(disk.truthAt(point.instantMs)));
    // A vault that knows nothing of the disk gets all of it, whatever was written lately.
    await stage.killVault();
    for (const name of ["store", "vd"]) rmSync(join(stage.folder, name), { recursive: true });
    execFileSync(join(import.meta.dirname, "../../../bin/understudy"), ["vault", "init"], {
      cwd: stage.folder,
      stdio: "ignore",
    });
    await stage.startVault();
    const { instantMs } = await stage.nextPoint();
    assert.ok((await stage.content(volume, instantMs)).bytes.equals(disk.truthAt(instantMs)));
    await stage.stopAgent();
  },
);
