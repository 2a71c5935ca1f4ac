/**
 * The content of snapshots: one raw file each, whole when it has its name, and beside it a list of its blocks that are not zero with
 * their SHA-256, made when the file is there.
 */
import { createHash } from "node:crypto";
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

/** What EBS direct calls a block. */
export const snapshotBlockBytes = 512 * 1024;

const zeroes = Buffer.alloc(snapshotBlockBytes);

/** Block number -> SHA-256 in base64; a block that is not in it reads as zeroes. In order. */
export type SnapshotBlocks = ReadonlyMap<number, string>;

export class SnapshotFiles {
  readonly #folder: string;
  readonly #blocks = new Map<string, Promise<SnapshotBlocks>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Where the content is made; `keep` gives it its name. */
  async makingPath(id: string): Promise<string> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = `${this.#path(id)}.new`;
    await rm(path, { force: true });
    return path;
  }

  /** On stable storage when it returns. */
  async keep(id: string): Promise<void> {
    const making = `${this.#path(id)}.new`;
    await synced(making);
    await rename(making, this.#path(id));
    await synced(this.#folder);
  }

  async ids(): Promise<readonly string[]> {
    const names = await readdir(this.#folder).catch(() => []);
    return names.flatMap((name) => (name.endsWith(".raw") ? [name.slice(0, -".raw".length)] : []));
  }

  /** Made once; the file must be there. */
  blocks(id: string): Promise<SnapshotBlocks> {
    const present = this.#blocks.get(id);
    if (present !== undefined) return present;
    const reading = this.#list(id);
    this.#blocks.set(id, reading);
    reading.catch(() => this.#blocks.delete(id));
    return reading;
  }

  async read(id: string, block: number): Promise<Buffer> {
    const file = await open(this.#path(id), "r");
    try {
      const data = Buffer.alloc(snapshotBlockBytes);
      await file.read(data, 0, data.length, block * snapshotBlockBytes);
      return data;
    } finally {
      await file.close();
    }
  }

  async remove(id: string): Promise<void> {
    this.#blocks.delete(id);
    for (const path of [this.#path(id), `${this.#path(id)}.new`, this.#listPath(id)])
      await rm(path, { force: true });
  }

  #path(id: string): string {
    return join(this.#folder, `${id}.raw`);
  }

  #listPath(id: string): string {
    return join(this.#folder, `${id}.blocks`);
  }

  async #list(id: string): Promise<SnapshotBlocks> {
    try {
      const kept: unknown = JSON.parse(await readFile(this.#listPath(id), "utf8"));
      if (Array.isArray(kept)) return new Map(kept as [number, string][]);
    } catch {
      // Not there, or cut short by a crash: it is made from the content.
    }
    const blocks = new Map<number, string>();
    const file = await open(this.#path(id), "r");
    try {
      const data = Buffer.alloc(snapshotBlockBytes);
      for (let block = 0; ; block += 1) {
        const { bytesRead } = await file.read(data, 0, data.length, block * snapshotBlockBytes);
        if (bytesRead === 0) break;
        data.fill(0, bytesRead);
        if (data.equals(zeroes)) continue;
        blocks.set(block, createHash("sha256").update(data).digest("base64"));
      }
    } finally {
      await file.close();
    }
    const making = `${this.#listPath(id)}.new`;
    const list = await open(making, "w", 0o600);
    try {
      await list.writeFile(JSON.stringify([...blocks]));
      await list.sync();
    } finally {
      await list.close();
    }
    await rename(making, this.#listPath(id));
    return blocks;
  }
}

async function synced(path: string): Promise<void> {
  const file = await open(path, "r");
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}
