/** The host agent: the machines below one folder. Guests outlive it; the next one adopts them. */
import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import { type Random, systemRandom } from "#kernel/random.ts";
import { chooseAccelerator } from "./accelerator.ts";
import { createDisk } from "./create-disk.ts";
import { makeFolder, syncFolder } from "./durable-file.ts";
import { DiskServices } from "./disk-services.ts";
import { lockFolder } from "./host-lock.ts";
import type { HostNotice } from "./host-notice.ts";
import { decodeMachineSpec, type MachineSpec, type MachineSpecInput } from "./machine-spec.ts";
import { Machine } from "./machine.ts";
import type { MachineDeps } from "./machine-view.ts";
import { type MachineRecord, readRecord, writeRecord } from "./machine-record.ts";
import { planFromTemplate, readTemplate, type TemplateChanges } from "./template.ts";
import type { Accelerator } from "./plan-command-line.ts";

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
        for (const listener of this.#listeners) listener(notice);
      },
    };
    this.#trimming = setInterval(() => {
      for (const machine of this.#machines.values()) void machine.trimConsole();
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

  onNotice(listener: (notice: HostNotice) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * A machine that is off, with its disks. The same spec again: the machine that is there.
   * Errors: `input.invalid`, `state.conflict` when the id is another machine's, `machine.refused` when a disk cannot be made.
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
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  /** Off at once, and gone with its disks; images that belong to somebody else stay. Gone already: nothing. */
  async destroy(id: string): Promise<void> {
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
      const record = await readRecord(folder);
      // Killed before the first durable step: nothing was promised.
      if (record === null) await rm(folder, { recursive: true, force: true });
      else {
        const machine = new Machine(folder, record, this.#deps);
        this.#machines.set(id, machine);
        this.disksOf(id).resume();
        found.push(machine);
      }
    }
    this.#resuming = Promise.all(found.map((machine) => this.#resume(machine)));
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
    await rm(machine.folder, { recursive: true, force: true });
    await syncFolder(join(this.folder, "machines"));
    this.#machines.delete(machine.id);
    this.#services.delete(machine.id);
    await machine.close();
  }

  #folderOf(id: string): string {
    return join(this.folder, "machines", id);
  }
}

async function finishCreation(machine: Machine, signal: AbortSignal | undefined): Promise<void> {
  for (const disk of machine.spec.disks) {
    await createDisk(machine.folder, disk, signal);
    machine.deps.checkpoint(`disk ${disk.id} is there`);
  }
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
