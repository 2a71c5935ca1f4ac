/**
 * Servers as real guests under QEMU, and volumes as real disks. The wishes say what there is to be; one pass at a time brings
 * machines, disks, forwards and files to that, and finishes after any kill what was begun. Guests outlive this process when it
 * is killed, and the next one over the same data takes them over.
 */
import { execFile } from "node:child_process";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { decodeMachineSpec, type DiskSpecInput, type MachineSpecInput } from "#hypervisor/machine-spec.ts";
import type { Machine } from "#hypervisor/machine.ts";
import { attachedDisks, growDisk } from "#hypervisor/hot-disk.ts";
import { type HypervisorHost, openHost } from "#hypervisor/open-host.ts";
import type { Accelerator } from "#hypervisor/plan-command-line.ts";
import { QEMU } from "#hypervisor/qemu-process.ts";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { bearsGuests, hasFreeMemory, type HostLimits } from "./host-capacity.ts";
import { consoleTail, tell } from "./console-lines.ts";
import { GuestDisks } from "./guest-disks.ts";
import { type DiskLedger, openDiskLedger } from "./disk-ledger.ts";
import { applyForwards, planForwards } from "./forwards.ts";
import type { GuestPlan } from "./guest-plan.ts";
import type { GuestStart, GuestWishes, VolumeWish } from "./guest-wishes.ts";
import { MemoryStates, type PreparedGuest } from "./memory-states.ts";
import { diskIdOf, GIB, VolumeFiles } from "./volume-files.ts";

const STOP_GRACE_MS = 5000;
/** No machine that does not answer holds up the others for longer. */
const STEP_LIMIT_MS = 30_000;
/** After a pass in which something failed. */
const RETRY_MS = 1000;

export interface GuestKeeperOptions {
  /** Machines are below `host`, disks below `volumes`. */
  readonly dataDir: string;
  readonly wishes: GuestWishes;
  /** Stands before its own lines on consoles. */
  readonly speaker: string;
  readonly clock: Clock;
  readonly log: Log;
  /** Between asking a guest to turn itself off and ending it, in milliseconds. */
  readonly stopGraceMs?: number;
  /** Default: what a timed probe boot says. */
  readonly accelerator?: Accelerator;
  readonly limits: HostLimits;
  /** See `DiskHostParts`. */
  readonly certificates?: string | undefined;
}

/** Errors: `machine.refused` where QEMU is missing, `state.conflict`, `store.*`. */
export async function openGuestKeeper(options: GuestKeeperOptions): Promise<GuestKeeper> {
  await checkProgram(QEMU, "qemu-system-x86");
  await checkProgram("qemu-img", "qemu-utils");
  const host = await openHost({
    folder: join(options.dataDir, "host"),
    clock: options.clock,
    log: options.log,
    ...(options.accelerator !== undefined && { accelerator: options.accelerator }),
  });
  try {
    return new GuestKeeper(options, host, await openDiskLedger(join(options.dataDir, "disks.json")));
  } catch (error) {
    await host[Symbol.asyncDispose]();
    throw error;
  }
}

/** `exited`: it was started, and nothing of it runs any more. */
export type GuestStatus = "running" | "exited" | "absent";

export class GuestKeeper implements AsyncDisposable {
  readonly #options: GuestKeeperOptions;
  readonly #wishes: GuestWishes;
  readonly #host: HypervisorHost;
  readonly #files: VolumeFiles;
  readonly #states: MemoryStates;
  /** What the cloud's own API does not offer for volumes' content. */
  readonly disks: GuestDisks;
  /** Servers whose machine this process has started or taken over. */
  readonly #started = new Set<string>();
  /** Between the choice of a machine's disks and the end of its boot: passes leave it alone. Aborted: the boot is given up. */
  readonly #starting = new Map<string, AbortController>();
  /** Machines that are going: passes leave them alone too. */
  readonly #forgetting = new Map<string, Promise<void>>();
  readonly #closing = new AbortController();
  /** What the console was told of traffic that does not arrive. */
  readonly #remarks = new Map<string, string>();
  readonly #resumed: Promise<void>;
  #turns: Promise<unknown> = Promise.resolve();
  #passQueued = false;

