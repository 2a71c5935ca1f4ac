/**
 * Servers as real guests under QEMU, and volumes as real disks. The cloud's records say what there is to be; one pass at a time
 * brings machines, disks, forwards and files to that, and finishes after any kill what was begun. Guests outlive devcloud when
 * it is killed, and the next one over the same data takes them over.
 */
import { execFile } from "node:child_process";
import { appendFileSync, closeSync, fstatSync, openSync, readSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute, ComputeStatus, ServerLaunch } from "#devcloud/core/compute.ts";
import type { VolumeRecord } from "#devcloud/core/records.ts";
import { readIfThere, writeDurably } from "#hypervisor/durable-file.ts";
import { type GuestImage, guestImageFolder, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import { decodeMachineSpec, type DiskSpecInput } from "#hypervisor/machine-spec.ts";
import type { Machine } from "#hypervisor/machine.ts";
import { type HypervisorHost, openHost } from "#hypervisor/open-host.ts";
import { type Accelerator, machineFiles } from "#hypervisor/plan-command-line.ts";
import { QEMU } from "#hypervisor/qemu-process.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { applyForwards, planForwards } from "./qemu-forwards.ts";
import { planGuest } from "./qemu-guest-spec.ts";
import { diskIdOf, GIB, VolumeFiles } from "./qemu-volumes.ts";

const CONSOLE_BYTES = 64 * 1024;
const STOP_GRACE_MS = 5000;
/** After a pass in which something failed. */
const RETRY_MS = 1000;

export interface QemuComputeOptions {
  /** Machines are below `host`, disks below `volumes`. */
  readonly dataDir: string;
  readonly cloud: Cloud;
  readonly clock: Clock;
  readonly log: Log;
  /** Between asking a guest to turn itself off and ending it, in milliseconds. */
  readonly stopGraceMs?: number;
  /** Default: what a timed probe boot says. */
  readonly accelerator?: Accelerator;
}

/** Errors: `config.missing` where the guest image is missing, `machine.refused` where QEMU is, `state.conflict`, `store.*`. */
export async function openQemuCompute(options: QemuComputeOptions): Promise<QemuCompute> {
  const image = await readGuestImage();
  if (image === null) {
    throw new OperationalError(
      "config.missing",
      `real guests need the guest image, and ${guestImageFolder()} has none: run script/guest-image`,
    );
  }
  await checkProgram(QEMU, "qemu-system-x86");
  await checkProgram("qemu-img", "qemu-utils");
  const host = await openHost({
    folder: join(options.dataDir, "host"),
    clock: options.clock,
    log: options.log,
    ...(options.accelerator !== undefined && { accelerator: options.accelerator }),
  });
  return new QemuCompute(options, image, host);
}

export class QemuCompute implements Compute {
  readonly reachable = true;
  readonly #options: QemuComputeOptions;
  readonly #cloud: Cloud;
  readonly #image: GuestImage;
  readonly #host: HypervisorHost;
  readonly #files: VolumeFiles;
  /** Servers whose machine this process has started or taken over. */
  readonly #started = new Set<string>();
  /** Between the choice of a machine's disks and the end of its boot: passes leave it alone. */
  readonly #starting = new Set<string>();
  readonly #closing = new AbortController();
  /** What the console was told of traffic that does not arrive. */
  readonly #remarks = new Map<string, string>();
  #turns: Promise<unknown> = Promise.resolve();
  #passQueued = false;

  constructor(options: QemuComputeOptions, image: GuestImage, host: HypervisorHost) {
    this.#options = options;
    this.#cloud = options.cloud;
    this.#image = image;
    this.#host = host;
    this.#files = new VolumeFiles(join(options.dataDir, "volumes"));
    const concerns = new Set(["server", "volume", "port", "rule", "group"]);
    options.cloud.data.onDurable((changes) => {
      if (changes.some(({ table }) => concerns.has(table))) this.reconcile();
    });
    void host.resumed.then(() => this.reconcile());
  }

  async start(server: ServerLaunch): Promise<void> {
    await this.#host.resumed;
    this.#starting.add(server.id);
    try {
      const present = this.#machineOf(server.id);
      if (present?.isOn === true && (await this.#bootOf(server.id)) === server.boot) {
        this.#started.add(server.id);
        return;
      }
      await present?.stop(this.#graceMs);
      const machine = await this.#turn(() => this.#prepare(server));
      await machine.start(this.#closing.signal);
      this.#started.add(server.id);
    } catch (error) {
      await this.#machineOf(server.id)?.stop(0);
      throw error;
    } finally {
      this.#starting.delete(server.id);
      this.reconcile();
    }
  }

  async stop(id: string): Promise<void> {
    await this.#host.resumed;
    this.#started.delete(id);
    await this.#machineOf(id)?.stop(this.#graceMs);
  }

  status(id: string): ComputeStatus {
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

  console(id: string): Buffer {
    const machine = this.#machineOf(id);
    return machine === undefined ? Buffer.alloc(0) : tailOf(consoleOf(machine), CONSOLE_BYTES);
  }

  async forget(id: string): Promise<void> {
    this.#started.delete(id);
    this.#remarks.delete(id);
    await this.#host.destroy(id);
    await rm(this.#folderOf(id), { recursive: true, force: true });
  }

  /** Everything is taken from the records, in a pass. */
  refresh(): void {}

  async close(): Promise<void> {
    this.#closing.abort(new OperationalError("aborted", "devcloud closes"));
    await this.#turns;
    await this.#host[Symbol.asyncDispose]();
  }

  /** Soon, once for all that asked meanwhile. */
  reconcile(): void {
    if (this.#passQueued || this.#closing.signal.aborted) return;
    this.#passQueued = true;
    void this.#turn(async () => {
      this.#passQueued = false;
      if (this.#closing.signal.aborted || (await this.#pass())) return;
      this.#options.clock.sleep(RETRY_MS, this.#closing.signal).then(
        () => this.reconcile(),
        () => {},
      );
    });
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

  #machineOf(id: string): Machine | undefined {
    return this.#host.list().find((machine) => machine.id === id);
  }

  #folderOf(id: string): string {
    return join(this.#options.dataDir, "servers", id);
  }

  async #bootOf(id: string): Promise<number | null> {
    const bytes = await readIfThere(join(this.#folderOf(id), "boot"));
    return bytes === null ? null : Number(bytes.toString());
  }

  /** The machine as it is to be for this boot; it is off. */
  async #prepare(server: ServerLaunch): Promise<Machine> {
    const disks: DiskSpecInput[] = [];
    for (const volume of this.#volumesOf(server.id)) {
      await this.#files.ensure(volume.id, volume.sizeGiB * GIB, this.#closing.signal);
      disks.push(this.#diskOf(volume));
    }
    const { spec, remarks } = planGuest(server, this.#image, disks);
    let machine = this.#machineOf(server.id);
    if (machine === undefined) machine = await this.#host.create(spec, this.#closing.signal);
    else {
      const held = machine;
      await held.exclusive(() => held.update({ spec: decodeMachineSpec(spec) }));
    }
    await mkdir(this.#folderOf(server.id), { recursive: true, mode: 0o700 });
    await writeDurably(join(this.#folderOf(server.id), "boot"), String(server.boot));
    this.#remarks.delete(server.id);
    for (const remark of [`boot of ${server.id} at ${server.address}`, ...remarks]) tell(machine, remark);
    return machine;
  }

  #volumesOf(serverId: string): readonly VolumeRecord[] {
    return this.#cloud.data.tables.volume.by("server", serverId);
  }

  #diskOf(volume: VolumeRecord): DiskSpecInput {
    return {
      id: diskIdOf(volume.id),
      content: { kind: "existing", path: this.#files.path(volume.id), format: "qcow2" },
    };
  }

  /** False: something is still to be done. */
  async #pass(): Promise<boolean> {
    const steps = [
      ...Array.from(this.#cloud.data.tables.volume.values(), (volume) => () => this.#fileOf(volume)),
      ...this.#host.list().map((machine) => () => this.#settle(machine)),
    ];
    let whole = true;
    for (const step of steps) {
      if (this.#closing.signal.aborted) return true;
      try {
        await step();
      } catch (error) {
        if (this.#closing.signal.aborted) return true;
        whole = false;
        this.#options.log.warn({ error: publicMessage(error) }, "a guest is not as the records say yet");
      }
    }
    return whole;
  }

  async #fileOf(volume: VolumeRecord): Promise<void> {
    await this.#files.ensure(volume.id, volume.sizeGiB * GIB, this.#closing.signal);
  }

  async #settle(machine: Machine): Promise<void> {
    if (this.#starting.has(machine.id)) return;
    const server = this.#cloud.data.tables.server.get(machine.id);
    if (server === undefined || server.state === "terminated") {
      await this.#cloud.data.durable();
      if (this.#cloud.data.tables.server.get(machine.id)?.state === server?.state) {
        await this.forget(machine.id);
      }
      return;
    }
    if (!machine.isOn) return;
    const { ports, remarks } = planForwards(this.#cloud, server);
    const failed = await applyForwards(machine, server.hostAddress, ports, this.#closing.signal);
    const said = [...remarks, ...failed];
    if (this.#remarks.get(machine.id) === said.join("\n")) return;
    this.#remarks.set(machine.id, said.join("\n"));
    for (const remark of said) tell(machine, remark);
  }
}

function consoleOf(machine: Machine): string {
  return join(machine.folder, machineFiles.consoleLog);
}

/** A line of the cloud's own among what the guest prints: QEMU appends to the same file. */
function tell(machine: Machine, text: string): void {
  appendFileSync(consoleOf(machine), `[devcloud] ${text}\n`, { mode: 0o600 });
}

function tailOf(path: string, bytes: number): Buffer {
  let file: number;
  try {
    file = openSync(path, "r");
  } catch {
    // It has not printed anything yet.
    return Buffer.alloc(0);
  }
  try {
    const { size } = fstatSync(file);
    const buffer = Buffer.alloc(Math.min(size, bytes));
    return buffer.subarray(0, readSync(file, buffer, 0, buffer.length, size - buffer.length));
  } finally {
    closeSync(file);
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
