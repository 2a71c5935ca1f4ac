/**
 * One hash for each block of a disk: of what the vault has, or will have once the spool is empty. A block whose leaf is all zeroes holds
 * zeroes, so that the file of a new disk is one hole. Nothing of it stays in memory.
 */
import { type FileHandle, open } from "node:fs/promises";
import { leafBytes, leafOf, type LeafRun } from "#wire/agent/leaf-runs.ts";

const zeroLeaf = Buffer.alloc(leafBytes);
const zeroBlock = Buffer.alloc(256 * 1024);

/** What the file says of a block with this content. */
export function leafFor(content: Buffer): Buffer {
  return isZero(content) ? zeroLeaf : leafOf(content);
}

export function isZero(content: Buffer): boolean {
  return content.equals(zeroBlock.subarray(0, content.length));
}

export function isZeroLeaf(leaf: Buffer): boolean {
  return leaf.equals(zeroLeaf);
}

export class LeafFile implements AsyncDisposable {
  readonly #file: FileHandle;

  private constructor(file: FileHandle) {
    this.#file = file;
  }

  static async open(path: string): Promise<LeafFile> {
    const file = await open(path, "r+").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
      return open(path, "wx+", 0o600);
    });
    return new LeafFile(file);
  }

  /** Of so many blocks, one after the other. */
  async read(firstBlock: number, blocks: number): Promise<Buffer> {
    const leaves = Buffer.alloc(blocks * leafBytes);
    // What lies beyond the file's end are zeroes.
    for (let done = 0; done < leaves.length;) {
      const at = firstBlock * leafBytes + done;
      const { bytesRead } = await this.#file.read(leaves, done, leaves.length - done, at);
      if (bytesRead === 0) break;
      done += bytesRead;
    }
    return leaves;
  }

  async write(block: number, leaf: Buffer): Promise<void> {
    await this.#file.write(leaf, 0, leaf.length, block * leafBytes);
  }

  async writeRuns(firstBlock: number, runs: readonly LeafRun[]): Promise<void> {
    let block = firstBlock;
    for (const { blocks, leaves } of runs) {
      await this.write(block, leaves ?? Buffer.alloc(blocks * leafBytes));
      block += blocks;
    }
  }

  /** Every block holds zeroes. */
  async clear(): Promise<void> {
    await this.#file.truncate(0);
  }

  /** What was written outlives a power cut. */
  async sync(): Promise<void> {
    await this.#file.datasync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}
