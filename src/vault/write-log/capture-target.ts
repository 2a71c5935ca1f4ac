/**
 * A volume's disk as the capture writes it: what an NBD server exports to the hypervisor's mirror. A write that returned is durable in the
 * log: QEMU's mirror does not pass the guest's flushes on to its target (block/mirror.c, `bdrv_mirror_top_flush`), so a write that waited for
 * one would be no capture.
 */
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import { isJoining, type LogVolume, type SynchronisingReason } from "./log-event.ts";
import { maxRecordData } from "./segment-format.ts";
import type { Captured } from "./segment-appender.ts";
import type { WriteLog } from "./write-log.ts";

export interface CaptureStatus {
  readonly state: LogVolume["state"];
  /** Why the content is, or was last, synchronised. */
  readonly reason: SynchronisingReason;
  /** Bytes that this synchronisation, or the last one, moved. */
  readonly movedBytes: number;
  /** Writes, zeroes and trims captured since the target was opened, and their data. */
  readonly writes: number;
  readonly writtenBytes: number;
}

const zeroes = Buffer.alloc(1024 * 1024);

const isZero = (data: Uint8Array): boolean => {
  for (let at = 0; at < data.length; at += zeroes.length) {
    const part = data.subarray(at, at + zeroes.length);
    if (zeroes.compare(part, 0, part.length, 0, part.length) !== 0) return false;
  }
  return true;
};

export class CaptureTarget implements BlockDevice {
  readonly volumeId: string;
  readonly #log: WriteLog;
  #movedBytes = 0;
  #writes = 0;
  #writtenBytes = 0;

  /** The volume must have been added to the log. */
  constructor(log: WriteLog, volumeId: string) {
    this.#log = log;
    this.volumeId = volumeId;
  }

  get sizeBytes(): number {
    return this.#log.volume(this.volumeId).sizeBytes;
  }

  get status(): CaptureStatus {
    const { state, reason } = this.#log.volume(this.volumeId);
    return {
      state,
      reason,
      movedBytes: this.#movedBytes,
      writes: this.#writes,
      writtenBytes: this.#writtenBytes,
    };
  }

  /**
   * The capture begins anew, and what it missed is about to be copied: no moment is offered until `completeSynchronisation`. To be called
   * before the first write of every connection that is not known to have missed nothing. A first copy that was broken off stays one; an image
   * that was coming comes no more.
   */
  async beginSynchronisation(reason: SynchronisingReason): Promise<void> {
    this.#movedBytes = 0;
    const volume = this.#log.volume(this.volumeId);
    if (isJoining(volume) && volume.image === undefined) return;
    await this.#log.markSynchronising(this.volumeId, reason);
  }

  /** The content is the disk's again, with every write that was answered before this call. Moments are offered from here on. */
  async completeSynchronisation(): Promise<{ readonly sequence: number; readonly movedBytes: number }> {
    const movedBytes = this.#movedBytes;
    const sequence = await this.#log.markContinuous(this.volumeId, movedBytes);
    return { sequence, movedBytes };
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    return this.#log.read(this.volumeId, offset, length, signal);
  }

  extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    return this.#log.extentsOf(this.volumeId, offset, length, signal);
  }

  /** Errors: `store.full` (nothing of it is kept), `store.failing`, `disk.range`. */
  async write(offset: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    const { signal } = options;
    const copying = this.#isCopying();
    let last: Promise<void> | undefined;
    for (let at = 0; at < data.length; at += maxRecordData) {
      const part = data.subarray(at, at + maxRecordData);
      // A first copy brings much of nothing. In a guest's write it is not worth looking for.
      const captured =
        copying && isZero(part)
          ? await this.#log.trim(this.volumeId, offset + at, part.length, signal)
          : await this.#log.write(this.volumeId, offset + at, part, signal);
      last = captured.durable;
    }
    this.#count(data.length);
    await last;
  }

  async zero(
    offset: number,
    length: number,
    options: WriteOptions & { readonly keepSpace?: boolean } = {},
  ): Promise<void> {
    const { keepSpace = false, signal } = options;
    this.#count(0);
    await this.#clear(
      keepSpace
        ? this.#log.zero(this.volumeId, offset, length, signal)
        : this.#log.trim(this.volumeId, offset, length, signal),
    );
  }

  async trim(offset: number, length: number, options: WriteOptions = {}): Promise<void> {
    this.#count(0);
    await this.#clear(this.#log.trim(this.volumeId, offset, length, options.signal));
  }

  flush(): Promise<void> {
    return this.#log.flush();
  }

  /** The log is its owner's to close. */
  async [Symbol.asyncDispose](): Promise<void> {}

  #isCopying(): boolean {
    return this.#log.volume(this.volumeId).state === "synchronising";
  }

  #count(bytes: number): void {
    this.#writes += 1;
    this.#writtenBytes += bytes;
    if (this.#isCopying()) this.#movedBytes += bytes;
  }

  async #clear(taken: Promise<Captured>): Promise<void> {
    await (
      await taken
    ).durable;
  }
}