  constructor(options: GuestKeeperOptions, host: HypervisorHost, ledger: DiskLedger) {
    this.#options = options;
    this.#wishes = options.wishes;
    this.#host = host;
    this.#files = new VolumeFiles(join(options.dataDir, "volumes"), options.certificates);
    const states = { folder: join(options.dataDir, "states"), host, random: systemRandom };
    this.#states = new MemoryStates({ ...states, clock: options.clock, log: options.log }, this.#signal);
    this.disks = new GuestDisks({
      wishes: options.wishes,
      host,
      files: this.#files,
      ledger,
      clock: options.clock,
      log: options.log,
      turn: (work) => this.#turn(work),
      reconcile: () => this.reconcile(),
      certificates: options.certificates,
      isStarting: (id) => this.#starting.has(id),
    });
    this.#resumed = host.resumed.then(
      () => {
        this.disks.thawLeft();
        this.reconcile();
      },
      (error: unknown) => {
        options.log.error(
          { error: publicMessage(error) },
          "machines of an earlier time could not be resumed",
        );
      },
    );
    options.wishes.onChange(() => this.reconcile());
    host.onNotice(({ code, machine }) => {
      if (this.#signal.aborted) return;
      if (code === "machine.turned_off") options.wishes.ended(machine, "turned_off");
      if (code === "machine.died") options.wishes.ended(machine, "died");
    });
  }

