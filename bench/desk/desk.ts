/** The vault's desk, as the control plane has it: a process of its own, asked over its socket. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { NbdLocation } from "#hypervisor/machine-spec.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { GroupStatus, VaultDesk } from "#recovery/vault-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

const group = "bench";
const execute = promisify(execFile);
export const noLimit: AbortSignal = new AbortController().signal;

export interface Export {
  readonly uri: string;
  readonly location: NbdLocation;
}

export class Desk implements AsyncDisposable {
  readonly #folder: string;
  readonly #child: ChildProcess;
  readonly #desk: VaultDesk;

  private constructor(folder: string, child: ChildProcess) {
    this.#folder = folder;
    this.#child = child;
    this.#desk = connectDesk(join(folder, "desk"));
  }

  /** Its store gives so many MB/s in all (0: what the disk gives), each answer after so many milliseconds. */
  static async start(folder: string, megabytesPerSecond = 0, waitMs = 0): Promise<Desk> {
    const script = join(import.meta.dirname, "desk-process.ts");
    const child = spawn(process.execPath, [script, folder, String(megabytesPerSecond), String(waitMs)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(() => {
        throw new Error("the desk did not come up");
      }),
    ]);
    return new Desk(folder, child);
  }

  /** Where its writes go from now on. */
  async protect(volume: string, sizeBytes: number): Promise<Export> {
    const { uri } = await this.#desk.protect(group, { volume, sizeBytes, epoch: 1 }, noLimit);
    return exportAt(uri);
  }

  /** The host says that all of it is here: from now on there are moments of it. */
  async markWhole(volume: string): Promise<void> {
    const kept = (await this.#desk.volumes(group, noLimit)).find((one) => one.volume === volume);
    await this.#desk.markWhole(group, volume, kept?.session ?? 0, noLimit);
  }

  lastMoment(): Promise<DiskMoment> {
    return this.#desk.moment(group, null, noLimit);
  }

  status(): Promise<GroupStatus | undefined> {
    return this.#desk.status(group, noLimit);
  }

  /** Ends when points hold all of the disk. */
  async takeIn(volume: string, path: string, sizeBytes: number): Promise<DiskMoment> {
    const { uri } = await this.protect(volume, sizeBytes);
    await execute("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", path, uri]);
    await this.markWhole(volume);
    const moment = await this.lastMoment();
    for (;;) {
      if (((await this.status())?.foldedSequence ?? 0) >= moment.sequence) return moment;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async serve(volume: string, moment: DiskMoment): Promise<Export> {
    return exportAt((await this.#desk.serve(group, volume, moment, noLimit)).uri);
  }

  /** What is known of earlier starts, and of the files that rules name. */
  forget(): void {
    rmSync(join(this.#folder, "store", "reads"), { recursive: true, force: true });
  }

  /** Ends when the rules have said which of the disk's files come first. */
  async rank(volume: string, { at, sequence }: DiskMoment): Promise<void> {
    const facts = { journalPosition: 0, consistency: "crash" as const, site: "bench", resources: 0 };
    // Another one each time: one that is kept is not looked at again.
    const id = `point-${process.hrtime.bigint().toString(36)}`;
    const point = { id, at, sequence, ...facts, volumes: { [volume]: volume }, configuration: "" };
    await this.#desk.keepPoint(group, point, noLimit);
    const kept = join(this.#folder, "store", "reads", group, volume);
    const isRanked = (): boolean =>
      existsSync(kept) && readdirSync(kept).some((name) => name.startsWith("files-"));
    while (!isRanked()) await new Promise((resolve) => setTimeout(resolve, 50));
  }

  /** The most that it ever had resident (proc_pid_status(5)). */
  mostResidentMiB(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "utf8");
    return Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#desk[Symbol.asyncDispose]();
    if (this.#child.exitCode !== null) return;
    this.#child.kill("SIGTERM");
    await once(this.#child, "exit");
  }
}

function exportAt(uri: string): Export {
  const { address, exportName } = parseNbdUri(uri);
  if (address.kind !== "unix") throw new Error(`${uri} is not on a Unix socket`);
  return { uri, location: { kind: "unix", path: address.path, export: exportName } };
}
