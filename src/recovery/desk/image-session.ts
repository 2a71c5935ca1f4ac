/**
 * A connection that writes an image of a volume, a cloud's snapshot, into the log. It writes only while its fencing epoch is the group's and
 * the volume is being brought to an image: what the desk was told of that says what the content is, not the connection.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import type { CaptureTarget } from "#vault/write-log/capture-target.ts";
import type { LogVolume } from "#vault/write-log/log-event.ts";
import type { WriteOrder } from "./write-order.ts";

export interface ImageSessionOptions {
  readonly target: CaptureTarget;
  /** Of the volume, over all its sessions. */
  readonly order: WriteOrder;
  readonly volume: () => LogVolume;
  /** Throws `state.fenced` when writes of this session must not come in any more. */
  readonly admit: () => void;
}

/** What is the same already is found in pieces of so much: a block of a snapshot is larger than what a guest wrote. */
const compareBytes = 64 * 1024;

export class ImageSession implements BlockDevice {
  readonly #options: ImageSessionOptions;
  #underWay = 0;
  #idle: (() => void)[] = [];

  constructor(options: ImageSessionOptions) {
    this.#options = options;
  }

  get sizeBytes(): number {
    return this.#options.target.sizeBytes;
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    return this.#options.target.read(offset, length, signal);
  }

  extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    return this.#options.target.extents(offset, length, signal);
  }

  /** Keeps what is not there already. */
  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    await this.#take(offset, data.length, async (target) => {
      const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
      const present = await target.read(offset, bytes.length);
      let from = -1;
      for (let at = 0; at <= bytes.length; at += compareBytes) {
        const end = Math.min(at + compareBytes, bytes.length);
        const same = at >= bytes.length || bytes.compare(present, at, end, at, end) === 0;
        if (!same && from < 0) from = at;
        if (!same || from < 0) continue;
        await target.write(offset + from, bytes.subarray(from, Math.min(at, bytes.length)), options);
        from = -1;
      }
      if (from >= 0) await target.write(offset + from, bytes.subarray(from), options);
    });
  }

  zero(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.trim(offset, length, options);
  }

  async trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    await this.#take(offset, length, async (target) => {
      for (const extent of await target.extents(offset, length)) {
        if (extent.kind === "data") await target.trim(extent.offset, extent.length, options);
      }
    });
  }

  flush(): Promise<void> {
    return this.#options.target.flush();
  }

  /** Resolves when no write is under way. */
  async quiet(): Promise<void> {
    if (this.#underWay === 0) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #take(
    offset: number,
    length: number,
    write: (target: CaptureTarget) => Promise<void>,
  ): Promise<void> {
    const { target, order } = this.#options;
    this.#check();
    this.#underWay += 1;
    try {
      await order.run(offset, length, () => {
        this.#check();
        return write(target);
      });
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) for (const wake of this.#idle.splice(0)) wake();
    }
  }

  #check(): void {
    const { admit, volume } = this.#options;
    admit();
    const { id, state, image } = volume();
    if (state !== "synchronising" || image === undefined) {
      throw new OperationalError("state.conflict", `volume ${id} is not being brought to an image now`);
    }
  }
}