  /**
   * Ready when it returns. `plan` makes the machine's spec, given its disks. Errors: `machine.refused`, `machine.failing`, and
   * then nothing of it runs.
   */
  async start(server: GuestStart, plan: (disks: readonly DiskSpecInput[]) => GuestPlan): Promise<void> {
    await this.#resumed;
    const given = new AbortController();
    const signal = AbortSignal.any([given.signal, this.#signal]);
    this.#starting.set(server.id, given);
    try {
      const present = this.#machineOf(server.id);
      if (present?.isOn === true && (await this.#bootOf(server.id)) === server.boot) {
        this.#started.add(server.id);
        return;
      }
      await present?.stop(this.#graceMs);
      await this.#states.boot(await this.#turn(() => this.#prepare(server, plan)), signal);
      this.#started.add(server.id);
    } catch (error) {
      await this.#machineOf(server.id)?.stop(0);
      throw error;
    } finally {
      this.#starting.delete(server.id);
      this.reconcile();
    }
  }

  /** A start that is under way fails so; none: nothing. */
  abandon(id: string, reason: OperationalError): void {
    this.#starting.get(id)?.abort(reason);
  }

  async stop(id: string): Promise<void> {
    await this.#resumed;
    this.#started.delete(id);
    await this.#machineOf(id)?.stop(this.#graceMs);
  }

  status(id: string): GuestStatus {
    switch (this.#machineOf(id)?.state) {
      case "running":
      case "paused":
      case "waiting":
      case "starting":
        return "running";
      case "off":
      case "unreachable":
      case undefined:
        return this.#started.has(id) ? "exited" : "absent";
    }
  }

  /** Whether the server's machine has the volume as a disk, or gets it at its next boot. */
  has(id: string, volumeId: string): boolean {
    const machine = this.#machineOf(id);
    if (machine?.isOn !== true) return false;
    return machine.spec.disks.some((disk) => disk.id === diskIdOf(volumeId));
  }

  /** Brings everything to the wishes as they are now, as far as it can be done. */
  settled(): Promise<void> {
    return this.#turn(async () => void (await this.#pass()));
  }

  console(id: string): Buffer {
    const machine = this.#machineOf(id);
    return machine === undefined ? Buffer.alloc(0) : consoleTail(machine);
  }

  /** The server is gone: its machine goes, also in the middle of its start. Volumes stay. */
  async forget(id: string): Promise<void> {
    this.abandon(id, new OperationalError("aborted", `server ${id} is gone`));
    this.#started.delete(id);
    this.#remarks.delete(id);
    const present = this.#forgetting.get(id);
    if (present !== undefined) return present;
    const forgotten = this.#host
      .destroy(id)
      .then(() => rm(this.#folderOf(id), { recursive: true, force: true }))
      .finally(() => this.#forgetting.delete(id));
    this.#forgetting.set(id, forgotten);
    return forgotten;
  }

  /** Guests run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new OperationalError("aborted", "the keeper of guests closes"));
    await this.#turns;
    await this.disks[Symbol.asyncDispose]();
    await this.#host[Symbol.asyncDispose]();
  }

  /** Soon, once for all that asked meanwhile. */
  reconcile(): void {
    if (this.#passQueued || this.#signal.aborted) return;
    this.#passQueued = true;
    void this.#turn(async () => {
      this.#passQueued = false;
      if (this.#signal.aborted || (await this.#pass())) return;
      this.#options.clock.sleep(RETRY_MS, this.#signal).then(
        () => this.reconcile(),
        () => {},
      );
    });
  }

  get #signal(): AbortSignal {
    return this.#closing.signal;
  }

  get #graceMs(): number {
    return this.#options.stopGraceMs ?? STOP_GRACE_MS;
  }

  /** One at a time: who has which disk is decided here. */
  #turn<Value>(work: () => Promise<Value>): Promise<Value> {
    const result = this.#turns.then(work);
    this.#turns = result.catch(() => {});
    return result;
  }

  #isBusy(id: string): boolean {
    return this.#starting.has(id) || this.#forgetting.has(id);
  }

  #machineOf(id: string): Machine | undefined {
    return this.#host.list().find((machine) => machine.id === id);
  }

  #folderOf(id: string): string {
    return join(this.#options.dataDir, "servers", id);
  }

  async #bootOf(id: string): Promise<number | null> {
    const text = await readFileIfAny(join(this.#folderOf(id), "boot"));
    return text === null ? null : Number(text);
  }

  /** The machine as it is to be for this boot; it is off. */
  async #prepare(
    server: GuestStart,
    plan: (disks: readonly DiskSpecInput[]) => GuestPlan,
  ): Promise<PreparedGuest> {
    const volumes = this.#volumesOf(server.id);
    const held = volumes.find(({ id }) => this.disks.isExported(id));
    if (held !== undefined) {
      throw new OperationalError(
        "machine.refused",
        `volume ${held.id} is being written to from outside: end its export, then start the server again`,
      );
    }
    const disks: DiskSpecInput[] = [];
    for (const volume of volumes) {
      if (!(await this.#isFree(volume, server.id, this.#signal))) continue;
      await this.#fileOf(volume, this.#signal);
      disks.push(this.disks.diskOf(volume));
    }
    const { spec, remarks, keepsNothing } = plan(disks);
    this.#refuseBeyondLimits(server.id, spec.memoryMiB);
    const kind = keepsNothing ? await this.#states.kindOf(spec) : null;
    const { machine, goesOn } = await this.#machineFor(spec, kind);
    await mkdir(this.#folderOf(server.id), { recursive: true, mode: 0o700 });
    await replaceFile(join(this.#folderOf(server.id), "boot"), String(server.boot));
    this.#remarks.delete(server.id);
    const first = `boot of ${server.id} at ${server.address}`;
    const how = goesOn ? ["it goes on from a memory state, instead of booting"] : [];
    for (const remark of [first, ...remarks, ...how]) tell(machine, this.#options.speaker, remark);
    return { machine, spec, kind, goesOn };
  }

  /** As it is to be; off. */
  async #machineFor(
    spec: MachineSpecInput,
    kind: string | null,
  ): Promise<{ readonly machine: Machine; readonly goesOn: boolean }> {
    const present = this.#machineOf(spec.id);
    if (present !== undefined && kind === null && present.record.template === null) {
      const kept = new Set(spec.disks?.map(({ id }) => id));
      for (const { id } of present.spec.disks) if (!kept.has(id)) await this.disks.release(present, id);
      await present.exclusive(() => present.update({ spec: decodeMachineSpec(spec) }));
      return { machine: present, goesOn: false };
    }
    // It keeps nothing, or did not: it is made anew.
    if (present !== undefined) await this.#host.destroy(spec.id);
    const machine = kind === null ? undefined : await this.#states.create(kind, spec, this.#signal);
    if (machine !== undefined) return { machine, goesOn: true };
    return { machine: await this.#host.create(spec, this.#signal), goesOn: false };
  }

  #refuseBeyondLimits(serverId: string, memoryMiB: number): void {
    const others = this.#host
      .list()
      .filter(({ id, isOn }) => id !== serverId && (isOn || this.#starting.has(id)))
      .map(({ spec }) => spec.memoryMiB);
    if (bearsGuests(this.#options.limits, [...others, memoryMiB]) && hasFreeMemory(memoryMiB)) return;
    throw new OperationalError(
      "machine.refused",
      "No valid host was found. There are not enough hosts available.",
      {
        detail: `${others.length} guests run here: one more of ${memoryMiB} MiB is more than this host bears`,
      },
    );
  }

  #volumesOf(serverId: string): readonly VolumeWish[] {
    return this.#wishes.volumesOf(serverId);
  }

  /** Taken from the machine that had it before, where that lets it go; else a later pass brings it. */
  async #isFree({ id }: VolumeWish, serverId: string, signal: AbortSignal): Promise<boolean> {
    const disk = diskIdOf(id);
    for (const machine of this.#host.list()) {
      if (machine.id === serverId || !machine.isOn) continue;
      if (!machine.spec.disks.some((each) => each.id === disk)) continue;
      if (this.#starting.has(machine.id)) return false;
      try {
        await this.#host.disksOf(machine.id).detach(disk, signal);
      } catch (error) {
        this.#options.log.warn(
          { volume: id, error: publicMessage(error) },
          "a volume is still in use elsewhere",
        );
        return false;
      }
    }
    return true;
  }

  /** False: something is still to be done. */
  async #pass(): Promise<boolean> {
    const machines = this.#host.list();
    const volumes = Array.from(this.#wishes.volumes());
    const steps = [
      // What has to go comes first: it may be wanted elsewhere.
      ...machines.map((machine) => (signal: AbortSignal) => this.#takeBack(machine, signal)),
      ...volumes.map((volume) => (signal: AbortSignal) => this.#fileOf(volume, signal)),
      ...machines.map((machine) => (signal: AbortSignal) => this.#settle(machine, signal)),
      () => this.#removeFiles(),
    ];
    let whole = true;
    for (const step of steps) {
      if (this.#signal.aborted) return true;
      const limit = deadlineAfter(this.#options.clock, STEP_LIMIT_MS);
      try {
        await step(AbortSignal.any([limit.signal, this.#signal]));
      } catch (error) {
        if (this.#signal.aborted) return true;
        whole = false;
        this.#options.log.warn({ error: publicMessage(error) }, "a guest is not as the records say yet");
      } finally {
        limit.cancel();
      }
    }
    return whole;
  }

  async #fileOf(volume: VolumeWish, signal: AbortSignal): Promise<void> {
    const wanted = volume.sizeGiB * GIB;
    const size = await this.disks.ensureFile(volume, signal);
    if (size >= wanted || this.disks.isExported(volume.id)) return;
    const disk = diskIdOf(volume.id);
    const holder = this.#host
      .list()
      .find((machine) => machine.state !== "off" && machine.spec.disks.some(({ id }) => id === disk));
    if (holder === undefined) return this.#files.grow(volume.id, wanted, signal);
    if (!holder.isOn) return;
    // The target of a capture is as large as the disk was: what is captured afterwards begins anew.
    await this.disks.release(holder, disk);
    await growDisk(holder, disk, wanted, signal);
    this.#files.grew(volume.id, wanted);
  }

  /** Machines without a server, and disks that are a machine's no longer. */
  async #takeBack(machine: Machine, signal: AbortSignal): Promise<void> {
    if (this.#starting.has(machine.id)) return;
    if (this.#wishes.isGone(machine.id)) {
      // Not before it is certain: a record that comes back after a crash finds its machine.
      await this.#wishes.durable();
      if (this.#wishes.isGone(machine.id)) await this.forget(machine.id);
      return;
    }
    if (!machine.isOn || this.#isBusy(machine.id)) return;
    const wanted = new Set(this.#volumesOf(machine.id).map(({ id }) => diskIdOf(id)));
    for (const { id } of machine.spec.disks)
      if (!wanted.has(id)) await this.#host.disksOf(machine.id).detach(id, signal);
  }

  async #settle(machine: Machine, signal: AbortSignal): Promise<void> {
    const inlets = this.#wishes.inletsOf(machine.id);
    if (inlets === undefined || this.#isBusy(machine.id) || !machine.isOn) return;
    const volumes = this.#volumesOf(machine.id).filter(({ id }) => !this.disks.isExported(id));
    const attached = await attachedDisks(machine, signal);
    for (const volume of volumes) {
      if (attached.has(diskIdOf(volume.id)) || !(await this.#isFree(volume, machine.id, signal))) continue;
      // It may have come on record after this pass began.
      await this.#fileOf(volume, signal);
      await this.#host.disksOf(machine.id).attach(this.disks.diskOf(volume), signal);
    }
    const has = new Set(machine.spec.disks.map(({ id }) => id));
    await this.disks.follow(
      machine,
      volumes.filter(({ id }) => has.has(diskIdOf(id))),
      signal,
    );
    const { ports, remarks } = planForwards(inlets.rules);
    const failed = await applyForwards(machine, inlets.addresses, ports, signal);
    const said = [...remarks, ...failed];
    if (this.#remarks.get(machine.id) === said.join("\n")) return;
    this.#remarks.set(machine.id, said.join("\n"));
    for (const remark of said) tell(machine, this.#options.speaker, remark);
    for (const remark of failed) this.#options.log.warn({ server: machine.id }, remark);
  }

  async #removeFiles(): Promise<void> {
    const isOrphan = (id: string): boolean => this.#wishes.volume(id) === undefined;
    const orphans = (await this.#files.list()).filter(isOrphan);
    if (orphans.length === 0) return;
    // Not before it is certain: a record that comes back after a crash finds its file.
    await this.#wishes.durable();
    for (const id of orphans) if (isOrphan(id)) await this.disks.forget(id);
  }
}

async function checkProgram(name: string, aptPackage: string): Promise<void> {
  try {
    await promisify(execFile)(name, ["--version"]);
  } catch (error) {
    throw new OperationalError(
      "machine.refused",
      `${name} is missing, which real guests need: apt-get install ${aptPackage}`,
      { cause: error },
    );
  }
}
