/**
 * One machine: its durable record, and the QEMU that runs for it. What is asked for is durable before anything is done about
 * it; what was done is durable afterwards. Killed anywhere, `resume` brings about what was asked for.
 */
import { readFile, rm } from "node:fs/promises";
import { once } from "node:events";
import { join } from "node:path";
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import type { JsonObject, QmpEvent } from "#wire/qmp/qmp-message.ts";
import { askOff } from "./ask-off.ts";
import { readConsole, trimConsole, waitForConsole } from "./console-log.ts";
import { DiskRetry } from "./disk-retry.ts";
import { attachMissing } from "./hot-disk.ts";
import { GuestAgent } from "./guest-agent.ts";
import type { HostNoticeCode } from "./host-notice.ts";
import type { MachineSpec } from "./machine-spec.ts";
import { type MachineRecord, writeRecord } from "./machine-record.ts";
import type { MachineDeps, MachineView, RecordPatch } from "./machine-view.ts";
import { machineFiles } from "./plan-command-line.ts";
import { prepareLaunch } from "./prepare-launch.ts";
import {
  adoptQemu,
  endQemu,
  endsWithin,
  findQemu,
  launchQemu,
  type RunningQemu,
  waitForEnd,
} from "./qemu-process.ts";
import { stillRuns } from "./process-identity.ts";
import type { QmpClient } from "./qmp-client.ts";
import { goOnFrom } from "./template.ts";

/** `waiting`: paused because a disk does not serve. `unreachable`: QEMU runs, its monitor does not answer. */
export type MachineState = "off" | "running" | "paused" | "waiting" | "starting" | "unreachable";

/** Called whenever a QEMU was started or adopted, and when it is gone. */
export interface MachineAttendant {
  attached(qmp: QmpClient): void;
  /** `guestRuns`: or may run, for it could not be made to stand still. May come twice for one QEMU. */
  detached(guestRuns: boolean): Promise<void>;
}

const STOP_GRACE_MS = 15_000;
const QUIT_LIMIT_MS = 5000;
/** A monitor that closes is the end of its QEMU as a rule, which takes a moment. */
const GONE_LIMIT_MS = 2000;
/** Until a QEMU that does not answer is asked again, or what could not be written down is written again. */
const AGAIN_MS = 1000;

