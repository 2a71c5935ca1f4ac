/** What goes on for the disks of one machine for longer than a call: captures and background copies. */
import { resolve } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import { BackgroundCopy } from "./background-copy.ts";
import { Capture } from "./capture.ts";
import { ensureDisks, inspectDisk, qemuImg } from "./create-disk.ts";
import { snapshotDisks, type SnapshotRequest } from "./disk-snapshot.ts";
import { attachDisk, detachDisk, growDisk } from "./hot-disk.ts";
import type { CaptureRecord } from "./machine-record.ts";
import type { Machine } from "./machine.ts";
import { backingName, headerCredentials } from "./plan-nbd.ts";
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

/** Whether this is a capture to that target, and is to go on. */
export function capturesTo({ target, ending }: CaptureRecord, wanted: NbdLocation): boolean {
  return ending !== true && canonicalJson(target) === canonicalJson(wanted);
}

export class DiskServices {
  readonly #machine: Machine;
  readonly #captures = new Map<string, { readonly capture: Capture; readonly leave: () => void }>();
  #turns: Promise<unknown> = Promise.resolve();
  readonly #copies = new Map<string, { readonly copy: BackgroundCopy; readonly leave: () => void }>();

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** What was asked of an agent before us. */
  resume(): void {
    for (const disk of Object.keys(this.#machine.record.captures)) this.#attendCapture(disk);
    for (const disk of Object.keys(this.#machine.record.copies)) this.#attendCopy(disk);
  }

  /**
   * Goes on over restarts of machine and agent until it is stopped. The same target again: the capture that is there, with the limit and
   * the place for resynchronisations that are asked for now. Errors: `not_found`; those of `stopCapture`.
   */
  startCapture(disk: string, options: CaptureOptions): Promise<Capture> {
    this.#specOf(disk);
    const asked = {
      target: options.target,
      resyncTarget: options.resyncTarget ?? options.target,
      stallLimitMs: Math.max(LEAST_STALL_LIMIT_MS, options.stallLimitMs ?? DEFAULT_STALL_LIMIT_MS),
    };
    return this.#inTurn(async () => {
      const present = this.#machine.record.captures[disk];
      if (present !== undefined && capturesTo(present, asked.target)) {
        const same = canonicalJson({ ...present, ...asked }) === canonicalJson(present);
        // The bitmap is the capture's own to change meanwhile.
        if (!same) await this.#setCapture(disk, (now) => ({ ...(now ?? present), ...asked }));
        return this.capture(disk);
      }
      if (present !== undefined) await this.#stop(disk);
      await this.#setCapture(disk, () => ({ ...asked, bitmap: null, seeded: false }));
      return this.#attendCapture(disk);
    });
  }

  /** Errors: `not_found`. */
  capture(disk: string): Capture {
    const found = this.#captures.get(disk);
    if (found === undefined || this.#machine.record.captures[disk] === undefined)
      throw new OperationalError("not_found", `disk ${disk} is not captured`);
    return found.capture;
  }

  /**
   * QEMU mirrors no longer when it returns. Not captured: nothing. Errors: `machine.failing` when QEMU does not let go of it; then it
   * is on record that it is to end.
   */
  stopCapture(disk: string): Promise<void> {
    return this.#inTurn(() => this.#stop(disk));
  }

  async #stop(disk: string): Promise<void> {
    const present = this.#machine.record.captures[disk];
    const found = this.#captures.get(disk);
    // First: an agent that is killed between the job's end and the record's leaves nobody a mirror that nobody knows of.
    if (present !== undefined) await this.#setCapture(disk, (now) => ({ ...(now ?? present), ending: true }));
    const lost = (): boolean =>
      !this.#machine.isOn && this.#machine.state !== "off" && this.#machine.state !== "starting";
    // A monitor that has closed is as a rule that of a machine which is going off.
    if (lost() && this.#machine.state !== "unreachable") await this.#machine.settled();
    if (lost()) {
      throw new OperationalError(
        "machine.failing",
        `the monitor of machine ${this.#machine.id} does not answer: the capture of ${disk} ends when it does`,
      );
    }
    await found?.capture.remove();
    found?.leave();
    this.#captures.delete(disk);
    await this.#setCapture(disk, () => null);
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
    if (this.#machine.record.captures[disk] !== undefined) await this.stopCapture(disk);
    if (this.#copies.has(disk)) await this.stopBackgroundCopy(disk);
    await detachDisk(this.#machine, disk, signal);
  }

  /** Larger only. Errors: `machine.refused` while it is captured. */
  async grow(disk: string, sizeBytes: number, signal?: AbortSignal): Promise<void> {
    this.#specOf(disk);
    if (this.#machine.record.captures[disk] !== undefined) {
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
    const { path, format, source } = await inspectDisk(this.#machine.folder, spec, signal);
    const credentials =
      source === undefined || source.kind === "unix"
        ? []
        : headerCredentials(backingName(source), source.certificates);
    const image = resolve(this.#machine.folder, path);
    await qemuImg(["resize", ...credentials, "-q", "-f", format, image, String(sizeBytes)], signal);
  }

  #setDisks(change: (disks: readonly DiskSpec[]) => DiskSpec[]): Promise<void> {
    return this.#machine.update(({ spec }) => ({ spec: { ...spec, disks: change(spec.disks) } }));
  }

  async #setCapture(
    disk: string,
    change: (present: CaptureRecord | undefined) => CaptureRecord | null,
  ): Promise<void> {
    await this.#machine.update(({ captures: { [disk]: present, ...others } }) => {
      const next = change(present);
      return { captures: next === null ? others : { ...others, [disk]: next } };
    });
  }

  /** Of one disk no two captures begin or end at once. */
  #inTurn<Value>(work: () => Promise<Value>): Promise<Value> {
    const result = this.#turns.then(work);
    this.#turns = result.catch(() => {});
    return result;
  }

  #attendCapture(disk: string): Capture {
    // Of one that has ended by itself.
    this.#captures.get(disk)?.leave();
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
