/**
 * One connection of a host that mirrors a volume into the log. It writes only while its fencing epoch is the group's; its first
 * write begins a synchronisation, since nobody can say what was missed before it.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { BlockDevice, Extent, WriteOptions } from "#model/block-device.ts";
import type { CaptureTarget } from "#vault/write-log/capture-target.ts";

export interface CaptureSessionOptions {
  readonly target: CaptureTarget;
  /** Throws `state.fenced` when writes of this session must not come in any more. */
  readonly admit: () => void;
  /** Whether a whole copy was ever complete: tells the reason of the synchronisation. */
  readonly wasWhole: () => boolean;
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
    await this.#take(async (target) => {
      if (!(await this.#isKnown(target, offset, data))) await target.write(offset, data, options);
    });
  }

  zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void> {
    return this.#take(async (target) => {
      if (!(await this.#isEmpty(target, offset, length))) await target.zero(offset, length, options);
    });
  }

  trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.#take(async (target) => {
      if (!(await this.#isEmpty(target, offset, length))) await target.trim(offset, length, options);
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

  async #take(write: (target: CaptureTarget) => Promise<void>): Promise<void> {
    const { target, admit, wasWhole } = this.#options;
    admit();
    this.#underWay += 1;
    try {
      this.#begun ??= target.beginSynchronisation(wasWhole() ? "interruption" : "first_copy");
      await this.#begun;
      admit();
      await write(target);
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