export class Machine implements MachineView {
  readonly folder: string;
  readonly deps: MachineDeps;
  /** Answers only where the spec has `guestAgent` and the guest runs one. */
  readonly agent: GuestAgent = new GuestAgent(this);
  readonly #attendants = new Set<MachineAttendant>();
  #record: MachineRecord;
  #qemu: RunningQemu | null = null;
  #state: MachineState = "off";
  /** Attendants know of this QEMU. */
  #introduced = false;
  readonly #disks: DiskRetry = new DiskRetry(this, (state) => {
    this.#state = state;
  });
  #writing: Promise<unknown> = Promise.resolve();
  #queue: Promise<unknown> = Promise.resolve();
  #detached: Promise<void> = Promise.resolve();
  /** QEMU's end is our own doing. */
  #ending = false;
  #reaching = false;
  readonly #closing = new AbortController();

  constructor(folder: string, record: MachineRecord, deps: MachineDeps) {
    this.folder = folder;
    this.deps = deps;
    this.#record = record;
  }

  get id(): string {
    return this.#record.spec.id;
  }

  get record(): MachineRecord {
    return this.#record;
  }

  get spec(): MachineSpec {
    return this.#record.spec;
  }

  get state(): MachineState {
    return this.#state;
  }

  /** Aborts when the agent closes; guests run on. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  /** The monitor. Errors: `machine.refused` when the machine is off. */
  get qmp(): QmpClient {
    if (this.#qemu === null || this.#qemu.qmp.isClosed) {
      throw new OperationalError("machine.refused", `machine ${this.id} is ${this.#state}: start it first`);
    }
    return this.#qemu.qmp;
  }

  get #consoleLog(): string {
    return join(this.folder, machineFiles.consoleLog);
  }

  get isOn(): boolean {
    return this.#qemu !== null && !this.#qemu.qmp.isClosed;
  }

  execute(command: string, args?: JsonObject, signal?: AbortSignal): Promise<Json> {
    return this.qmp.execute(command, args, signal);
  }

  attend(attendant: MachineAttendant): () => void {
    this.#attendants.add(attendant);
    // While a QEMU is being taken, all are told of it at the end of that: nobody twice.
    if (this.isOn && this.#introduced) attendant.attached(this.qmp);
    return () => this.#attendants.delete(attendant);
  }

  /** One change at a time. */
  exclusive<Value>(change: () => Promise<Value>): Promise<Value> {
    const result = this.#queue.then(change);
    this.#queue = result.catch(() => {});
    return result;
  }

  /** The change that is under way is over, and so is the loss of a monitor that was just seen. Not within a change. */
  async settled(): Promise<void> {
    // Its loss is known from here on.
    if (this.#qemu?.qmp.isClosed === true) await this.#qemu.qmp.closed;
    await this.#detached;
    await this.exclusive(() => Promise.resolve());
  }

  /** Durable when it returns. A function is given the record as it is when its turn comes. */
  update(patch: RecordPatch | ((record: MachineRecord) => RecordPatch)): Promise<void> {
    const written = this.#writing.then(async () => {
      const changes = typeof patch === "function" ? patch(this.#record) : patch;
      const next = { ...this.#record, ...changes };
      this.deps.checkpoint(`before writing ${Object.keys(changes).join(", ")}`);
      await writeRecord(this.folder, next);
      this.#record = next;
      this.deps.checkpoint(`after writing ${Object.keys(changes).join(", ")}`);
    });
    this.#writing = written.catch(() => {});
    return written;
  }

  notify(code: HostNoticeCode, message: string, disk?: string): void {
    this.deps.log.info({ machine: this.id, code, disk }, message);
    const at = this.deps.clock.now();
    this.deps.notify({ code, machine: this.id, message, at, ...(disk !== undefined && { disk }) });
  }

  /** Running (and ready, where the spec says how to tell) when it returns. On already: nothing. Errors: `machine.refused`, `machine.failing`. */
  start(signal?: AbortSignal): Promise<void> {
    return this.exclusive(async () => {
      await this.#detached;
      await this.update({ power: "on" });
      if (this.isOn) await this.#unpause(signal);
      else await this.#boot(signal);
    });
  }

  /** Asks the guest to turn itself off, and ends it after `graceMs`; 0 does not ask. Off when it returns. */
  stop(graceMs: number = STOP_GRACE_MS, signal?: AbortSignal): Promise<void> {
    return this.exclusive(async () => {
      await this.update({ power: "off" });
      await this.#end(graceMs, signal);
      await this.update({ process: null });
    });
  }

  /** The guest stands still and keeps its memory. */
  pause(signal?: AbortSignal): Promise<void> {
    return this.exclusive(async () => {
      const qmp = this.qmp;
      await this.update({ power: "paused" });
      await qmp.execute("stop", undefined, signal);
      this.#state = "paused";
    });
  }

  resume(signal?: AbortSignal): Promise<void> {
    return this.exclusive(async () => {
      const qmp = this.qmp;
      await this.update({ power: "on" });
      await qmp.execute("cont", undefined, signal);
      this.#state = "running";
    });
  }

  /** Memory and processors change at the next start. */
  resize(size: { readonly memoryMiB?: number; readonly cpus?: number }): Promise<void> {
    return this.exclusive(async () => {
      await this.update({ spec: { ...this.spec, ...size } });
    });
  }

  /** PNG. Errors: `machine.refused` without a display. */
  async screenshot(signal?: AbortSignal): Promise<Buffer> {
    const path = join(this.folder, `screen-${this.deps.random.hex(4)}.png`);
    try {
      await this.execute("screendump", { filename: path, format: "png" }, signal);
      return await readFile(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  /** The end of what the guest printed, over all its starts. */
  console(tailBytes = 65_536): Promise<Buffer> {
    return readConsole(this.#consoleLog, tailBytes);
  }

  /**
   * After the agent's own start: a QEMU that runs is adopted, one that died is noticed, and what was asked for and not brought
   * about is. Never throws: what fails is a notice, so that one machine does not keep the others from being resumed.
   */
  async resumeAfterRestart(signal?: AbortSignal): Promise<void> {
    await this.exclusive(() => this.#tryToResume(signal));
    if (this.#state === "unreachable") void this.#keepReaching();
  }

  async #tryToResume(signal: AbortSignal | undefined): Promise<void> {
    try {
      if (!this.isOn) await this.#reconcile(signal);
    } catch (error) {
      if (this.closing.aborted) return;
      const known = this.#state === "unreachable";
      const runs = !this.isOn && (await findQemu(this.folder, this.#record.uuid).catch(() => "unknown"));
      const unreachable = runs !== false && runs !== null;
      if (unreachable) this.#state = "unreachable";
      if (known && unreachable) return;
      this.notify(unreachable ? "machine.unreachable" : "machine.not_resumed", publicMessage(error));
    }
  }

  /** Its QEMU runs and does not answer: what goes on for its disks is watched by nobody until it does. */
  async #keepReaching(): Promise<void> {
    if (this.#reaching) return;
    this.#reaching = true;
    try {
      while (this.#state === "unreachable" && !this.closing.aborted) {
        await this.deps.clock.sleep(AGAIN_MS, this.closing).catch(() => {});
        await this.exclusive(async () => {
          if (this.#state === "unreachable") await this.#tryToResume(this.closing);
        });
      }
    } finally {
      this.#reaching = false;
    }
  }

  /** Lets go of the monitor. The guest runs on. */
  async close(): Promise<void> {
    this.#closing.abort(new OperationalError("aborted", "the host agent closes"));
    await this.#queue.catch(() => {});
    await this.#qemu?.qmp[Symbol.asyncDispose]();
    await this.#detached;
  }

  async #reconcile(signal: AbortSignal | undefined): Promise<void> {
    const { power, process } = this.#record;
    const qemu = await adoptQemu(this.folder, this.#record.uuid, signal);
    if (qemu === null) {
      this.#state = "off";
      if (power === "off") return;
      // Not known to have run: the agent was killed while it started it.
      if (process === null || this.spec.autoRestart) return this.#boot(signal);
      await this.update({ power: "off", process: null });
      this.notify("machine.died", "QEMU ended while no agent watched it");
      return;
    }
    await this.#take(qemu);
    const status = (await qemu.qmp.execute("query-status", undefined, signal)) as { status: string };
    if (status.status === "shutdown" || power === "off") {
      await this.update({ power: "off" });
      await this.#end(0, signal);
      await this.update({ process: null });
    } else if (power === "paused") {
      await qemu.qmp.execute("stop", undefined, signal);
      this.#state = "paused";
    } else if (status.status === "inmigrate" || status.status === "postmigrate") {
      // Killed while the memory came in or went out: neither is a state to go on from.
      await this.#end(0, signal);
      await this.#boot(signal);
    } else {
      await this.#unpause(signal);
      // The agent may have been killed while it attached a disk.
      await attachMissing(this, signal);
    }
  }

  async #unpause(signal: AbortSignal | undefined): Promise<void> {
    const { status } = (await this.qmp.execute("query-status", undefined, signal)) as { status: string };
    if (status === "io-error") void this.#disks.keepTrying();
    else {
      if (status !== "running") await this.qmp.execute("cont", undefined, signal);
      this.#state = "running";
    }
  }

  async #boot(signal: AbortSignal | undefined): Promise<void> {
    const { ready } = this.spec;
    const attempts = ready?.attempts ?? 1;
    for (let attempt = 1; ; attempt++) {
      this.#state = "starting";
      try {
        await this.#launch(signal);
      } catch (error) {
        await this.#end(0, undefined);
        await this.update({ power: "off", process: null });
        throw error;
      }
      if (ready === undefined || this.#record.template !== null) return;
      if (await this.#becomesReady(ready, signal)) return;
      this.notify("machine.boot_hung", `not ready within ${ready.withinMs} ms, attempt ${attempt}`);
      await this.#end(0, signal);
      if (attempt === attempts) {
        await this.update({ power: "off", process: null });
        throw new OperationalError("machine.failing", `machine ${this.id} did not become ready`, {
          detail: (await this.console(2000)).toString(),
        });
      }
    }
  }

  /** False: not in time. Errors: `machine.failing` when QEMU ends meanwhile, after which nothing more would come. */
  async #becomesReady(
    ready: NonNullable<MachineSpec["ready"]>,
    signal: AbortSignal | undefined,
  ): Promise<boolean> {
    const died = new AbortController();
    const reason = new OperationalError("machine.failing", "its QEMU died while it started: see its console");
    if (this.#qemu === null) died.abort(reason);
    void this.#qemu?.qmp.closed.then(() => {
      // An agent that closes lets go of the monitor too, and its guests run on.
      if (!this.closing.aborted && !this.#ending) died.abort(reason);
    });
    const either = signal === undefined ? died.signal : AbortSignal.any([signal, died.signal]);
    try {
      return await waitForConsole(
        this.#consoleLog,
        this.#record.consoleStart,
        ready,
        this.deps.clock,
        either,
      );
    } catch (error) {
      if (error !== reason) throw error;
      await this.#end(0, undefined);
      await this.update({ power: "off", process: null });
      throw error;
    }
  }

  async #launch(signal: AbortSignal | undefined): Promise<void> {
    const { clock } = this.deps;
    const { uuid, template } = this.#record;
    const args = await prepareLaunch(this, signal);
    const spawned = (): void => this.deps.checkpoint("QEMU was spawned");
    const qemu = await launchQemu(this.folder, args, { clock, spawned }, signal).catch(
      async (error: unknown) => {
        // One that a killed agent started a moment ago holds the pid file: it is the machine.
        const other = await adoptQemu(this.folder, uuid, signal);
        if (other === null) throw error;
        return other;
      },
    );
    await this.#take(qemu);
    if (template !== null) await goOnFrom(template, this, signal);
    this.#state = "running";
  }

  async #take(qemu: RunningQemu): Promise<void> {
    this.#introduced = false;
    this.#qemu = qemu;
    qemu.qmp.onEvent((event) => this.#see(event));
    try {
      await this.update({ process: qemu.identity });
    } catch (error) {
      // Nobody would look after what goes on for its disks: it is taken as a whole, or not yet.
      this.#qemu = null;
      await qemu.qmp[Symbol.asyncDispose]();
      throw error;
    }
    void qemu.qmp.closed.then(() => this.#lost(qemu));
    this.#introduced = true;
    for (const attendant of this.#attendants) attendant.attached(qemu.qmp);
  }

  #see({ name, data }: QmpEvent): void {
    if (name === "STOP" && this.#state === "running") this.#state = "paused";
    else if (name === "RESUME") this.#state = "running";
    else if (name === "BLOCK_IO_ERROR" && data["action"] === "stop") void this.#disks.keepTrying();
    else if (name === "SHUTDOWN" && data["guest"] === true && this.#record.power !== "off") {
      let begun = false;
      void this.#followUp("the guest turned itself off", () =>
        this.exclusive(async () => {
          if (!this.isOn && !begun) return;
          begun = true;
          await this.update({ power: "off" });
          await this.#end(0, undefined);
          await this.update({ process: null });
          this.notify("machine.turned_off", "the guest turned itself off");
        }),
      );
    }
  }

  /** Of what nobody waits for: tried until it is done, since the disk may be full for a while. A bug ends the process. */
  async #followUp(what: string, work: () => Promise<void>): Promise<void> {
    for (let told = false; ; told = true) {
      try {
        return await work();
      } catch (error) {
        if (this.closing.aborted) return;
        if (!isOperational(error)) throw error;
        if (!told) this.notify("machine.not_recorded", `${what}, and: ${publicMessage(error)}`);
      }
      await this.deps.clock.sleep(AGAIN_MS, this.closing).catch(() => {});
    }
  }

  /** The monitor closed. `stop` and `close` do that too, and have said so before. */
  #lost(qemu: RunningQemu): void {
    if (this.#qemu !== qemu) return;
    const asked = this.#ending;
    this.#qemu = null;
    this.#introduced = false;
    this.#detached = (async () => {
      // Where that can't be seen, its guest may run, and it is looked at again below.
      const ended =
        asked || (await endsWithin(qemu.identity, this.deps.clock, GONE_LIMIT_MS).catch(() => false));
      await Promise.all(Array.from(this.#attendants, (attendant) => attendant.detached(!ended)));
    })();
    if (!asked) {
      void this.#followUp("QEMU's monitor closed", async () => {
        await this.#detached;
        await this.exclusive(() => this.#seeToLoss(qemu));
      });
    }
  }

  async #seeToLoss(qemu: RunningQemu): Promise<void> {
    // Somebody has started or ended it since.
    if (this.closing.aborted || this.#qemu !== null) return;
    if (await stillRuns(qemu.identity)) {
      // Its guest runs on; what goes on for its disks wants to be watched again.
      await this.#tryToResume(this.closing);
      if (this.#state === "unreachable") void this.#keepReaching();
      return;
    }
    this.#state = "off";
    if (this.#record.power === "off") return;
    const restart = this.spec.autoRestart;
    await this.update(restart ? { process: null } : { power: "off", process: null });
    this.notify("machine.died", restart ? "QEMU ended: starting it again" : "QEMU ended");
    if (restart) void this.start(this.closing).catch((error: unknown) => this.#notStarted(error));
  }

  #notStarted(error: unknown): void {
    if (!this.closing.aborted) this.notify("machine.not_resumed", publicMessage(error));
  }

  async #end(graceMs: number, signal: AbortSignal | undefined): Promise<void> {
    this.#ending = true;
    try {
      await this.#endQemu(graceMs, signal);
    } finally {
      this.#ending = false;
    }
  }

  async #endQemu(graceMs: number, signal: AbortSignal | undefined): Promise<void> {
    const { clock } = this.deps;
    const qemu = this.#qemu;
    // Also one whose monitor does not answer.
    const identity = qemu?.identity ?? (await findQemu(this.folder, this.#record.uuid));
    let detached: Promise<unknown> = Promise.resolve();
    if (qemu !== null && !qemu.qmp.isClosed) {
      if (graceMs > 0) await askOff(qemu.qmp, graceMs, signal);
      // A guest that was not asked, or did not listen, still runs: what it wrote after its captures ended nobody would have.
      const stands = await qemu.qmp.execute("stop", undefined, AbortSignal.timeout(QUIT_LIMIT_MS)).then(
        () => true,
        () => false,
      );
      detached = Promise.all(Array.from(this.#attendants, (attendant) => attendant.detached(!stands)));
      // A QEMU that stands still, and what waits for it, is ended below.
      const patience = deadlineAfter(clock, 2 * QUIT_LIMIT_MS);
      await Promise.race([detached, once(patience.signal, "abort")]);
      patience.cancel();
      // Orderly, so that bitmaps are written; a monitor stuck on a dead target is not waited for.
      const limit = AbortSignal.timeout(QUIT_LIMIT_MS);
      this.deps.checkpoint("before quit");
      await qemu.qmp.execute("quit", undefined, limit).catch(() => {});
      await waitForEnd(qemu.identity, clock, limit).catch(() => {});
    }
    if (identity !== null && (await stillRuns(identity))) await endQemu(identity, clock);
    await qemu?.qmp[Symbol.asyncDispose]();
    await detached;
    await this.#detached;
    this.#state = "off";
  }

  /** Called now and then by the host. */
  async trimConsole(): Promise<void> {
    // What is waited for may be in it.
    if (this.#state !== "starting") await trimConsole(this.#consoleLog);
  }
}
