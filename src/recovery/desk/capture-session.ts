/**
 * One connection of a host that mirrors a volume into the log. It writes only while its fencing epoch is the group's; its first
 * write begins a synchronisation, since nobody can say what was missed before it.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import type { CaptureTarget } from "#vault/write-log/capture-target.ts";
import type { WriteOrder } from "./write-order.ts";

export interface CaptureSessionOptions {
  readonly target: CaptureTarget;
  /** Of the volume, over all its sessions. */
  readonly order: WriteOrder;
  /** Throws `state.fenced` when writes of this session must not come in any more. */
  readonly admit: () => void;
  /** Whether a whole copy was ever complete: tells the reason of the synchronisation. */
  readonly wasWhole: () => boolean;
}

interface Taking {
  /** Whether the log has it already. */
  readonly known: (target: CaptureTarget) => Promise<boolean>;
  readonly write: (target: CaptureTarget) => Promise<void>;
}

export class CaptureSession implements BlockDevice {
  readonly #options: CaptureSessionOptions;
  /** Resolves when the synchronisation is recorded: no write comes before it. */
  #begun: Promise<void> | undefined;
  #underWay = 0;
  #idle: (() => void)[] = [];

  constructor(options: CaptureSessionOptions) {
    this.#options = options;
  }

  get sizeBytes(): number {
    return this.#options.target.sizeBytes;
  }

  /** The host's copy is whole: what comes from now on are a guest's own writes, the first one too. */
  confirm(): void {
    this.#begun ??= Promise.resolve();
  }

  read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer> {
    return this.#options.target.read(offset, length, signal);
  }

  extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]> {
    return this.#options.target.extents(offset, length, signal);
  }

  async write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    await this.#take(offset, data.length, {
      known: (target) => this.#isKnown(target, offset, data),
      write: (target) => target.write(offset, data, options),
    });
  }

  zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    return this.#take(offset, length, {
      known: (target) => this.#isEmpty(target, offset, length),
      write: (target) => target.zero(offset, length, options),
    });
  }

  trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.#take(offset, length, {
      known: (target) => this.#isEmpty(target, offset, length),
      write: (target) => target.trim(offset, length, options),
    });
  }

  flush(): Promise<void> {
    return this.#options.target.flush();
  }

  /** Resolves when no write is under way: after a fence, what came in before it is in the log then. */
  async quiet(): Promise<void> {
    if (this.#underWay === 0) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #take(offset: number, length: number, { known, write }: Taking): Promise<void> {
    const { target, order, admit, wasWhole } = this.#options;
    admit();
    this.#underWay += 1;
    try {
      this.#begun ??= target.beginSynchronisation(wasWhole() ? "interruption" : "first_copy");
      const begun = this.#begun;
      // It may fail before the write's turn has come, which then learns of it.
      begun.catch(() => {});
      await order.run(offset, length, async () => {
        await begun;
        if (await known(target)) return;
        // Nothing is waited for between this and the write's place in the log.
        admit();
        await write(target);
      });
    } finally {
      this.#underWay -= 1;
      if (this.#underWay === 0) for (const wake of this.#idle.splice(0)) wake();
    }
  }

  /**
   * While a disk is copied again, most of what comes is what the log has already: comparing costs a read, keeping it would cost
   * the log its size. A guest's own writes are never compared.
   */
  async #isKnown(target: CaptureTarget, offset: number, data: Uint8Array): Promise<boolean> {
    if (target.status.state !== "synchronising" || !this.#options.wasWhole()) return false;
    const present = await target.read(offset, data.length);
    return present.equals(data);
  }

  async #isEmpty(target: CaptureTarget, offset: number, length: number): Promise<boolean> {
    if (target.status.state !== "synchronising") return false;
    const extents = await target.extents(offset, length);
    return extents.every(({ kind }) => kind !== "data");
  }
}

export function fenced(group: string, epoch: number, now: number): OperationalError {
  return new OperationalError(
    "state.fenced",
    `writes of "${group}" under epoch ${epoch} are not taken any more: the environment is at epoch ${now}`,
  );
}
