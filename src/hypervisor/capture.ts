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
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { type BlockJob, endOfJob, type QmpExecutor, queryBitmaps, queryJobs } from "./block-jobs.ts";
import { CaptureJobs } from "./capture-jobs.ts";
import { type JobWatch, planWatch, stuckForMs, watchJob } from "./capture-watch.ts";
import { qemuImg } from "./create-disk.ts";
import { nbdArguments } from "./plan-nbd.ts";
import type { Machine, MachineAttendant } from "./machine.ts";
import type { CaptureRecord } from "./machine-record.ts";
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
  /**
   * Every write that the guest was told is done is at the target, and nothing else: only then is what the target holds a disk as it once
   * was. False from the moment in which a machine is found running until the target has caught up with it.
   */
  readonly whole: boolean;
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
  readonly #jobs: CaptureJobs;
  #over = new AbortController();
  #running: Promise<void> = Promise.resolve();
  #status: CaptureStatus = {
    state: "waiting",
    whole: false,
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
    this.#jobs = new CaptureJobs(machine, disk);
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
    // Its guest may have written before the mirror is there, and while no agent watched the mirror.
    this.#fallsShort();
    const signal = AbortSignal.any([this.#over.signal, this.#machine.closing]);
    const work = this.#record.ending === true ? this.#finish(qmp, signal) : this.#follow(qmp, signal);
    this.#running = work.catch((error: unknown) => {
      if (signal.aborted || qmp.isClosed) return;
      this.#machine.notify("capture.behind", `capture ended: ${publicMessage(error)}`, this.disk);
    });
  }

  /** The machine goes off. When the agent closes, QEMU's jobs run on. */
  async detached(guestRuns: boolean): Promise<void> {
    this.#over.abort();
    await this.#running;
    if (guestRuns) this.#fallsShort();
    if (!this.#machine.closing.aborted && this.#machine.isOn) {
      await this.#jobs.breakOff(this.#machine.qmp).catch((error: unknown) => {
        // QEMU ends next, and its jobs with it.
        this.#machine.deps.log.debug({ machine: this.#machine.id, error }, "QEMU ends with a capture");
      });
    }
    this.#set({ state: "waiting" });
  }

  /** Capture ends: QEMU mirrors no longer, and also the bitmaps go. Errors: `machine.failing`; then it is to be called again. */
  async remove(): Promise<void> {
    this.#over.abort();
    await this.#running;
    this.#fallsShort();
    this.#set({ state: "waiting" });
    if (!this.#machine.isOn) return;
    await this.#jobs.breakOff(this.#machine.qmp);
    await this.#dropBitmaps(this.#machine.qmp, [], this.#machine.closing);
  }

  get #record(): CaptureRecord {
    const record = this.#machine.record.captures[this.disk];
    if (record === undefined) throw new OperationalError("not_found", `disk ${this.disk} is not captured`);
    return record;
  }

  get #mirror(): string {
    return this.#jobs.mirrorTo(this.#record.target);
  }

  async #follow(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    const guarded = this.#jobs.guarded(qmp, () => this.#record.stallLimitMs);
    let reason = "the agent or the machine was started again";
    for (;;) {
      try {
        await this.#waitForTarget(qmp, signal);
        await this.#jobs.begin(qmp, guarded, this.#record, signal);
        await this.#stay(qmp, guarded, reason, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (qmp.isClosed) return;
        reason = error instanceof Interruption ? error.message : publicMessage(error);
        await this.#fallBehind(qmp, reason, signal);
        await this.#machine.deps.clock.sleep(RETRY_MS, signal);
      }
    }
  }

  /** An agent before us was killed while it ended this capture. */
  async #finish(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    for (;;) {
      try {
        await this.#jobs.breakOff(qmp);
        await this.#dropBitmaps(qmp, [], signal);
        await this.#machine.update(({ captures }) => {
          const { [this.disk]: _, ...others } = captures;
          return { captures: others };
        });
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (qmp.isClosed) return;
        this.#machine.notify("capture.behind", `its end is tried again: ${publicMessage(error)}`, this.disk);
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
      let why = "the target does not answer";
      try {
        await qemuImg(["info", ...nbdArguments(this.#record.target)], limit);
        return;
      } catch (error) {
        signal.throwIfAborted();
        // Its own words where there are any: a certificate that has expired, a name that does not resolve.
        if (isOperational(error, "machine.refused")) why = `the target cannot be reached: ${error.message}`;
      }
      // A mirror that an agent before us began may be holding the guest's writes.
      if (this.#status.state !== "behind") await this.#fallBehind(qmp, why, signal);
      await this.#machine.deps.clock.sleep(RETRY_MS, signal);
    }
  }

  /** Brings the target up to date, then watches. Ends by throwing alone. */
  async #stay(qmp: QmpClient, guarded: QmpExecutor, reason: string, signal: AbortSignal): Promise<never> {
    const { clock } = this.#machine.deps;
    const began = clock.monotonicMs();
    const mirrorId = this.#mirror;
    const watches = new Map<string, JobWatch>();
    const end: { why: string | null; bytes: number; mirror: boolean } = {
      why: null,
      bytes: 0,
      mirror: false,
    };
    // Before the job begins: it may have ended when the answer to its beginning is read.
    const stop = qmp.onEvent((event) => {
      end.why ??= endOfJob(event, this.#jobs.resync);
      if (endOfJob(event, mirrorId) !== null) {
        // At once: should QEMU die before the next look, what the guest wrote since is not at the target.
        end.mirror = true;
        this.#fallsShort();
      }
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
        const watch = planWatch(this.#record.stallLimitMs);
        const mirror = jobs.get(mirrorId);
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
          if (end.mirror) throw new Interruption("the target failed");
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
    for (const id of [this.#mirror, this.#jobs.resync]) {
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
    await this.#dropBitmaps(qmp, incremental ? [bitmap] : [], signal);
    const fresh = `${BITMAP_PREFIX}${this.#machine.deps.random.hex(4)}`;
    this.#set({
      state: incremental ? "resynchronising" : "seeding",
      ...(incremental && { pendingBytes: known.count }),
    });
    const base = {
      "job-id": this.#jobs.resync,
      device: node,
      target: this.#jobs.resync,
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
    await this.#dropBitmaps(qmp, [bitmap], signal);
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

  async #dropBitmaps(qmp: QmpExecutor, keep: readonly string[], signal: AbortSignal): Promise<void> {
    const node = `disk-${this.disk}`;
    for (const name of (await queryBitmaps(qmp, node, signal)).keys()) {
      if (!name.startsWith(BITMAP_PREFIX) || keep.includes(name)) continue;
      await qmp.execute("block-dirty-bitmap-remove", { node, name }, signal);
    }
  }

  /** From now on the target may lack writes. */
  #fallsShort(): void {
    const behindSince = this.#status.behindSince ?? this.#machine.deps.clock.now();
    this.#set({ whole: false, behindSince });
  }

  /** The guest's writes are free of the target when it returns, and the state says what that costs. */
  async #fallBehind(qmp: QmpClient, why: string, signal: AbortSignal): Promise<void> {
    const first = this.#status.state !== "behind";
    this.#fallsShort();
    try {
      await this.#jobs.breakOff(qmp);
      const present = await queryBitmaps(qmp, `disk-${this.disk}`, signal);
      this.#set({ pendingBytes: present.get(this.#record.bitmap ?? "")?.count ?? 0 });
    } catch (error) {
      signal.throwIfAborted();
      if (qmp.isClosed) return;
      // It is tried again with the next attempt to begin, which comes soon.
      this.#machine.deps.log.warn(
        { machine: this.#machine.id, disk: this.disk, error },
        publicMessage(error),
      );
    }
    this.#set({
      state: "behind",
      interruptions: this.#status.interruptions + 1,
      lastInterruption: why,
    });
    if (!first) return;
    const kept = this.#record.seeded ? "writes are remembered in the bitmap" : "the full copy begins again";
    this.#machine.notify("capture.behind", `${why}: the lag grows, ${kept}`, this.disk);
  }

  #caughtUp(lastSync: CaptureSync): void {
    this.#set({ state: "continuous", whole: true, behindSince: null, pendingBytes: 0, lastSync });
    const { bytes, tookMs, reason } = lastSync;
    this.#machine.notify("capture.continuous", `${bytes} bytes moved in ${tookMs} ms: ${reason}`, this.disk);
  }

  #set(patch: Partial<CaptureStatus>): void {
    this.#status = { ...this.#status, ...patch };
    for (const wake of this.#waiting) wake();
  }
}
