/** What goes on for the disks of one machine for longer than a call: captures and background copies. */
import { resolve } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import { BackgroundCopy } from "./background-copy.ts";
import { Capture } from "./capture.ts";
import { ensureDisks, inspectDisk, qemuImg } from "./create-disk.ts";
import { snapshotDisks, type SnapshotRequest } from "./disk-snapshot.ts";
import { attachDisk, detachDisk, growDisk } from "./hot-disk.ts";
import type { Machine } from "./machine.ts";
import { decodeDiskSpec, type DiskSpec, type DiskSpecInput, type NbdLocation } from "./machine-spec.ts";

export interface CaptureOptions {
  /**
   * A writable export as large as the disk, which several connections may write to. Over TCP, on the loopback address if need be,
   * rather than over a Unix socket: a broken TCP connection frees whatever waits for it. On a Unix socket, QEMU (seen with 7.2)
   * does not notice the break while it waits for room to send, so that large writes of the guest (some 200 KiB in flight) are
   * held until the target reads again or dies.
   */
  readonly target: NbdLocation;
  /** Where full copies and resynchronisations are written, which are no writes of the guest's. Default: the target. */
  readonly resyncTarget?: NbdLocation;
  /** A guest's write waits no longer than this for the target. Milliseconds; default 1000, at least 200. */
  readonly stallLimitMs?: number;
}

const DEFAULT_STALL_LIMIT_MS = 1000;
const LEAST_STALL_LIMIT_MS = 200;

