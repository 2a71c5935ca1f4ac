/**
 * Making a live disk whole: QEMU's block-stream copies what the guest has not written itself from the export below the disk into
 * the disk, and then lets go of the export, all while the guest runs. What was copied is in the image: after a restart of the
 * agent or the machine the copy goes on where it was. When the export fails the copy waits; the guest's own writes are in the
 * image from the start and are never given up.
 *
 * A guest that starts comes first: it waits for each piece that it reads, while a copy takes whatever the export and the host's
 * processors give. So the copy begins when the guest's start is over.
 */
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { endJobs, endOfJob, queryJobs, queryNodes, queryReads } from "./block-jobs.ts";
import type { Machine, MachineAttendant } from "./machine.ts";
import { exportNode } from "./plan-nbd.ts";
import type { QmpClient } from "./qmp-client.ts";
import { removeCredentials } from "./remove-credentials.ts";
import { untilCalm } from "./until-calm.ts";

export type CopyState = "waiting" | "held" | "copying" | "complete";

export interface CopyProgress {
  /** `waiting`: the machine is off, or the export does not serve. `held`: the guest starts, and the copy begins afterwards
   * (nobody has asked the export anything for it until then). */
  readonly state: CopyState;
  /** Of the disk looked at so far, whether it had to be copied or not. */
  readonly doneBytes: number;
  readonly totalBytes: number;
}

const RETRY_MS = 250;
const END_LIMIT_MS = 5000;
const LOOK_EVERY_MS = 100;

export class BackgroundCopy implements MachineAttendant {
  readonly disk: string;
  readonly #machine: Machine;
  readonly #complete = Promise.withResolvers<void>();
  #over = new AbortController();
  #running: Promise<void> = Promise.resolve();
  /** A wait is told once. */
  #told = false;
  #progress: CopyProgress = { state: "waiting", doneBytes: 0, totalBytes: 0 };

  constructor(machine: Machine, disk: string) {
    this.#machine = machine;
    this.disk = disk;
  }

  get progress(): CopyProgress {
    return this.#progress;
  }

  /** Resolves when the disk stands alone and the export has been let go. */
  get complete(): Promise<void> {
    return this.#complete.promise;
  }

