/**
 * Random lives of a log over a disk that loses power: whatever was acknowledged is there, nothing is torn, and every moment that is offered is the
 * disk as it was, byte for byte, against a shadow that only knows the writes.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import fc from "fast-check";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { foldLog } from "./fold-log.ts";
import { MemoryPoints } from "./memory-points.fixture.ts";
import { openLogArchive } from "./open-log-archive.ts";
import { openMoment } from "./open-moment.ts";
import { pruneLog } from "./prune-log.ts";
import { LogShipper } from "./ship-log.ts";
import { SimulatedDisk } from "./simulated-folder.fixture.ts";
import { openWriteLog } from "./open-write-log.ts";
import type { WriteLog } from "./write-log.ts";

const volumes = ["a", "b"] as const;
type Volume = (typeof volumes)[number];
const diskBytes = 200_000;

type Step =
  | { do: "write"; volume: Volume; offset: number; length: number; seed: number }
  | { do: "zero" | "trim"; volume: Volume; offset: number; length: number }
  | { do: "resize"; volume: Volume; sizeBytes: number }
  | {
      do:
        | "flush"
        | "turn"
        | "end"
        | "fold"
        | "foldAndRead"
        | "foldKilledBefore"
        | "foldKilledAfter"
        | "read"
        | "full"
        | "badSync";
    }
  | { do: "clock"; ms: number }
  | { do: "prune"; windowMs: number }
  | { do: "ship" | "kill" }
  | { do: "crash"; seed: number };

const range = {
  offset: fc.nat(diskBytes - 1),
  length: fc.oneof(fc.integer({ min: 1, max: 9000 }), fc.integer({ min: 60_000, max: 150_000 })),
};
const volume = fc.constantFrom(...volumes);
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({ do: fc.constant("write" as const), volume, ...range, seed: fc.nat() }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom("zero" as const, "trim" as const), volume, ...range }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("resize" as const),
      volume,
      sizeBytes: fc.integer({ min: 50_000, max: diskBytes }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constantFrom("flush" as const, "end" as const, "read" as const) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "fold" as const,
        "foldAndRead" as const,
        "foldKilledBefore" as const,
        "foldKilledAfter" as const,
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom("full" as const, "badSync" as const) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant("turn" as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant("clock" as const), ms: fc.integer({ min: -500, max: 2000 }) }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("prune" as const), windowMs: fc.nat(5000) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom("ship" as const, "kill" as const) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("crash" as const), seed: fc.nat() }) },
);

interface Shadow {
  readonly sequence: number;
  readonly timeMs: number;
  readonly volume: Volume;
  readonly apply: (disk: Buffer) => Buffer;
  acknowledged: boolean;
}

/** Idle marks and ages are another test's; here time stands still between steps. */
function stoppedClock(): Clock & { add(ms: number): void } {
  let now = 1_700_000_000_000;
  return {
    now: () => now,
    monotonicMs: () => 0,
    sleep: (_, signal) =>
      new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason as Error))),
    add: (ms) => (now += ms),
  };
}

class Life {
  readonly disk = new SimulatedDisk();
  readonly points = new MemoryPoints();
  readonly clock = stoppedClock();
  readonly logKey = randomBytes(32);
  readonly storage = memoryStorage();
  shadows: Shadow[] = [];
  log!: WriteLog;
  shipper!: LogShipper;
  /** Moments before it may have left the window. */
  oldest = 0;

  async open(): Promise<void> {
    this.log = await openWriteLog({
      folder: this.disk.folder(),
      group: "g",
      logKey: this.logKey,
      clock: this.clock,
      points: this.points,
      limits: { segmentBytes: 200_000, fullFrameBytes: 5000, queueBytes: 400_000, extents: 100_000 },
    });
    this.shipper = await LogShipper.open(this.log, this.storage);
    const last = this.log.lastRecord.sequence;
    const lost = this.shadows.filter((shadow) => shadow.sequence > last && shadow.acknowledged);
    assert.deepEqual(
      lost.map(({ sequence }) => sequence),
      [],
      "an acknowledged write is missing",
    );
    this.shadows = this.shadows.filter((shadow) => shadow.sequence <= last);
    for (const id of volumes) {
      if (this.log.volumes().some((one) => one.id === id)) continue;
      await this.log.addVolume(id, diskBytes);
      const sequence = await this.log.markContinuous(id, 0);
      this.oldest = Math.max(this.oldest, sequence);
    }
  }

