import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, truncateSync, utimesSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { decodePart, passBlockBytes, type PassPart } from "#wire/agent/pass-part.ts";
import type { AgentDisk, HoldSettings } from "./agent-settings.ts";
import { AgentState } from "./agent-state.ts";
import type { Held, holdDisks } from "./hold-disks.ts";
import { leafFor } from "./leaf-file.ts";
import { ReadPlan } from "./read-plan.ts";
import { type PassOutcome, type PassPhase, type PassProgress, runPass } from "./run-pass.ts";
import { createReadBuffer } from "./source-disk.ts";

const { signal } = new AbortController();
const buffer = createReadBuffer();
const blocks = 20;
const sizeBytes = blocks * passBlockBytes - 1000;
const hold: HoldSettings = {
  freeze: [],
  before: null,
  after: null,
  gives: "crash",
  limitMs: 1000,
  hookLimitMs: 1000,
};

class Bench {
  readonly folder: string;
  readonly disk: AgentDisk;
  #state: AgentState | undefined;
  /** What happens while the disk is held. */
  whileHeld: () => unknown = () => {};
  cut: string | null = null;
  /** What happens while it is read. */
  onRead: (phase: PassPhase) => void = () => {};

  constructor(t: TestContext) {
    this.folder = mkdtempSync(join(tmpdir(), "understudy-pass-"));
    const path = join(this.folder, "disk");
    writeFileSync(path, "");
    truncateSync(path, sizeBytes);
    this.disk = { volume: "vol-a", path, snapshot: null };
    t.after(async () => {
      await this.#state?.[Symbol.asyncDispose]();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  get state(): AgentState {
    if (this.#state === undefined) throw new Error("open it first");
    return this.#state;
  }

  /** As after a start of the process. */
  async open(spoolLimitBytes = 2 ** 30): Promise<void> {
    await this.#state?.[Symbol.asyncDispose]();
    this.#state = await AgentState.open(join(this.folder, "state"), ["vol-a"], spoolLimitBytes);
    if (this.#state.record !== null) return;
    await this.#state.beginAnew("0".repeat(32), ["vol-a"]);
    await this.#state.remember({ epoch: 0, ready: true });
  }

  async write(block: number, data: Buffer): Promise<void> {
    const file = await open(this.disk.path, "r+");
    await file.write(data, 0, data.length, block * passBlockBytes);
    await file.close();
  }

  async pass(settings: HoldSettings | null = hold, disk = this.disk): Promise<PassOutcome> {
    const held: typeof holdDisks = async (): Promise<Held> => {
      await this.whileHeld();
      return { ok: true, instantMs: 12_345, release: async () => this.cut };
    };
    return runPass(
      {
        state: this.state,
        disks: [disk],
        hold: settings,
        buffer,
        clock: systemClock,
        log: silentLog,
        progress: this.#progress(),
        plan: new ReadPlan({ stateFolder: this.folder, wholeEveryMs: 0, clock: systemClock, log: silentLog }),
        holdDisks: held,
      },
      signal,
    );
  }

  #progress(): PassProgress {
    const { onRead } = this;
    let bytes = 0;
    return {
      phase: "live",
      totalBytes: 0,
      get readBytes() {
        return bytes;
      },
      set readBytes(read) {
        bytes = read;
        if (read > 0) onRead(this.phase);
      },
    };
  }

  async spooled(): Promise<readonly PassPart[]> {
    const { spool } = this.state;
    return Promise.all(spool.numbers.map(async (number) => decodePart(await spool.read(number))));
  }

  /** Offsets of the records, in blocks. */
  async sentBlocks(): Promise<number[]> {
    const parts = await this.spooled();
    return parts.flatMap(({ records }) => records.map(({ offset }) => offset / passBlockBytes));
  }
}

test("what changed is spooled, in parts that are bounded; what holds zeroes travels as such", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  for (const block of [1, 2, 19]) await bench.write(block, randomBytes(1000));
  const first = await bench.pass();
  assert.deepEqual([first.consistency, first.instantMs, first.reason], ["crash", 12_345, null]);
  assert.deepEqual(await bench.sentBlocks(), [1, 2, 19]);
  assert.equal((await bench.spooled()).at(-1)?.header.end?.consistency, "crash");
  await bench.write(2, Buffer.alloc(1000));
  await bench.write(5, Buffer.from([1]));
  await bench.pass();
  const second = (await bench.spooled()).filter(({ header }) => header.pass === 2);
  const records = second.flatMap((part) => part.records);
  assert.deepEqual(
    records.map(({ offset, data }) => [offset / passBlockBytes, data === null]),
    [
      [2, true],
      [5, false],
    ],
  );
  assert.equal((await bench.pass()).changedBytes, 0);
});

test("what is written between the live phase and the hold is in the pass, once more", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  await bench.write(3, Buffer.alloc(10, 1));
  bench.whileHeld = () => bench.write(3, Buffer.alloc(10, 2));
  await bench.pass();
  assert.deepEqual(await bench.sentBlocks(), [3, 3]);
  const last = (await bench.spooled()).flatMap(({ records }) => records).at(-1);
  assert.equal(last?.data?.[0], 2);
});

test("a pass is fuzzy without a hold, when the hold did not last, and when the disk was written to", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  await bench.write(0, randomBytes(10));
  assert.match((await bench.pass(null)).reason ?? "", /configure/u);
  bench.cut = "the limit was over";
  assert.equal((await bench.pass()).reason, "the limit was over");
  bench.cut = null;
  assert.equal((await bench.pass()).consistency, "crash");
  const ends = (await bench.spooled()).map(({ header }) => header.end?.consistency);
  // The second one sent nothing: there is nothing to tell of it.
  assert.deepEqual(ends.filter(Boolean), ["fuzzy", "crash"]);
});

