/**
 * Continuous capture of one disk to an NBD target. A mirror copies each of the guest's writes before the guest is told that it is
 * done; a persistent dirty bitmap remembers what the target may lack, so that an interruption costs what changed since.
 *
 * The order that makes a resynchronisation right without stopping the guest: the mirror starts first (`sync=none`, on `top-ID`),
 * then a backup from the bitmap (on `disk-ID`, below it). A guest's write to a block that the backup still has to copy first has
 * the old block copied (copy-before-write, within the disk's node) and is then mirrored, so the target sees old, then new. A
 * write before the backup's start is in the bitmap or was mirrored, and the backup reads what it wrote.
 *
 * The bitmap is changed for a fresh one when all it holds is at the target: bits are set when the disk's write ends, in the same
 * step in which the mirror counts the write as in flight; so once the mirror has nothing in flight after the fresh bitmap was
 * added, every write that the fresh one lacks is at the target.
 */
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import { type BlockJob, endJobs, endOfJob, type QmpExecutor, queryBitmaps, queryJobs } from "./block-jobs.ts";
import { type JobWatch, planWatch, stuckForMs, watchJob } from "./capture-watch.ts";
import { nbdUri, qemuImg } from "./create-disk.ts";
import type { Machine, MachineAttendant } from "./machine.ts";
import type { CaptureRecord } from "./machine-record.ts";
import type { NbdLocation } from "./machine-spec.ts";
import { planNbdNode } from "./plan-command-line.ts";
import type { QmpClient } from "./qmp-client.ts";

/**
 * `waiting`: the machine is off. `seeding`: the first full copy. `resynchronising`: what changed meanwhile. `continuous`: RPO 0.
 * `behind`: the target does not serve; the bitmap remembers.
 */
export type CaptureState = "waiting" | "seeding" | "resynchronising" | "continuous" | "behind";

export interface CaptureSync {
  /** `bitmap`: only what may have changed. */
  readonly kind: "full" | "bitmap";
  readonly bytes: number;
  readonly reason: string;
  readonly tookMs: number;
}

export interface CaptureStatus {
  readonly state: CaptureState;
  /** Milliseconds since the epoch from when on the target may lack writes; null while it lacks none. */
  readonly behindSince: number | null;
  /** Bytes that the target may lack, in whole 64 KiB blocks; counted when the disk fell behind and at each try. */
  readonly pendingBytes: number;
  /** Of the last full copy or resynchronisation that was completed. */
  readonly lastSync: CaptureSync | null;
  /** Guest writes mirrored since capture was last begun or resumed. */
  readonly mirroredBytes: number;
  /** How often the target was given up, and why last. */
  readonly interruptions: number;
  readonly lastInterruption: string | null;
}

const GRANULARITY = 65_536;
const BITMAP_PREFIX = "capture-";
const PROBE_LIMIT_MS = 1500;
const RETRY_MS = 250;
/** A fresh bitmap is begun when the one in use would make a resynchronisation larger than this. */
const ROTATE_BYTES = 16 * 1024 * 1024;
const ROTATE_EVERY_MS = 2000;

/** What broke a capture off; the capture goes on by itself. */
class Interruption extends Error {}

