/** A guest that is paused by a disk error: its requests are kept by QEMU and done again at each attempt, until the disk serves. */
import type { HostNoticeCode } from "./host-notice.ts";
import type { MachineView } from "./machine-view.ts";

/** The first attempt comes at once: a capture that was given up leaves nothing in the way of the write that failed with it. */
const FIRST_RETRY_MS = 20;
const RETRY_MS = 300;

export interface RetriedMachine extends MachineView {
  /** Aborts when the agent closes. */
  readonly closing: AbortSignal;
  notify(code: HostNoticeCode, message: string): void;
}

export class DiskRetry {
  readonly #machine: RetriedMachine;
  readonly #setState: (state: "waiting" | "running") => void;
  /** Disk errors that the guest was paused for, since the agent began. */
  #errors = 0;
  #trying = false;

  constructor(machine: RetriedMachine, setState: (state: "waiting" | "running") => void) {
    this.#machine = machine;
    this.#setState = setState;
  }

  /** The guest was paused by an error, or was found so. */
  async keepTrying(): Promise<void> {
    this.#errors += 1;
    this.#setState("waiting");
    // One alone: each attempt ends with an error event of its own, while `cont` has just made the state `running`.
    if (this.#trying) return;
    this.#trying = true;
    const { closing, deps } = this.#machine;
    try {
      await this.#tryOn(closing);
    } catch (error) {
      if (!closing.aborted) deps.log.debug({ machine: this.#machine.id, error }, "gave up on a disk");
    } finally {
      this.#trying = false;
    }
  }

  async #tryOn(signal: AbortSignal): Promise<void> {
    const machine = this.#machine;
    const { clock } = machine.deps;
    let told = false;
    for (let waitMs = FIRST_RETRY_MS; ; waitMs = RETRY_MS) {
      const errors = this.#errors;
      await clock.sleep(waitMs, signal);
      if (!machine.isOn || machine.record.power !== "on") return;
      await machine.execute("cont", undefined, signal);
      this.#setState("waiting");
      await clock.sleep(waitMs, signal);
      const answer = (await machine.execute("query-status", undefined, signal)) as { status: string };
      if (answer.status === "running" && this.#errors === errors) break;
      if (told) continue;
      told = true;
      machine.notify("disk.waiting", "the guest is paused: a disk, or what it stands on, does not serve");
    }
    this.#setState("running");
    if (told) machine.notify("disk.serving", "the guest goes on");
  }
}
