/** What memory holds of a volume. */
import type { BlockReader } from "#model/block-device.ts";
import { applyResize } from "./apply-record.ts";
import { ExtentIndex } from "./extent-index.ts";
import { applyEvent, type LogEvent, type LogVolume } from "./log-event.ts";
import type { CommittedPoint } from "./point-store.ts";

/** A volume's place in memory. */
export interface LiveVolume {
  readonly index: ExtentIndex;
  base: CommittedPoint | undefined;
  baseReader: SharedReader | undefined;
}

/** A base point opened for reads of the present content; closed when it was replaced and its last reader is done. */
export class SharedReader {
  readonly #reader: Promise<BlockReader>;
  #users = 0;
  #retired = false;

  constructor(reader: Promise<BlockReader>) {
    this.#reader = reader;
  }

  async use<T>(work: (reader: BlockReader) => Promise<T>): Promise<T> {
    this.#users += 1;
    try {
      return await work(await this.#reader);
    } finally {
      this.#users -= 1;
      await this.#closeIfDone();
    }
  }

  async retire(): Promise<void> {
    this.#retired = true;
    await this.#closeIfDone();
  }

  async #closeIfDone(): Promise<void> {
    if (!this.#retired || this.#users > 0) return;
    await this.#reader.then((reader) => reader[Symbol.asyncDispose]()).catch(() => {});
  }
}

/** Changes table and indexes as the event says. False: it does not fit them. */
export function applyToVolumes(
  table: Map<number, LogVolume>,
  live: Map<number, LiveVolume>,
  event: LogEvent,
  sequence: number,
): boolean {
  const before = "index" in event ? table.get(event.index) : undefined;
  if (!applyEvent(table, event, sequence)) return false;
  if (event.type === "volume_added")
    live.set(event.index, { index: new ExtentIndex(), base: undefined, baseReader: undefined });
  if (event.type === "volume_resized" && before !== undefined) {
    const volume = live.get(event.index);
    if (volume !== undefined) applyResize(volume.index, before.sizeBytes, event.sizeBytes, sequence);
  }
  return true;
}