export class DiskServices {
  readonly #machine: Machine;
  readonly #captures = new Map<string, { readonly capture: Capture; readonly leave: () => void }>();
  readonly #copies = new Map<string, { readonly copy: BackgroundCopy; readonly leave: () => void }>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** What was asked of an agent before us. */
  resume(): void {
    for (const disk of Object.keys(this.#machine.record.captures)) this.#attendCapture(disk);
    for (const disk of Object.keys(this.#machine.record.copies)) this.#attendCopy(disk);
  }

  /** Goes on over restarts of machine and agent until it is stopped. The same target again: the capture that is there. */
  async startCapture(disk: string, options: CaptureOptions): Promise<Capture> {
    this.#specOf(disk);
    const present = this.#machine.record.captures[disk];
    const sameTarget = JSON.stringify(present?.target) === JSON.stringify(options.target);
    if (present !== undefined && sameTarget) return this.capture(disk);
    if (present !== undefined) await this.stopCapture(disk);
    await this.#machine.update(({ captures }) => ({
      captures: {
        ...captures,
        [disk]: {
          target: options.target,
          resyncTarget: options.resyncTarget ?? options.target,
          stallLimitMs: Math.max(LEAST_STALL_LIMIT_MS, options.stallLimitMs ?? DEFAULT_STALL_LIMIT_MS),
          bitmap: null,
          seeded: false,
        },
      },
    }));
    return this.#attendCapture(disk);
  }

  /** Errors: `not_found`. */
  capture(disk: string): Capture {
    const found = this.#captures.get(disk);
    if (found === undefined) throw new OperationalError("not_found", `disk ${disk} is not captured`);
    return found.capture;
  }

  async stopCapture(disk: string): Promise<void> {
    const found = this.#captures.get(disk);
    await this.#machine.update(({ captures }) => {
      const { [disk]: _, ...others } = captures;
      return { captures: others };
    });
    found?.leave();
    this.#captures.delete(disk);
    await found?.capture.remove();
  }

  /** Makes a live disk whole; 0: no limit. Complete already, or no live disk: the copy is complete at once. */
  async startBackgroundCopy(disk: string, { bytesPerSecond = 0 } = {}): Promise<BackgroundCopy> {
    this.#specOf(disk);
    const present = this.#copies.get(disk)?.copy;
    if (present !== undefined) {
      await present.limit(bytesPerSecond);
      return present;
    }
    await this.#machine.update(({ copies }) => ({ copies: { ...copies, [disk]: { bytesPerSecond } } }));
    return this.#attendCopy(disk);
  }

  /** Errors: `not_found`. */
  backgroundCopy(disk: string): BackgroundCopy {
    const found = this.#copies.get(disk);
    if (found === undefined) throw new OperationalError("not_found", `disk ${disk} is not being copied`);
    return found.copy;
  }

  /** What was copied stays, and a copy may be started again. Also for a disk that is not being copied. */
  async stopBackgroundCopy(disk: string): Promise<void> {
    const found = this.#copies.get(disk);
    await this.#machine.update(({ copies }) => {
      const { [disk]: _, ...others } = copies;
      return { copies: others };
    });
    found?.leave();
    this.#copies.delete(disk);
    await found?.copy.stop();
  }

  /** See `attachDisk`; a machine that is off has it at its next start. */
  async attach(disk: DiskSpecInput, signal?: AbortSignal): Promise<void> {
    if (this.#machine.isOn) return attachDisk(this.#machine, disk, signal);
    const spec = decodeDiskSpec(disk);
    const others = this.#machine.spec.disks.filter(({ id }) => id !== spec.id);
    await this.#setDisks(() => [...others, spec]);
  }

  /** See `detachDisk`; what goes on for the disk ends. */
  async detach(disk: string, signal?: AbortSignal): Promise<void> {
    if (this.#captures.has(disk)) await this.stopCapture(disk);
    if (this.#copies.has(disk)) await this.stopBackgroundCopy(disk);
    await detachDisk(this.#machine, disk, signal);
  }

  /** Larger only. Errors: `machine.refused` while it is captured. */
  async grow(disk: string, sizeBytes: number, signal?: AbortSignal): Promise<void> {
    this.#specOf(disk);
    if (this.#captures.has(disk)) {
      throw new OperationalError(
        "machine.refused",
        `disk ${disk} is captured: end that, grow it, and begin again`,
      );
    }
    if (this.#machine.isOn) await growDisk(this.#machine, disk, sizeBytes, signal);
    else await this.#growImage(disk, sizeBytes, signal);
    await this.#setDisks((disks) =>
      disks.map((one) =>
        one.id === disk && "sizeBytes" in one.content
          ? { ...one, content: { ...one.content, sizeBytes } }
          : one,
      ),
    );
  }

  /** See `snapshotDisks`. */
  snapshot(
    requests: readonly SnapshotRequest[],
    options: { readonly begun?: () => void; readonly signal?: AbortSignal } = {},
  ): Promise<void> {
    return snapshotDisks(this.#machine, requests, options);
  }

  async #growImage(disk: string, sizeBytes: number, signal?: AbortSignal): Promise<void> {
    const spec = this.#machine.spec.disks.find(({ id }) => id === disk);
    if (spec === undefined) return;
    await ensureDisks(this.#machine, [spec], signal);
    const { path, format } = await inspectDisk(this.#machine.folder, spec, signal);
    await qemuImg(
      ["resize", "-q", "-f", format, resolve(this.#machine.folder, path), String(sizeBytes)],
      signal,
    );
  }

  #setDisks(change: (disks: readonly DiskSpec[]) => DiskSpec[]): Promise<void> {
    return this.#machine.update(({ spec }) => ({ spec: { ...spec, disks: change(spec.disks) } }));
  }

  #attendCapture(disk: string): Capture {
    const capture = new Capture(this.#machine, disk);
    this.#captures.set(disk, { capture, leave: this.#machine.attend(capture) });
    return capture;
  }

  #attendCopy(disk: string): BackgroundCopy {
    const copy = new BackgroundCopy(this.#machine, disk);
    this.#copies.set(disk, { copy, leave: this.#machine.attend(copy) });
    return copy;
  }

  #specOf(disk: string): void {
    if (!this.#machine.spec.disks.some(({ id }) => id === disk)) {
      throw new OperationalError("not_found", `machine ${this.#machine.id} has no disk ${disk}`);
    }
  }
}
