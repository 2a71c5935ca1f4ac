/** Collects what a pass found changed, and makes parts of it. */
import { OperationalError } from "#kernel/errors.ts";
import {
  encodePart,
  maxPartContentBytes,
  maxPartRecords,
  passBlockBytes,
  type PassEnd,
  type PassRecord,
  type PassVolume,
} from "#wire/agent/pass-part.ts";
import type { AgentState } from "./agent-state.ts";

export interface PartBuilderOptions {
  readonly state: AgentState;
  readonly stream: string;
  readonly pass: number;
  readonly volumes: readonly PassVolume[];
}

export class PartBuilder {
  readonly #options: PartBuilderOptions;
  #records: PassRecord[] = [];
  #contentBytes = 0;
  #parts = 0;
  #changedBytes = 0;
  /** False while the disks are held still: a full spool ends the hold then. */
  mayWait = true;

  constructor(options: PartBuilderOptions) {
    this.#options = options;
  }

  /** Parts that were spooled. */
  get parts(): number {
    return this.#parts;
  }

  /** Of all disks. */
  get diskBytes(): number {
    return this.#options.volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /** That the pass was begun with. */
  sizeOf(volume: number): number {
    return this.#options.volumes[volume]?.sizeBytes ?? 0;
  }

  get changedBytes(): number {
    return this.#changedBytes;
  }

  /** The content is kept as a copy; null: zeroes. Errors: as for `flush`. */
  async add(
    volume: number,
    offset: number,
    length: number,
    content: Buffer | null,
    signal: AbortSignal,
  ): Promise<void> {
    this.#records.push({ volume, offset, length, data: content === null ? null : Buffer.from(content) });
    this.#contentBytes += content?.length ?? 0;
    this.#changedBytes += length;
    const full = this.#contentBytes + passBlockBytes > maxPartContentBytes;
    if (full || this.#records.length === maxPartRecords) await this.flush(null, signal);
  }

  /**
   * What was collected is durable in the spool when it returns. Waits for room, or not: see `mayWait`. Errors: `store.full` where it
   * may not wait, and those of the disk; what was collected is still there then, and will be found changed again.
   */
  async flush(end: PassEnd | null, signal: AbortSignal): Promise<void> {
    if (end === null && this.#records.length === 0) return;
    const { state, stream, pass, volumes } = this.#options;
    if (this.mayWait) await state.spool.room(signal);
    else if (!state.spool.hasRoom) {
      throw new OperationalError("store.full", `the spool is full (${state.spool.limitBytes} bytes)`);
    }
    const number = state.nextPart;
    const part = { header: { stream, number, pass, volumes: [...volumes], end }, records: this.#records };
    await state.keepPart(number, part, encodePart(part));
    this.#records = [];
    this.#contentBytes = 0;
    this.#parts += 1;
  }

  /** Forgets what was collected and not spooled: its leaves are as they were. */
  drop(): void {
    this.#records = [];
    this.#contentBytes = 0;
  }
}