  take(
    volume: Volume,
    captured: { sequence: number; timeMs: number; durable: Promise<void> },
    apply: Shadow["apply"],
  ): void {
    const shadow: Shadow = { ...captured, volume, apply, acknowledged: false };
    this.shadows.push(shadow);
    captured.durable.then(
      () => (shadow.acknowledged = true),
      // Refused: if it is not durable after all, its number is given again.
      (error: unknown) =>
        isOperational(error, "store.full") && this.shadows.splice(this.shadows.indexOf(shadow), 1),
    );
  }

  content(id: Volume, sequence: number): Buffer {
    let disk: Buffer = Buffer.alloc(diskBytes);
    for (const shadow of this.shadows)
      if (shadow.volume === id && shadow.sequence <= sequence) disk = shadow.apply(disk);
    return disk;
  }

  async checkMoments(pick: (count: number) => number[]): Promise<void> {
    const known = this.shadows.filter(
      ({ sequence }) => sequence > this.oldest && sequence <= this.log.lastRecord.sequence,
    );
    for (const index of pick(known.length)) {
      const shadow = known[index];
      if (shadow === undefined) continue;
      for (const id of volumes) await this.checkMoment(id, { sequence: shadow.sequence }, shadow.sequence);
      const atTime = known.findLast(({ timeMs }) => timeMs <= shadow.timeMs);
      if (atTime !== undefined)
        await this.checkMoment(shadow.volume, { timeMs: shadow.timeMs }, atTime.sequence);
    }
  }

  async checkMoment(
    id: Volume,
    moment: { sequence: number } | { timeMs: number },
    sequence: number,
  ): Promise<void> {
    await using reader = await openMoment(this.log, id, moment);
    const want = this.content(id, sequence);
    assert.equal(reader.sizeBytes, want.length);
    assert.ok((await reader.read(0, want.length)).equals(want), `${id} at ${sequence} differs`);
    for (const extent of await reader.extents(0, want.length))
      if (extent.kind !== "data")
        assert.ok(want.subarray(extent.offset, extent.offset + extent.length).every((byte) => byte === 0));
  }

  async readAll(): Promise<void> {
    for (const { id, sizeBytes } of this.log.volumes()) {
      const got = await this.log.read(id, 0, sizeBytes);
      assert.ok(got.equals(this.content(id as Volume, this.log.lastTaken.sequence)), `${id} now differs`);
    }
  }
}

const fit = (life: Life, volume: Volume, offset: number, length: number): [number, number] => {
  const { sizeBytes } = life.log.volume(volume);
  const from = Math.min(offset, sizeBytes - 1);
  return [from, Math.min(length, sizeBytes - from)];
};

async function write(
  life: Life,
  { volume, offset, length, seed }: Extract<Step, { do: "write" }>,
): Promise<void> {
  const [from, size] = fit(life, volume, offset, length);
  const data = Buffer.from(createSeededRandom(seed).hex(Math.ceil(size / 8))).subarray(0, size);
  const bytes = Buffer.concat([data, Buffer.alloc(size - data.length, seed & 0xff)]);
  const scratch = Buffer.from(bytes);
  const captured = await life.log.write(volume, from, scratch);
  // The buffer is ours again.
  scratch.fill(0xee);
  life.take(volume, captured, (disk) => {
    bytes.copy(disk, from);
    return disk;
  });
}

async function clear(
  life: Life,
  { do: kind, volume, offset, length }: Extract<Step, { do: "zero" | "trim" }>,
): Promise<void> {
  const [from, size] = fit(life, volume, offset, length);
  life.take(volume, await life.log[kind](volume, from, size), (disk) => disk.fill(0, from, from + size));
}

async function resize(life: Life, { volume, sizeBytes }: Extract<Step, { do: "resize" }>): Promise<void> {
  await life.log.flush();
  await life.log.resizeVolume(volume, sizeBytes);
  life.take(volume, { ...life.log.lastRecord, durable: Promise.resolve() }, (disk) =>
    Buffer.concat([disk.subarray(0, sizeBytes), Buffer.alloc(Math.max(0, sizeBytes - disk.length))]),
  );
}

/** Writes may be under way, and the point may be older than the last record. */
async function fold(life: Life, kind: string, number: number): Promise<void> {
  life.points.failNext =
    kind === "foldKilledBefore" ? "before" : kind === "foldKilledAfter" ? "after" : undefined;
  const sequence = Math.max(life.log.lastRecord.sequence - (number % 5), 4);
  const folding = foldLog(life.log, { sequence }).catch((error: unknown) =>
    assert.match(String(error), /killed/),
  );
  if (kind === "foldAndRead") for (let count = 0; count < 3; count += 1) await life.readAll();
  await folding;
  life.points.failNext = undefined;
}

