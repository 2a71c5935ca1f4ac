/**
 * One machine: its durable record, and the QEMU that runs for it. What is asked for is durable before anything is done about
 * it; what was done is durable afterwards. Killed anywhere, `resume` brings about what was asked for.
 */
import { readFile, rm, stat, truncate } from "node:fs/promises";
import { join } from "node:path";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import type { JsonObject, QmpEvent } from "#wire/qmp/qmp-message.ts";
import { readConsole, waitForConsole } from "./console-log.ts";
import { createDisk, ensureDisks, inspectDisk, removeDisk } from "./create-disk.ts";
import { writeDurably } from "./durable-file.ts";
import { attachMissing } from "./hot-disk.ts";
import { GuestAgent } from "./guest-agent.ts";
import type { HostNoticeCode } from "./host-notice.ts";
import type { MachineSpec } from "./machine-spec.ts";
import { type MachineRecord, writeRecord } from "./machine-record.ts";
import type { MachineDeps, MachineView, RecordPatch } from "./machine-view.ts";
import { machineFiles, planCommandLine } from "./plan-command-line.ts";
import { adoptQemu, endQemu, findQemu, launchQemu, type RunningQemu, waitForEnd } from "./qemu-process.ts";
import { stillRuns } from "./process-identity.ts";
import type { QmpClient } from "./qmp-client.ts";
import { encodeSeed } from "./seed-disk.ts";
import { loadMemory } from "./memory-state.ts";
import { readTemplate, suits, templateState } from "./template.ts";

/** `waiting`: paused because a disk does not serve. `unreachable`: QEMU runs, its monitor does not answer. */
export type MachineState = "off" | "running" | "paused" | "waiting" | "starting" | "unreachable";

/** Called whenever a QEMU was started or adopted, and when it is gone. */
export interface MachineAttendant {
  attached(qmp: QmpClient): void;
  detached(): Promise<void>;
}

const STOP_GRACE_MS = 15_000;
const QUIT_LIMIT_MS = 5000;
/** The first attempt comes at once: a capture that was given up leaves nothing in the way of the write that failed with it. */
const FIRST_RETRY_MS = 20;
const RETRY_DISK_MS = 300;
/** A guest that prints without end fills no host: the older half of this is dropped. */
const CONSOLE_LIMIT_BYTES = 8 * 1024 * 1024;

export class Machine implements MachineView {
  readonly folder: string;
  readonly deps: MachineDeps;
  /** Answers only where the spec has `guestAgent` and the guest runs one. */
  readonly agent: GuestAgent = new GuestAgent(this);
  readonly #attendants = new Set<MachineAttendant>();
  #record: MachineRecord;
  #qemu: RunningQemu | null = null;
  #state: MachineState = "off";
  /** Disk errors that the guest was paused for, since the agent began. */
  #diskErrors = 0;
  #trying = false;
  #writing: Promise<unknown> = Promise.resolve();
  #queue: Promise<unknown> = Promise.resolve();
  #detached: Promise<void> = Promise.resolve();
  /** QEMU's end is our own doing. */
  #ending = false;
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

  get isOn(): boolean {
    return this.#qemu !== null && !this.#qemu.qmp.isClosed;
  }

  execute(command: string, args?: JsonObject, signal?: AbortSignal): Promise<Json> {
    return this.qmp.execute(command, args, signal);
  }

  attend(attendant: MachineAttendant): () => void {
    this.#attendants.add(attendant);
    if (this.isOn) attendant.attached(this.qmp);
    return () => this.#attendants.delete(attendant);
  }

  /** One change at a time. */
  exclusive<Value>(change: () => Promise<Value>): Promise<Value> {
    const result = this.#queue.then(change);
    this.#queue = result.catch(() => {});
    return result;
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
    return readConsole(join(this.folder, machineFiles.consoleLog), tailBytes);
  }

