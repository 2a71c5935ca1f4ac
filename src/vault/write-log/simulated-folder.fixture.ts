/**
 * A disk that loses power: what was not synced is kept sector by sector at the whim of a seed, and directory entries too. It can also be full
 * and fail its flushes. After `crash` the old handles are dead, as after `kill`.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { Random } from "#kernel/random.ts";
import type { SegmentFile, SegmentFolder } from "./segment-folder.ts";

interface Disk {
  content: Buffer;
  durable: Buffer;
  /** Since the last sync. */
  writes: { position: number; bytes: Buffer }[];
}

const dead = (): OperationalError =>
  new OperationalError("store.failing", "the machine is off", { outcome: "unknown" });

const put = (into: Buffer, position: number, bytes: Buffer): Buffer => {
  const end = position + bytes.length;
  const grown = end > into.length ? Buffer.concat([into, Buffer.alloc(end - into.length)]) : into;
  bytes.copy(grown, position);
  return grown;
};

export class SimulatedDisk {
  /** Bytes that can still be written. */
  freeBytes = Number.POSITIVE_INFINITY;
  /** The next sync fails, and what it should have kept is lost. */
  failNextSync = false;
  syncs = 0;
  readonly #files = new Map<string, Disk>();
  #durableNames = new Set<string>();
  /** Removed, and the removal not yet durable. */
  readonly #removed = new Map<string, Disk>();
  #life = { on: true };

  /** For damage: the bytes of every file. */
  files(): ReadonlyMap<string, Buffer> {
    return new Map([...this.#files].map(([name, disk]) => [name, disk.content]));
  }

  overwrite(name: string, content: Buffer): void {
    this.#files.set(name, { content, durable: Buffer.from(content), writes: [] });
  }

  delete(name: string): void {
    this.#files.delete(name);
  }

  folder(): SegmentFolder {
    const life = this.#life;
    const check = (): void => {
      if (!life.on) throw dead();
    };
    return {
      name: "simulated",
      list: async () => [...this.#files.keys()],
      create: async (name) => {
        check();
        if (this.#files.has(name)) throw new OperationalError("store.failing", `${name} exists`);
        if (this.freeBytes <= 0) throw new OperationalError("store.full", "full");
        const disk: Disk = { content: Buffer.alloc(0), durable: Buffer.alloc(0), writes: [] };
        this.#files.set(name, disk);
        return this.#handle(disk, life);
      },
      open: async (name) => {
        check();
        const disk = this.#files.get(name);
        if (disk === undefined) throw new OperationalError("not_found", `${name} is not there`);
        return this.#handle(disk, life);
      },
      remove: async (name) => {
        check();
        const disk = this.#files.get(name);
        if (disk !== undefined) this.#removed.set(name, disk);
        this.#files.delete(name);
      },
      syncEntries: async () => {
        await turn();
        check();
        this.#durableNames = new Set(this.#files.keys());
        this.#removed.clear();
      },
      close: async () => {},
    };
  }

  crash(random: Random): void {
    this.#life.on = false;
    this.#life = { on: true };
    for (const [name, disk] of this.#removed) if (random.fraction() < 0.5) this.#files.set(name, disk);
    this.#removed.clear();
    for (const [name, disk] of this.#files) {
      if (!this.#durableNames.has(name) && random.fraction() < 0.5) this.#files.delete(name);
      else this.overwrite(name, tear(disk, random));
    }
    this.#durableNames = new Set(this.#files.keys());
  }

  /** The process dies, the machine does not: what was written is there, and is still to be synced. */
  kill(): void {
    this.#life.on = false;
    this.#life = { on: true };
  }

  #handle(disk: Disk, life: { on: boolean }): SegmentFile {
    const check = (): void => {
      if (!life.on) throw dead();
    };
    return {
      write: async (buffers, position) => {
        await turn();
        check();
        const bytes = Buffer.concat(buffers);
        const room = Math.min(bytes.length, this.freeBytes);
        this.freeBytes -= room;
        const kept = bytes.subarray(0, room);
        disk.content = put(disk.content, position, kept);
        disk.writes.push({ position, bytes: Buffer.from(kept) });
        if (room < bytes.length) throw new OperationalError("store.full", "full");
      },
      sync: async () => {
        const { length } = disk.writes;
        const content = Buffer.from(disk.content);
        // Slower than a write, so that writes come in between.
        for (let turns = 0; turns < 4; turns += 1) await turn();
        check();
        this.syncs += 1;
        if (this.failNextSync) {
          this.failNextSync = false;
          disk.content = Buffer.from(disk.durable);
          disk.writes = [];
          throw new OperationalError("store.failing", "input/output error", { outcome: "unknown" });
        }
        disk.durable = content;
        disk.writes = disk.writes.slice(length);
      },
      read: async (buffer, position) => {
        check();
        return disk.content.copy(
          buffer,
          0,
          position,
          Math.min(position + buffer.length, disk.content.length),
        );
      },
      sizeBytes: async () => disk.content.length,
      truncate: async (sizeBytes) => {
        check();
        disk.content = disk.content.subarray(0, sizeBytes);
        disk.writes = [];
      },
      close: async () => {},
    };
  }
}

const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** What is left of a file: the durable part, and any sectors of what was written since. */
function tear(disk: Disk, random: Random): Buffer {
  let left: Buffer = Buffer.from(disk.durable);
  const keep = [0, 0.5, 0.9, 1][Math.floor(random.fraction() * 4)] ?? 0;
  for (const { position, bytes } of disk.writes)
    for (let at = 0; at < bytes.length; at += 512)
      if (random.fraction() < keep) left = put(left, position + at, bytes.subarray(at, at + 512));
  return left;
}
