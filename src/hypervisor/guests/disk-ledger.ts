/** What was asked for the content of volumes, beside the cloud's own API: one small file, replaced whole at each change. */
import { replaceFile } from "#kernel/durable-file.ts";
import { readVersioned } from "#hypervisor/read-versioned.ts";

export interface CaptureWish {
  readonly uri: string;
  readonly stallLimitMs: number;
  /** Milliseconds since the epoch. */
  readonly askedAt: number;
}

export interface SeedRecord {
  readonly uri: string;
  /** Of the background copy; null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  readonly sizeBytes: number;
  /**
   * `making`: the volume's file may or may not stand over the source yet, and no machine has it. `live`: it does. `done`: the
   * file holds everything, and the source was let go.
   */
  readonly phase: "making" | "live" | "done";
  /** Names the replacement that it came with. */
  readonly replaced?: string;
}

export interface DiskRecords {
  readonly format: 1;
  /** By the cloud's id of the volume. */
  readonly captures: Readonly<Record<string, CaptureWish>>;
  readonly seeds: Readonly<Record<string, SeedRecord>>;
  /** Volumes whose file was made: one that is missing since is lost, and not to be made again. Absent: none is known. */
  readonly made?: Readonly<Record<string, true>>;
  /** No machine gets these volumes until their export has ended. */
  readonly exports: Readonly<Record<string, true>>;
  /** Servers whose file systems are held still, or were to be; absent: none. */
  readonly frozen?: Readonly<Record<string, true>>;
}

const EMPTY: DiskRecords = { format: 1, captures: {}, seeds: {}, exports: {} };

export class DiskLedger {
  readonly #path: string;
  #records: DiskRecords;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(path: string, records: DiskRecords) {
    this.#path = path;
    this.#records = records;
  }

  get records(): DiskRecords {
    return this.#records;
  }

  /** Durable when it resolves. */
  update(change: (records: DiskRecords) => Partial<DiskRecords>): Promise<void> {
    const written = this.#writing.then(async () => {
      const next = { ...this.#records, ...change(this.#records) };
      await replaceFile(this.#path, `${JSON.stringify(next, null, 2)}\n`);
      this.#records = next;
    });
    this.#writing = written.catch(() => {});
    return written;
  }

  setCapture(volumeId: string, wish: CaptureWish | null): Promise<void> {
    return this.update(({ captures }) => ({ captures: withEntry(captures, volumeId, wish) }));
  }

  setSeed(volumeId: string, seed: SeedRecord | null): Promise<void> {
    return this.update(({ seeds }) => ({ seeds: withEntry(seeds, volumeId, seed) }));
  }

  setExport(volumeId: string, exported: boolean): Promise<void> {
    return this.update(({ exports }) => ({ exports: withEntry(exports, volumeId, exported ? true : null) }));
  }

  async setFrozen(serverId: string, frozen: boolean): Promise<void> {
    if ((this.#records.frozen?.[serverId] === true) === frozen) return;
    await this.update((records) => ({
      frozen: withEntry(records.frozen ?? {}, serverId, frozen ? true : null),
    }));
  }

  async setMade(volumeId: string): Promise<void> {
    if (this.#records.made?.[volumeId] === true) return;
    await this.update((records) => ({ made: withEntry(records.made ?? {}, volumeId, true) }));
  }

  /** The volume is gone. */
  async forget(volumeId: string): Promise<void> {
    const { captures, seeds, exports, made = {} } = this.#records;
    if (![captures, seeds, exports, made].some((each) => Object.hasOwn(each, volumeId))) return;
    await this.update((records) => ({
      captures: withEntry(records.captures, volumeId, null),
      seeds: withEntry(records.seeds, volumeId, null),
      exports: withEntry(records.exports, volumeId, null),
      made: withEntry(records.made ?? {}, volumeId, null),
    }));
  }
}

/** Errors: `store.failing`, `store.version`. */
export async function openDiskLedger(path: string): Promise<DiskLedger> {
  return new DiskLedger(path, (await readVersioned<DiskRecords>(path, EMPTY.format)) ?? EMPTY);
}

function withEntry<Value>(
  entries: Readonly<Record<string, Value>>,
  key: string,
  value: Value | null,
): Record<string, Value> {
  const { [key]: _, ...others } = entries;
  return value === null ? others : { ...others, [key]: value };
}