  /**
   * After the agent's own start: a QEMU that runs is adopted, one that died is noticed, and what was asked for and not brought
   * about is. Never throws: what fails is a notice, so that one machine does not keep the others from being resumed.
   */
  async resumeAfterRestart(signal?: AbortSignal): Promise<void> {
    await this.exclusive(async () => {
      try {
        await this.#reconcile(signal);
      } catch (error) {
        const reached = isOperational(error, "machine.failing") && !this.isOn;
        if (reached) this.#state = "unreachable";
        this.notify(reached ? "machine.unreachable" : "machine.not_resumed", publicMessage(error));
      }
    });
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
    if (status === "io-error") void this.#keepTrying();
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
      const log = join(this.folder, machineFiles.consoleLog);
      const { clock } = this.deps;
      const found = await waitForConsole(log, this.#record.consoleStart, ready, clock, signal);
      if (found) return;
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

  async #launch(signal: AbortSignal | undefined): Promise<void> {
    const { clock } = this.deps;
    const { spec, uuid, template } = this.#record;
    const log = join(this.folder, machineFiles.consoleLog);
    const consoleStart = (await stat(log).catch(() => ({ size: 0 }))).size;
    await this.update({ process: null, consoleStart });
    // Memory and disks of a template are right only together.
    if (template === null) await ensureDisks(this, spec.disks, signal);
    else {
      for (const disk of spec.disks) {
        await removeDisk(this.folder, disk);
        await createDisk(this.folder, disk, signal);
      }
    }
    const disks = await Promise.all(spec.disks.map((disk) => inspectDisk(this.folder, disk, signal)));
    const incoming = template !== null;
    const seed = spec.userData !== undefined || spec.publicKeys !== undefined;
    if (seed) await writeDurably(join(this.folder, machineFiles.seed), encodeSeed(spec, uuid));
    const accelerator = await this.deps.accelerator(signal);
    const args = planCommandLine({ spec, uuid, accelerator, disks, seed, incoming });
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
    if (template !== null) await this.#goOnFrom(template, qemu.qmp, signal);
    this.#state = "running";
  }

  async #goOnFrom(folder: string, qmp: QmpClient, signal: AbortSignal | undefined): Promise<void> {
    const template = await readTemplate(folder);
    if (!(await suits(template, this, signal))) {
      throw new OperationalError(
        "machine.refused",
        `the template ${folder} was kept under ${template.accelerator} and QEMU ${template.qemuVersion}: keep it again`,
      );
    }
    await loadMemory(qmp, templateState(folder), signal);
    await qmp.execute("cont", undefined, signal);
  }