async function prune(life: Life, windowMs: number): Promise<void> {
  const window = { windowMs, windowBytes: Number.POSITIVE_INFINITY };
  await pruneLog(life.log, window, { removing: (segment) => life.shipper.remove(segment) });
  const first = life.log.shelf.segments[0]?.header.firstSequence ?? 1;
  const needed = await Promise.all(volumes.map((id) => life.points.list("g", id)));
  // The oldest point of each volume on which the log can still stand.
  if (first > 1)
    for (const points of needed)
      life.oldest = Math.max(
        life.oldest,
        points.find(({ sequence }) => sequence >= first - 1)?.sequence ?? 0,
      );
}

/** The store has all of it then, in one piece. */
async function ship(life: Life): Promise<void> {
  await life.log.flush();
  const { sequence } = life.log.lastRecord;
  const progress = { isOver: false };
  const shipping = life.shipper.shipAll().finally(() => (progress.isOver = true));
  while (!progress.isOver) {
    assert.equal(life.shipper.lastError, undefined);
    await new Promise((resolve) => void setImmediate(resolve));
  }
  await shipping;
  const { storage, logKey, points } = life;
  await using archive = await openLogArchive({ storage, group: "g", logKey, points });
  assert.equal(archive.lastRecord.sequence, sequence);
}

async function crash(life: Life, seed: number): Promise<void> {
  life.disk.crash(createSeededRandom(seed));
  await reopen(life);
}

async function reopen(life: Life): Promise<void> {
  await life.shipper[Symbol.asyncDispose]();
  // What the dead process was told in its last moment it was told.
  await new Promise((resolve) => void setImmediate(resolve));
  life.points.openReaders = 0;
  await life.open();
}

/** A full disk refuses what is under way; with space again the log goes on. */
async function fill(life: Life): Promise<void> {
  await life.log.flush();
  const attempt = async (): Promise<void> => {
    const captured = await life.log.write("a", 0, Buffer.alloc(20_000, 7));
    await captured.durable;
  };
  // Room enough to begin a segment, each time, and not for what should come into it.
  for (let time = 0; time < 3; time += 1) {
    life.disk.freeBytes = 3000;
    await assert.rejects(attempt, { code: "store.full", outcome: "not_applied" });
    await assert.rejects(attempt, { code: "store.full", outcome: "not_applied" });
  }
  life.disk.freeBytes = Number.POSITIVE_INFINITY;
}

async function failSync(life: Life, seed: number): Promise<void> {
  await life.log.flush();
  life.disk.failNextSync = true;
  const captured = await life.log.write("a", 0, Buffer.alloc(100, 9));
  await assert.rejects(captured.durable, { code: "store.failing", outcome: "unknown" });
  await assert.rejects(life.log.write("a", 0, Buffer.alloc(1)), { code: "store.failing" });
  await assert.rejects(life.shipper.shipAll(), { code: "store.failing" }, "what is refused is never shipped");
  life.disk.failNextSync = false;
  await crash(life, seed);
}

async function take(life: Life, step: Step, number: number): Promise<void> {
  if (step.do === "write") await write(life, step);
  else if (step.do === "zero" || step.do === "trim") await clear(life, step);
  else if (step.do === "resize") await resize(life, step);
  else if (step.do === "flush") await life.log.flush();
  // Something else happens meanwhile: frames are written while a flush runs.
  else if (step.do === "turn") await new Promise((resolve) => void setImmediate(resolve));
  else if (step.do === "end") await life.log.endSegment();
  else if (step.do === "read") await life.readAll();
  else if (step.do === "full") await fill(life);
  else if (step.do === "badSync") await failSync(life, number);
  else if (step.do === "clock") life.clock.add(step.ms);
  else if (step.do === "prune") await prune(life, step.windowMs);
  else if (step.do === "crash") await crash(life, step.seed);
  else if (step.do === "ship") await ship(life);
  else if (step.do === "kill") {
    life.disk.kill();
    await reopen(life);
  } else await fold(life, step.do, number);
}

test("whatever happens, acknowledged writes are there and every moment is the disk as it was", async () => {
  const numRuns = Number(process.env["WRITE_LOG_RUNS"] ?? 60);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 80 }), fc.nat(), async (steps, seed) => {
      const life = new Life();
      await life.open();
      for (const [number, one] of steps.entries()) await take(life, one, number);
      await life.log.flush();
      await life.readAll();
      const random = createSeededRandom(seed);
      await life.checkMoments((count) =>
        Array.from({ length: 5 }, () => Math.floor(random.fraction() * count)),
      );
      await crash(life, seed);
      await life.readAll();
      await life.checkMoments((count) => [0, count - 1, count >> 1]);
      await life.log.verify();
      await ship(life);
      await life.shipper[Symbol.asyncDispose]();
      await life.log.close();
      assert.equal(life.points.openReaders, 0);
    }),
    { numRuns },
  );
});
