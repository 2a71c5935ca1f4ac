/**
 * Snapshots of volumes: several of one server at one instant. The instant has passed when the call is answered; the snapshot is complete
 * when its blocks are listed.
 */
import type { Log } from "#kernel/log.ts";
import { publicMessage } from "#kernel/errors.ts";
import { find, newRecord, type Cloud } from "./cloud.ts";
import type { SnapshotRecord, Tags, VolumeRecord } from "./records.ts";
import type { SnapshotBlocks, SnapshotFiles } from "./snapshot-files.ts";

export interface DiskCopy {
  readonly volumeId: string;
  /** A raw file is made here; where it ends before the volume does, the rest is zeroes. */
  readonly path: string;
}

/** Copies of disks as they are at one instant, the same for all, also while guests write to them. */
export type CopyDisks = (wanted: readonly DiskCopy[], signal: AbortSignal) => Promise<void>;

export interface SnapshotInput {
  readonly volumeIds: readonly string[];
  readonly description: string;
  readonly tags: Tags;
}

export class Snapshots {
  readonly #cloud: Cloud;
  readonly #files: SnapshotFiles;
  readonly #copyDisks: CopyDisks;
  readonly #log: Log;
  readonly #completing = new Set<Promise<void>>();

  constructor(cloud: Cloud, files: SnapshotFiles, copyDisks: CopyDisks, log: Log) {
    this.#cloud = cloud;
    this.#files = files;
    this.#copyDisks = copyDisks;
    this.#log = log;
  }

  /** What a killed process left: content without a record goes, a record without content is in error, the others are completed. */
  async resume(): Promise<void> {
    const { data } = this.#cloud;
    const { snapshot } = data.tables;
    const there = new Set(await this.#files.ids());
    for (const id of there) if (snapshot.get(id) === undefined) await this.#files.remove(id);
    for (const record of snapshot.values()) {
      if (record.state !== "pending") continue;
      if (there.has(record.id)) this.#complete(record.id);
      else data.transact(() => snapshot.put({ ...record, state: "error" }));
    }
  }

  /** Errors: a refusal, for the volumes; `store.*`, `machine.*`, and then none was taken. */
  async take(input: SnapshotInput, signal: AbortSignal): Promise<readonly SnapshotRecord[]> {
    const { data, clock } = this.#cloud;
    const records = data.transact(() => {
      const volumes = input.volumeIds.map((id) => find(this.#cloud, "volume", id));
      return volumes.map((volume) => this.#record(volume, input));
    });
    try {
      const copies: DiskCopy[] = [];
      for (const { id, volumeId } of records) {
        copies.push({ volumeId, path: await this.#files.makingPath(id) });
      }
      const startedAt = clock.now();
      await this.#copyDisks(copies, signal);
      for (const { id } of records) await this.#files.keep(id);
      const taken = data.transact(() =>
        records.map((record) => data.tables.snapshot.put({ ...record, startedAt })),
      );
      for (const { id } of records) this.#complete(id);
      return taken;
    } catch (error) {
      data.transact(() => {
        for (const { id } of records) data.tables.snapshot.delete(id);
      });
      for (const { id } of records) await this.#files.remove(id);
      throw error;
    }
  }

  async remove(id: string): Promise<void> {
    const { data } = this.#cloud;
    data.transact(() => {
      find(this.#cloud, "snapshot", id);
      data.tables.snapshot.delete(id);
    });
    await data.durable();
    await this.#files.remove(id);
  }

  blocks(id: string): Promise<SnapshotBlocks> {
    return this.#files.blocks(id);
  }

  read(id: string, block: number): Promise<Buffer> {
    return this.#files.read(id, block);
  }

  async close(): Promise<void> {
    await Promise.all(this.#completing);
  }

  #record(volume: VolumeRecord, { description, tags }: SnapshotInput): SnapshotRecord {
    return this.#cloud.data.tables.snapshot.put({
      ...newRecord(this.#cloud, "snapshot", { tags }),
      volumeId: volume.id,
      sizeGiB: volume.sizeGiB,
      encrypted: volume.encrypted,
      description,
      state: "pending",
      startedAt: this.#cloud.clock.now(),
    });
  }

  #complete(id: string): void {
    const done = this.#list(id).finally(() => this.#completing.delete(done));
    this.#completing.add(done);
  }

  async #list(id: string): Promise<void> {
    const { data } = this.#cloud;
    let state: SnapshotRecord["state"] = "completed";
    try {
      await this.#files.blocks(id);
    } catch (error) {
      this.#log.warn({ snapshot: id, error: publicMessage(error) }, "a snapshot cannot be read");
      state = "error";
    }
    data.transact(() => {
      const record = data.tables.snapshot.get(id);
      if (record !== undefined) data.tables.snapshot.put({ ...record, state });
    });
  }
}
