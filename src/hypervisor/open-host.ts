/** The host agent: the machines below one folder. Guests outlive it; the next one adopts them. */
import { mkdir, readdir, rm, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import { type Random, systemRandom } from "#kernel/random.ts";
import { chooseAccelerator } from "./accelerator.ts";
import { ensureDisks } from "./create-disk.ts";
import { makeFolder, syncFolder } from "#kernel/durable-file.ts";
import { DiskServices } from "./disk-services.ts";
import { lockFolder } from "./host-lock.ts";
import type { HostNotice } from "./host-notice.ts";
import { decodeMachineSpec, type MachineSpec, type MachineSpecInput } from "./machine-spec.ts";
import { Machine } from "./machine.ts";
import type { MachineDeps } from "./machine-view.ts";
import { type MachineRecord, readRecord, writeRecord } from "./machine-record.ts";
import { planFromTemplate, readTemplate, type TemplateChanges } from "./template.ts";
import { type Accelerator, machineFiles } from "./plan-command-line.ts";

export interface HostOptions {
  /** Everything of the host's machines is below it. Absolute. */
  readonly folder: string;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
  /** Default: what a timed probe boot says. */
  readonly accelerator?: Accelerator;
  /** For tests: called between any two steps whose order matters. */
  readonly checkpoint?: (step: string) => void;
}

const TRIM_EVERY_MS = 60_000;
const UNTOLD_LIMIT = 1000;

/**
 * Adopts what runs and resumes what was begun; a machine that cannot be resumed is a notice, and does not keep the others.
 * Errors: `state.conflict` when another agent has the folder.
 */
export async function openHost(options: HostOptions): Promise<HypervisorHost> {
  await mkdir(join(options.folder, "machines"), { recursive: true, mode: 0o700 });
  const lock = lockFolder(options.folder);
  try {
    const host = new HypervisorHost(options, lock);
    await host.load();
    return host;
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

export class HypervisorHost implements AsyncDisposable {
  readonly folder: string;
  readonly #lock: Disposable;
  readonly #deps: MachineDeps;
  readonly #machines = new Map<string, Machine>();
  readonly #services = new Map<string, DiskServices>();
  readonly #listeners = new Set<(notice: HostNotice) => void>();
  /** Of before anybody listened. */
  readonly #untold: HostNotice[] = [];
  /** Folders that are a machine's and can't be read as one: id -> why. They are left as they are. */
  readonly #unread = new Map<string, OperationalError>();
  readonly #trimming: NodeJS.Timeout;
  #resuming: Promise<unknown> = Promise.resolve();

  constructor(options: HostOptions, lock: Disposable) {
    this.folder = options.folder;
    this.#lock = lock;
    const clock = options.clock ?? systemClock;
    let chosen: Promise<Accelerator> | undefined =
      options.accelerator && Promise.resolve(options.accelerator);
    this.#deps = {
      clock,
      random: options.random ?? systemRandom,
      log: options.log ?? silentLog,
      accelerator: (signal) => (chosen ??= chooseAccelerator({ folder: options.folder, clock, signal })),
      checkpoint: options.checkpoint ?? (() => {}),
      notify: (notice) => {
        if (this.#listeners.size === 0 && this.#untold.length < UNTOLD_LIMIT) this.#untold.push(notice);
        for (const listener of this.#listeners) listener(notice);
      },
    };
    this.#trimming = setInterval(() => {
      for (const machine of this.#machines.values()) {
        machine.trimConsole().catch((error: unknown) => {
          this.#deps.log.warn({ machine: machine.id, error }, "a console log could not be trimmed");
        });
      }
    }, TRIM_EVERY_MS).unref();
  }

  /** Resolves when all that was resumed at the start is: machines of an interrupted start boot meanwhile. */
  get resumed(): Promise<unknown> {
    return this.#resuming;
  }

  list(): readonly Machine[] {
    return Array.from(this.#machines.values());
  }

  /** Errors: `not_found`. */
  machine(id: string): Machine {
    const machine = this.#machines.get(id);
    if (machine === undefined) throw new OperationalError("not_found", `there is no machine ${id}`);
    return machine;
  }

  /** Captures and background copies of a machine's disks. Errors: `not_found`. */
  disksOf(id: string): DiskServices {
    const machine = this.machine(id);
    let services = this.#services.get(id);
    if (services === undefined) this.#services.set(id, (services = new DiskServices(machine)));
    return services;
  }

  /** The first listener is told too what there was to tell before it came. */
  onNotice(listener: (notice: HostNotice) => void): () => void {
    this.#listeners.add(listener);
    for (const notice of this.#untold.splice(0)) listener(notice);
    return () => this.#listeners.delete(listener);
  }

  /**
   * A machine that is off, with its disks. The same spec again: the machine that is there.
   * Errors: `input.invalid`, `state.conflict` when the id is another machine's, `machine.refused` when a disk cannot be made; those of
   * reading its record, when there is one that can't be read.
   */
  create(input: MachineSpecInput, signal?: AbortSignal): Promise<Machine> {
    return this.#create(decodeMachineSpec(input), null, signal);
  }

  /**
   * A machine that goes on from what `saveTemplate` kept, at each of its starts: see template.ts. Errors as for `create`, and
   * `not_found`.
   */
  async createFromTemplate(folder: string, changes: TemplateChanges, signal?: AbortSignal): Promise<Machine> {
    const spec = planFromTemplate(folder, await readTemplate(folder), changes);
    return this.#create(decodeMachineSpec(spec), folder, signal);
  }

  async #create(
    spec: MachineSpec,
    template: string | null,
    signal: AbortSignal | undefined,
  ): Promise<Machine> {
    const present = this.#machines.get(spec.id);
    if (present !== undefined) {
      if (canonicalJson(present.spec) === canonicalJson(spec)) return present;
      throw new OperationalError("state.conflict", `machine ${spec.id} exists and is another one`);
    }
    this.#refuseUnread(spec.id);
    const folder = this.#folderOf(spec.id);
    const record = { ...newRecord(spec, this.#deps.random.uuid()), template };
    const machine = new Machine(folder, record, this.#deps);
    this.#machines.set(spec.id, machine);
    try {
      await machine.exclusive(async () => {
        await makeFolder(folder);
        this.#deps.checkpoint("the folder is there");
        await writeRecord(folder, record);
        this.#deps.checkpoint("the record is there");
        await finishCreation(machine, signal);
      });
      return machine;
    } catch (error) {
      this.#machines.delete(spec.id);
      await removeMachineFolder(folder);
      throw error;
    }
  }

  /**
   * Off at once, and gone with its disks; images that belong to somebody else stay. Gone already: nothing. Errors: those of reading its
   * record, when there is one that can't be read.
   */
  async destroy(id: string): Promise<void> {
    this.#refuseUnread(id);
    const machine = this.#machines.get(id);
    if (machine === undefined) return;
    await machine.exclusive(() => machine.update({ phase: "destroying" }));
    await this.#finishDestruction(machine);
  }

  /** The agent ends; its guests run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#trimming);
    await Promise.all(this.list().map((machine) => machine.close()));
    await this.#resuming.catch(() => {});
    this.#lock[Symbol.dispose]();
  }

  async load(): Promise<void> {
    const found: Machine[] = [];
    for (const id of await readdir(join(this.folder, "machines"))) {
      const folder = this.#folderOf(id);
      try {
        const record = await readRecord(folder);
        if (record === null) await removeUnused(folder);
        else {
          const machine = new Machine(folder, record, this.#deps);
          this.#machines.set(id, machine);
          this.disksOf(id).resume();
          found.push(machine);
        }
      } catch (error) {
        if (!(error instanceof OperationalError)) throw error;
        this.#unread.set(id, error);
        this.#deps.log.error({ machine: id, error }, "a machine's folder is left as it is");
        const at = this.#deps.clock.now();
        this.#deps.notify({ code: "machine.not_resumed", machine: id, message: publicMessage(error), at });
      }
    }
    this.#resuming = Promise.all(found.map((machine) => this.#resume(machine)));
  }

  #refuseUnread(id: string): void {
    const why = this.#unread.get(id);
    if (why !== undefined) throw why;
  }

  async #resume(machine: Machine): Promise<void> {
    if (machine.record.phase === "destroying") return this.#finishDestruction(machine);
    if (machine.record.phase === "creating") {
      await machine.exclusive(() => finishCreation(machine, machine.closing)).catch(() => {});
    }
    await machine.resumeAfterRestart(machine.closing);
  }

  async #finishDestruction(machine: Machine): Promise<void> {
    await machine.stop(0);
    this.#deps.checkpoint("before removing the folder");
    await removeMachineFolder(machine.folder);
    await syncFolder(join(this.folder, "machines"));
    this.#machines.delete(machine.id);
    this.#services.delete(machine.id);
    await machine.close();
  }

  #folderOf(id: string): string {
    return join(this.folder, "machines", id);
  }
}

/** The record goes last: killed in between, the next agent knows whose the rest is, and that it was to go. */
async function removeMachineFolder(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (name !== machineFiles.record) await rm(join(folder, name), { recursive: true, force: true });
  }
  await syncFolder(folder);
  await rm(join(folder, machineFiles.record), { force: true });
  await rmdir(folder);
}

/** An agent that was killed before the first durable step leaves a folder with nothing in it, or a record that is not whole. */
async function removeUnused(folder: string): Promise<void> {
  const unfinished = `${machineFiles.record}.new`;
  const names = await readdir(folder);
  const others = names.filter((name) => name !== unfinished);
  if (others.length > 0) {
    throw new OperationalError(
      "store.failing",
      `${folder} has no ${machineFiles.record} but ${others.slice(0, 5).join(", ")}: bring the record back, or move the folder away`,
    );
  }
  await rm(join(folder, unfinished), { force: true });
  await rmdir(folder);
}

async function finishCreation(machine: Machine, signal: AbortSignal | undefined): Promise<void> {
  await ensureDisks(machine, machine.spec.disks, signal);
  await machine.update({ phase: "present" });
}

function newRecord(spec: MachineSpec, uuid: string): MachineRecord {
  return {
    format: 1,
    phase: "creating",
    uuid,
    spec,
    power: "off",
    process: null,
    consoleStart: 0,
    template: null,
    captures: {},
    copies: {},
  };
}