test("a disk that is written to while it is held still is told apart", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  bench.onRead = (phase) => {
    if (phase === "held") utimesSync(bench.disk.path, 1, 1);
  };
  const written = await bench.pass();
  assert.equal(written.consistency, "fuzzy");
  assert.match(written.reason ?? "", /was written to while it was held still/u);
  // In the live phase that is nothing to speak of.
  bench.onRead = (phase) => {
    if (phase === "live") utimesSync(bench.disk.path, 2, 2);
  };
  assert.equal((await bench.pass()).consistency, "crash");
});

test("a snapshot is read instead of the disk, and only while it is held", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  const snapshot = join(bench.folder, "snapshot");
  await bench.write(1, randomBytes(10));
  bench.whileHeld = () => {
    writeFileSync(snapshot, Buffer.alloc(10, 9));
    truncateSync(snapshot, sizeBytes);
  };
  await bench.pass({ ...hold, gives: "application" }, { ...bench.disk, snapshot });
  assert.deepEqual(await bench.sentBlocks(), [0]);
  assert.equal((await bench.spooled()).at(-1)?.header.end?.consistency, "application");
});

test("when the spool is full, a live disk waits for room; one that is held is let go, and sent by the next pass", async (t) => {
  const bench = new Bench(t);
  await bench.open(15 * 1024 * 1024);
  bench.whileHeld = async () => {
    for (let block = 0; block < 20; block += 1) await bench.write(block, randomBytes(passBlockBytes - 1000));
    await bench.state.spool.add(1, Buffer.alloc(7 * 1024 * 1024));
  };
  const full = await bench.pass();
  assert.equal(full.consistency, "fuzzy");
  assert.match(full.reason ?? "", /spool is full/u);
  bench.whileHeld = () => {};
  let over = false;
  const waiting = bench.pass().finally(() => (over = true));
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(!over);
  await bench.state.acknowledge(1, null);
  assert.equal((await waiting).consistency, "crash");
  assert.deepEqual(new Set(await bench.sentBlocks()).size, 20);
});

test("a crash between a part and its hashes loses neither", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  const [old, young] = [Buffer.alloc(10, 1), Buffer.alloc(10, 2)];
  await bench.write(4, old);
  await bench.pass();
  await bench.state.acknowledge(bench.state.nextPart - 1, null);
  await bench.write(4, young);
  await bench.pass();
  // As if the power had gone before the hash was on the disk: it is still that of the content before.
  await bench.state.leavesOf("vol-a").write(4, leafFor(Buffer.concat([old], passBlockBytes)));
  await bench.open();
  // Back to what the vault had once, and will not have when the spool has been sent.
  await bench.write(4, old);
  await bench.pass();
  const parts = (await bench.spooled()).flatMap(({ records }) => records);
  assert.deepEqual(
    parts.map(({ data }) => data?.[0]),
    [2, 1],
  );
  assert.equal((await bench.pass()).changedBytes, 0);
});

test("numbers go on after a restart, also with an empty spool", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  await bench.pass();
  assert.equal(bench.state.nextPart, 2);
  await bench.state.acknowledge(1, null);
  await bench.open();
  assert.deepEqual([bench.state.nextPart, bench.state.record?.pass], [2, 1]);
  // A second process is kept out.
  await assert.rejects(AgentState.open(join(bench.folder, "state"), ["vol-a"], 2 ** 30), /another agent/u);
});

test("a disk that is none, or not there, is named", async (t) => {
  const bench = new Bench(t);
  await bench.open();
  await assert.rejects(bench.pass(hold, { ...bench.disk, path: "/nonexistent/disk" }), /it is not there/u);
  await assert.rejects(bench.pass(hold, { ...bench.disk, path: "/dev/null" }), /neither a block device/u);
  await assert.rejects(bench.pass(hold, { ...bench.disk, path: bench.folder }), /neither|EISDIR/u);
});