  /** 0: no limit. From now on, and after restarts. */
  async limit(bytesPerSecond: number): Promise<void> {
    await this.#machine.update(({ copies }) => ({ copies: { ...copies, [this.disk]: { bytesPerSecond } } }));
    if (this.#progress.state === "complete" || !this.#machine.isOn) return;
    try {
      await this.#machine.execute("block-job-set-speed", { device: this.#job, speed: bytesPerSecond });
    } catch (error) {
      // There is no job yet: it begins with what is on record.
      if (!isOperational(error, "machine.refused")) throw error;
    }
  }

  attached(qmp: QmpClient): void {
    if (this.#progress.state === "complete") return;
    this.#over = new AbortController();
    const signal = AbortSignal.any([this.#over.signal, this.#machine.closing]);
    this.#running = this.#follow(qmp, signal).catch((error: unknown) => {
      if (signal.aborted || qmp.isClosed) return;
      this.#machine.notify("copy.waiting", `the copy ended: ${publicMessage(error)}`, this.disk);
    });
  }

  async detached(): Promise<void> {
    this.#over.abort();
    await this.#running;
    if (this.#progress.state !== "complete") this.#progress = { ...this.#progress, state: "waiting" };
  }

  /** The job ends too. Errors: `machine.failing` when QEMU does not end it in some seconds. */
  async stop(): Promise<void> {
    await this.detached();
    if (!this.#machine.isOn) return;
    const { clock } = this.#machine.deps;
    const limit = deadlineAfter(clock, END_LIMIT_MS);
    try {
      await endJobs(this.#machine.qmp, (id) => id === this.#job, clock, limit.signal);
    } catch (error) {
      if (!limit.signal.aborted) throw error;
      throw new OperationalError(
        "machine.failing",
        `QEMU does not end the copy of disk ${this.disk}: it has not answered for ${END_LIMIT_MS} ms`,
        { outcome: "unknown", cause: error },
      );
    } finally {
      limit.cancel();
    }
  }

  get #job(): string {
    return `copy-${this.disk}`;
  }

  async #follow(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    const { clock } = this.#machine.deps;
    let held = false;
    for (;;) {
      const nodes = await queryNodes(qmp, signal);
      if (!nodes.has(`source-${this.disk}`)) break;
      try {
        if (await this.#letGo(qmp, signal)) break;
        if (!held) await this.#hold(qmp, signal);
        held = true;
        await this.#stream(qmp, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (qmp.isClosed) return;
        this.#wait(publicMessage(error));
        await clock.sleep(RETRY_MS, signal);
      }
    }
    await this.#machine.update(({ copies }) => {
      const { [this.disk]: _, ...others } = copies;
      return { copies: others };
    });
    this.#progress = { ...this.#progress, state: "complete" };
    this.#machine.notify("copy.complete", "the disk stands alone; its source was let go", this.disk);
    this.#complete.resolve();
  }

  /** Returns when the guest's own start is over, as far as its reads tell; at once where a copy is under way. */
  async #hold(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    if ((await queryJobs(qmp, signal)).has(this.#job)) return;
    this.#progress = { ...this.#progress, state: "held" };
    const reads = (): Promise<number> => queryReads(qmp, `dev-${this.disk}`, signal);
    await untilCalm(reads, this.#machine.deps.clock, signal);
  }

  /** QEMU refuses while anything stands on the export or copies from it; else it closes the connection. */
  async #letGo(qmp: QmpClient, signal: AbortSignal): Promise<boolean> {
    try {
      await qmp.execute("blockdev-del", { "node-name": `source-${this.disk}` }, signal);
      await removeCredentials(qmp, exportNode(this.disk), signal);
      return true;
    } catch (error) {
      if (isOperational(error, "machine.refused")) return false;
      throw error;
    }
  }

  /** Returns when the job has ended well; one that an agent before us left running is taken over. */
  async #stream(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    const { clock } = this.#machine.deps;
    const speed = (): number => this.#machine.record.copies[this.disk]?.bytesPerSecond ?? 0;
    const end: { why: string | null } = { why: null };
    const stop = qmp.onEvent((event) => {
      end.why ??= endOfJob(event, this.#job);
    });
    try {
      if (!(await queryJobs(qmp, signal)).has(this.#job)) {
        end.why = null;
        const given = speed();
        await qmp.execute(
          "block-stream",
          {
            "job-id": this.#job,
            device: `disk-${this.disk}`,
            speed: given,
            "on-error": "stop",
          },
          signal,
        );
        // Asked for another one while the job began.
        if (speed() !== given) await this.limit(speed());
      }
      for (;;) {
        const job = (await queryJobs(qmp, signal)).get(this.#job);
        if (end.why !== null && end.why !== "") {
          throw new OperationalError("machine.failing", `the background copy ended: ${end.why}`);
        }
        if (job === undefined) return;
        // Each `cont` of a guest that waited for the same export sets every job's I/O status back to `ok`, and leaves the job paused.
        const state = job.ioStatus === "ok" && job.status !== "paused" ? "copying" : "waiting";
        if (state === "waiting") this.#wait("the source does not serve");
        else if (job.offset > this.#progress.doneBytes) this.#told = false;
        this.#progress = { state, doneBytes: job.offset, totalBytes: job.length };
        if (state === "waiting") {
          await clock.sleep(RETRY_MS, signal);
          await this.#resume(qmp, signal);
        }
        await clock.sleep(LOOK_EVERY_MS, signal);
      }
    } finally {
      stop();
    }
  }

  /** QEMU refuses when it went on by itself: it had been paused for a moment, not by an error. */
  async #resume(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    try {
      await qmp.execute("block-job-resume", { device: this.#job }, signal);
    } catch (error) {
      if (!isOperational(error, "machine.refused")) throw error;
    }
  }

  #wait(why: string): void {
    if (this.#progress.state === "waiting" && this.#told) return;
    this.#told = true;
    this.#progress = { ...this.#progress, state: "waiting" };
    this.#machine.notify("copy.waiting", `${why}: the copy goes on when it does`, this.disk);
  }
}