export class Capture implements MachineAttendant {
  readonly disk: string;
  readonly #machine: Machine;
  #over = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #status: CaptureStatus = {
    state: "waiting",
    behindSince: null,
    pendingBytes: 0,
    lastSync: null,
    mirroredBytes: 0,
    interruptions: 0,
    lastInterruption: null,
  };
  readonly #waiting = new Set<() => void>();

  constructor(machine: Machine, disk: string) {
    this.#machine = machine;
    this.disk = disk;
  }

  get status(): CaptureStatus {
    return this.#status;
  }

  /** Resolves when the state is reached; rejects when the signal aborts. */
  async reached(state: CaptureState, signal?: AbortSignal): Promise<CaptureStatus> {
    while (this.#status.state !== state) {
      signal?.throwIfAborted();
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      signal?.addEventListener("abort", () => resolve(), { once: true });
      await promise;
      this.#waiting.delete(resolve);
    }
    return this.#status;
  }

  attached(qmp: QmpClient): void {
    this.#over = new AbortController();
    this.#running = this.#follow(qmp, AbortSignal.any([this.#over.signal, this.#machine.closing])).catch(
      (error: unknown) => {
        if (this.#over.signal.aborted || this.#machine.closing.aborted || qmp.isClosed) return;
        this.#machine.notify("capture.behind", `capture ended: ${publicMessage(error)}`, this.disk);
      },
    );
  }

  /** The machine goes off, or capture ends. When the agent closes, QEMU's jobs run on. */
  async detached(): Promise<void> {
    if (this.#over.signal.aborted) return this.#running;
    this.#over.abort();
    await this.#running;
    const leave = this.#machine.closing.aborted || !this.#machine.isOn;
    if (!leave) await this.#breakOff(this.#machine.qmp).catch(() => {});
    this.#set({ state: "waiting" });
  }

  /** Also the bitmaps go. */
  async remove(): Promise<void> {
    await this.detached();
    if (this.#machine.isOn) await this.#dropBitmaps(this.#machine.qmp, []);
  }

  get #record(): CaptureRecord {
    const record = this.#machine.record.captures[this.disk];
    if (record === undefined) throw new OperationalError("not_found", `disk ${this.disk} is not captured`);
    return record;
  }

  get #jobs(): { readonly mirror: string; readonly resync: string } {
    return { mirror: `capture-${this.disk}`, resync: `resync-${this.disk}` };
  }

  get #nodes(): { readonly live: string; readonly resync: string } {
    return { live: `live-${this.disk}`, resync: `resync-${this.disk}` };
  }

  /**
   * QEMU's main loop, and with it the monitor and the guest, stands still while some commands wait for a target that does not
   * answer. The one thing that it still hears is to break the connection.
   */
  #guarded(qmp: QmpClient): QmpExecutor {
    const { clock } = this.#machine.deps;
    return {
      execute: async (command, args, signal) => {
        const answered = new AbortController();
        clock.sleep(planWatch(this.#record.stallLimitMs).stuckMs, answered.signal).then(
          () => this.#yank(qmp),
          // It has answered.
          () => {},
        );
        try {
          return await qmp.execute(command, args, signal);
        } finally {
          answered.abort();
        }
      },
    };
  }

  /** One by one: of several, none is broken when one is not there. */
  async #yank(qmp: QmpClient): Promise<void> {
    for (const node of [this.#nodes.live, this.#nodes.resync]) await qmp.yank([node]).catch(() => {});
  }

  async #follow(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    const guarded = this.#guarded(qmp);
    let reason = "the agent or the machine was started again";
    for (;;) {
      try {
        await this.#waitForTarget(qmp, signal);
        await this.#begin(qmp, guarded, signal);
        await this.#stay(qmp, guarded, reason, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (qmp.isClosed) return;
        const why = error instanceof Interruption ? error.message : publicMessage(error);
        await this.#breakOff(qmp);
        await this.#fellBehind(qmp, why, signal);
        reason = why;
        await this.#machine.deps.clock.sleep(RETRY_MS, signal);
      }
    }
  }

  /**
   * Asked from a process of its own: QEMU's main loop stands still, and the guest with it, while it connects to a target that
   * accepts connections and says nothing.
   */
  async #waitForTarget(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    for (;;) {
      const limit = AbortSignal.any([AbortSignal.timeout(PROBE_LIMIT_MS), signal]);
      const answer = await qemuImg(["info", "-f", "raw", nbdUri(this.#record.target)], limit).catch(
        () => null,
      );
      if (answer !== null) return;
      if (this.#status.state !== "behind") {
        // A mirror that an agent before us began may be holding the guest's writes.
        await this.#breakOff(qmp);
        await this.#fellBehind(qmp, "the target does not answer", signal);
      }
      await this.#machine.deps.clock.sleep(RETRY_MS, signal);
    }
  }

  /** Target connected and mirror running; one that an agent before us left running is taken over. */
  async #begin(qmp: QmpClient, guarded: QmpExecutor, signal: AbortSignal): Promise<void> {
    const { target, resyncTarget } = this.#record;
    const jobs = await queryJobs(guarded, signal);
    if (jobs.has(this.#jobs.mirror)) {
      await this.#endResync(qmp, signal);
    } else {
      await this.#breakOff(qmp);
      await addTarget(guarded, this.#nodes.live, target, signal);
      await guarded.execute(
        "blockdev-mirror",
        {
          "job-id": this.#jobs.mirror,
          device: `top-${this.disk}`,
          target: this.#nodes.live,
          sync: "none",
          "copy-mode": "write-blocking",
          "filter-node-name": `mirror-${this.disk}`,
          "on-target-error": "report",
        },
        signal,
      );
    }
    await addTarget(guarded, this.#nodes.resync, resyncTarget, signal);
  }

  async #endResync(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    await qmp.yank([this.#nodes.resync]).catch(() => {});
    await endJobs(qmp, [this.#jobs.resync], this.#machine.deps.clock, signal);
    await qmp.execute("blockdev-del", { "node-name": this.#nodes.resync }, signal).catch(() => {});
  }

  /** Brings the target up to date, then watches. Ends by throwing alone. */
  async #stay(qmp: QmpClient, guarded: QmpExecutor, reason: string, signal: AbortSignal): Promise<never> {
    const { clock } = this.#machine.deps;
    const began = clock.monotonicMs();
    const watch = planWatch(this.#record.stallLimitMs);
    const watches = new Map<string, JobWatch>();
    const end: { why: string | null; bytes: number } = { why: null, bytes: 0 };
    // Before the job begins: it may have ended when the answer to its beginning is read.
    const stop = qmp.onEvent((event) => {
      end.why ??= endOfJob(event, this.#jobs.resync);
      const length = event.data["len"];
      if (event.data["device"] === this.#jobs.resync && typeof length === "number") end.bytes = length;
    });
    try {
      const { fresh, sync } = await this.#startResync(guarded, reason, signal);
      let resyncing = true;
      /** A bitmap that takes the other's place once the mirror has nothing in flight. */
      let next: string | null = null;
      let rotatedAt = began;
      for (;;) {
        const jobs = await queryJobs(guarded, signal);
        const mirror = jobs.get(this.#jobs.mirror);
        if (mirror === undefined) throw new Interruption("the target failed");
        this.#judge(jobs, watches, watch.stuckMs);
        this.#set({ mirroredBytes: mirror.offset });
        if (resyncing && end.why !== null) {
          if (end.why !== "") throw new Interruption(`the resynchronisation ended: ${end.why}`);
          resyncing = false;
          next = fresh;
        }
        if (next !== null && mirror.length === mirror.offset) {
          await this.#adoptBitmap(guarded, next, signal);
          next = null;
          rotatedAt = clock.monotonicMs();
          if (this.#status.state !== "continuous")
            this.#caughtUp({ ...sync, bytes: end.bytes, tookMs: Math.round(rotatedAt - began) });
        }
        if (!resyncing && next === null && clock.monotonicMs() - rotatedAt > ROTATE_EVERY_MS) {
          rotatedAt = clock.monotonicMs();
          next = await this.#beginRotation(guarded, signal);
        }
        await clock.sleep(watch.everyMs, signal);
      }
    } finally {
      stop();
    }
  }

  #judge(jobs: ReadonlyMap<string, BlockJob>, watches: Map<string, JobWatch>, stuckMs: number): void {
    const now = this.#machine.deps.clock.monotonicMs();
    for (const id of [this.#jobs.mirror, this.#jobs.resync]) {
      const job = jobs.get(id);
      if (job === undefined) continue;
      const watch = watchJob(watches.get(id) ?? null, job, now);
      watches.set(id, watch);
      if (stuckForMs(watch, now) >= stuckMs) {
        throw new Interruption(`the target did not answer for ${Math.round(stuckForMs(watch, now))} ms`);
      }
    }
  }

  /** Returns the fresh bitmap, which marks what is written from the backup's own point in time on. */
  async #startResync(
    qmp: QmpExecutor,
    reason: string,
    signal: AbortSignal,
  ): Promise<{ readonly fresh: string; readonly sync: Pick<CaptureSync, "kind" | "reason"> }> {
    const node = `disk-${this.disk}`;
    const { bitmap, seeded } = this.#record;
    const present = await queryBitmaps(qmp, node, signal);
    const known = bitmap === null ? undefined : present.get(bitmap);
    const incremental = seeded && bitmap !== null && known !== undefined && !known.inconsistent;
    await this.#dropBitmaps(qmp, incremental ? [bitmap] : []);
    const fresh = `${BITMAP_PREFIX}${this.#machine.deps.random.hex(4)}`;
    this.#set({
      state: incremental ? "resynchronising" : "seeding",
      ...(incremental && { pendingBytes: known.count }),
    });
    const base = {
      "job-id": this.#jobs.resync,
      device: node,
      target: this.#nodes.resync,
      "on-target-error": "report",
    };
    const { resyncTarget } = this.#record;
    // Little enough in flight that a slow target is not taken for a dead one, and on a Unix socket so little that its buffer
    // takes it: see `CaptureOptions.target`.
    const unix = resyncTarget.kind === "unix";
    const pace = { "max-workers": unix ? 2 : 4, "max-chunk": unix ? GRANULARITY : 4 * GRANULARITY };
    const what = incremental ? { sync: "bitmap", bitmap, "bitmap-mode": "never" } : { sync: "full" };
    await qmp.execute(
      "transaction",
      {
        actions: [
          {
            type: "block-dirty-bitmap-add",
            data: { node, name: fresh, persistent: this.#canPersist, granularity: GRANULARITY },
          },
          { type: "blockdev-backup", data: { ...base, ...what, "x-perf": pace } },
        ],
      },
      signal,
    );
    if (incremental) return { fresh, sync: { kind: "bitmap", reason } };
    const why = seeded ? "the bitmap was not written back when QEMU ended" : "the target has had no copy";
    return { fresh, sync: { kind: "full", reason: why } };
  }

  /** Only qcow2 keeps bitmaps: another image is copied in full after its machine was off. */
  get #canPersist(): boolean {
    const content = this.#machine.spec.disks.find(({ id }) => id === this.disk)?.content;
    return content?.kind !== "existing" || content.format === "qcow2";
  }

  /** The record first: a bitmap that no record names is removed by the next agent. */
  async #adoptBitmap(qmp: QmpExecutor, bitmap: string, signal: AbortSignal): Promise<void> {
    await this.#machine.update(({ captures }) => ({
      captures: { ...captures, [this.disk]: { ...this.#record, bitmap, seeded: true } },
    }));
    signal.throwIfAborted();
    await this.#dropBitmaps(qmp, [bitmap]);
  }

  async #beginRotation(qmp: QmpExecutor, signal: AbortSignal): Promise<string | null> {
    const node = `disk-${this.disk}`;
    const present = await queryBitmaps(qmp, node, signal);
    const current = present.get(this.#record.bitmap ?? "");
    if (current === undefined) throw new Interruption("its bitmap is gone");
    if (current.count < ROTATE_BYTES) return null;
    const name = `${BITMAP_PREFIX}${this.#machine.deps.random.hex(4)}`;
    const bitmap = { node, name, persistent: this.#canPersist, granularity: GRANULARITY };
    await qmp.execute("block-dirty-bitmap-add", bitmap, signal);
    return name;
  }

  async #dropBitmaps(qmp: QmpExecutor, keep: readonly string[]): Promise<void> {
    const node = `disk-${this.disk}`;
    for (const name of (await queryBitmaps(qmp, node)).keys()) {
      if (!name.startsWith(BITMAP_PREFIX) || keep.includes(name)) continue;
      await qmp.execute("block-dirty-bitmap-remove", { node, name });
    }
  }

  /** Whatever the jobs wait for: afterwards they, their nodes and a guest's waiting write are free. */
  async #breakOff(qmp: QmpClient): Promise<void> {
    const { clock } = this.#machine.deps;
    const { live, resync } = this.#nodes;
    await this.#yank(qmp);
    await endJobs(qmp, Object.values(this.#jobs), clock);
    for (const node of [live, resync]) {
      await qmp.execute("blockdev-del", { "node-name": node }).catch(() => {});
    }
  }

  async #fellBehind(qmp: QmpClient, why: string, signal: AbortSignal): Promise<void> {
    const present = await queryBitmaps(qmp, `disk-${this.disk}`, signal);
    const pendingBytes = present.get(this.#record.bitmap ?? "")?.count ?? 0;
    const first = this.#status.state !== "behind";
    this.#set({
      state: "behind",
      behindSince: this.#status.behindSince ?? this.#machine.deps.clock.now(),
      pendingBytes,
      interruptions: this.#status.interruptions + 1,
      lastInterruption: why,
    });
    if (!first) return;
    const kept = this.#record.seeded ? "writes are remembered in the bitmap" : "the full copy begins again";
    this.#machine.notify("capture.behind", `${why}: the lag grows, ${kept}`, this.disk);
  }

  #caughtUp(lastSync: CaptureSync): void {
    this.#set({ state: "continuous", behindSince: null, pendingBytes: 0, lastSync });
    const { bytes, tookMs, reason } = lastSync;
    this.#machine.notify("capture.continuous", `${bytes} bytes moved in ${tookMs} ms: ${reason}`, this.disk);
  }

  #set(patch: Partial<CaptureStatus>): void {
    this.#status = { ...this.#status, ...patch };
    for (const wake of this.#waiting) wake();
  }
}

async function addTarget(
  qmp: QmpExecutor,
  node: string,
  location: NbdLocation,
  signal: AbortSignal,
): Promise<void> {
  await qmp.execute(
    "blockdev-add",
    // No reconnecting: an error at once, so that the mirror lets the write go; and one second at most to connect.
    { ...planNbdNode(node, location, 0), "open-timeout": 1, discard: "unmap" },
    signal,
  );
}