  async #take(qemu: RunningQemu): Promise<void> {
    this.#qemu = qemu;
    await this.update({ process: qemu.identity });
    qemu.qmp.onEvent((event) => this.#see(event));
    void qemu.qmp.closed.then(() => this.#lost(qemu));
    for (const attendant of this.#attendants) attendant.attached(qemu.qmp);
  }

  #see({ name, data }: QmpEvent): void {
    if (name === "STOP" && this.#state === "running") this.#state = "paused";
    else if (name === "RESUME") this.#state = "running";
    else if (name === "BLOCK_IO_ERROR" && data["action"] === "stop") void this.#keepTrying();
    else if (name === "SHUTDOWN" && data["guest"] === true && this.#record.power !== "off") {
      void this.exclusive(async () => {
        if (this.#record.power === "off" || !this.isOn) return;
        await this.update({ power: "off" });
        await this.#end(0, undefined);
        await this.update({ process: null });
        this.notify("machine.turned_off", "the guest turned itself off");
      });
    }
  }

  /** The guest is paused by a disk error; its requests are kept by QEMU and done again at each attempt. */
  async #keepTrying(): Promise<void> {
    this.#diskErrors += 1;
    this.#state = "waiting";
    // One alone: each attempt ends with an error event of its own, while `cont` has just made the state `running`.
    if (this.#trying) return;
    this.#trying = true;
    const { clock } = this.deps;
    let told = false;
    try {
      for (let waitMs = FIRST_RETRY_MS; ; waitMs = RETRY_DISK_MS) {
        const errors = this.#diskErrors;
        await clock.sleep(waitMs, this.closing);
        if (!this.isOn || this.#record.power !== "on") return;
        await this.execute("cont", undefined, this.closing);
        this.#state = "waiting";
        await clock.sleep(waitMs, this.closing);
        const answer = (await this.execute("query-status", undefined, this.closing)) as { status: string };
        if (answer.status === "running" && this.#diskErrors === errors) break;
        if (!told) {
          told = true;
          this.notify("disk.waiting", "the guest is paused: a disk, or what it stands on, does not serve");
        }
      }
      this.#state = "running";
      if (told) this.notify("disk.serving", "the guest goes on");
    } catch (error) {
      if (!this.closing.aborted) this.deps.log.debug({ machine: this.id, error }, "gave up on a disk");
    } finally {
      this.#trying = false;
    }
  }

  /** The monitor closed. `stop` and `close` do that too, and have said so before. */
  #lost(qemu: RunningQemu): void {
    if (this.#qemu !== qemu) return;
    const asked = this.#ending;
    this.#qemu = null;
    this.#detached = (async () => {
      await Promise.all(Array.from(this.#attendants, (attendant) => attendant.detached()));
      if (this.closing.aborted) return;
      await waitForEnd(qemu.identity, this.deps.clock, this.closing);
      this.#state = "off";
      if (asked || this.#record.power === "off") return;
      const restart = this.spec.autoRestart;
      await this.update(restart ? { process: null } : { power: "off", process: null });
      this.notify("machine.died", restart ? "QEMU ended: starting it again" : "QEMU ended");
      if (restart) void this.start(this.closing).catch((error: unknown) => this.#notStarted(error));
    })().catch(() => {});
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
    if (qemu !== null && !qemu.qmp.isClosed) {
      if (graceMs > 0) await this.#askOff(qemu.qmp, graceMs, signal);
      // A guest that was not asked, or did not listen, still runs: what it wrote after its captures ended nobody would have.
      await qemu.qmp.execute("stop", undefined, AbortSignal.timeout(QUIT_LIMIT_MS)).catch(() => {});
      for (const attendant of this.#attendants) await attendant.detached();
      // Orderly, so that bitmaps are written; a monitor stuck on a dead target is not waited for.
      const limit = AbortSignal.timeout(QUIT_LIMIT_MS);
      this.deps.checkpoint("before quit");
      await qemu.qmp.execute("quit", undefined, limit).catch(() => {});
      await waitForEnd(qemu.identity, clock, limit).catch(() => {});
    }
    if (identity !== null && (await stillRuns(identity))) await endQemu(identity, clock);
    await qemu?.qmp[Symbol.asyncDispose]();
    await this.#detached;
    this.#state = "off";
  }

  async #askOff(qmp: QmpClient, graceMs: number, signal: AbortSignal | undefined): Promise<void> {
    const limits = [AbortSignal.timeout(graceMs), ...(signal === undefined ? [] : [signal])];
    const limit = AbortSignal.any(limits);
    const events = qmp.events(limit);
    try {
      const { status } = (await qmp.execute("query-status", undefined, limit)) as { status: string };
      if (status === "shutdown") return;
      if (status !== "running") await qmp.execute("cont", undefined, limit);
      await qmp.execute("system_powerdown", undefined, limit);
      for await (const event of events) if (event.name === "SHUTDOWN") return;
    } catch {
      // The guest's time is over, or its monitor is: ended without being asked again.
      signal?.throwIfAborted();
    } finally {
      await events.return?.();
    }
  }

  /** Called now and then by the host. */
  async trimConsole(): Promise<void> {
    const log = join(this.folder, machineFiles.consoleLog);
    const { size } = await stat(log).catch(() => ({ size: 0 }));
    // QEMU appends: it goes on at the new end.
    if (size > CONSOLE_LIMIT_BYTES) await truncate(log, 0);
  }
}
