/**
 * The files of an ext2, ext3 or ext4 file system and where each lies on the disk. Read-only, and only as far as it goes: what is damaged or
 * made to mislead costs bounded time and memory, and is passed over. The journal is not played back: what a crash left behind in it may
 * be missing here, which costs a priority and nothing else.
 */
import type { CachedReads } from "./cached-reads.ts";
import {
  decodeDirectory,
  decodeExtentNode,
  decodeInode,
  decodeInodeTable,
  decodeSuperblock,
  type DirectoryEntry,
  type ExtInode,
  type ExtSuperblock,
  rootInode,
  superblockBytes,
  superblockOffset,
} from "./ext-layout.ts";
import type { Partition } from "./partition-table.ts";

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

/** What has to be read before a file in it can be found. */
export interface DirectoryTrail {
  readonly ranges: readonly ByteRange[];
  readonly parent: DirectoryTrail | null;
}

export interface FoundFile {
  /** From the root of its file system: `/etc/hosts`. */
  readonly path: string;
  readonly kind: "file" | "directory";
  readonly isExecutable: boolean;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
  /** Its inode, what maps it, and its content: on the disk, in order. */
  readonly ranges: readonly ByteRange[];
  readonly trail: DirectoryTrail | null;
}

export interface ExtLimits {
  readonly files: number;
  readonly depth: number;
  /** Of the map of one file. */
  readonly runs: number;
  /** Of one directory. */
  readonly directoryBytes: number;
  /** Read of the disk in all. */
  readonly readBytes: number;
}

export const defaultExtLimits: ExtLimits = {
  files: 500_000,
  depth: 64,
  runs: 4096,
  directoryBytes: 16 * 1024 * 1024,
  readBytes: 1024 * 1024 * 1024,
};

interface FileMap {
  /** Blocks that say where its content is. */
  readonly map: ByteRange[];
  readonly content: ByteRange[];
}

/** False: it is enough. */
type AddRun = (kind: keyof FileMap, block: number, count: number) => boolean;

export class ExtFileSystem {
  readonly superblock: ExtSuperblock;
  readonly #disk: CachedReads;
  readonly #partition: Partition;
  readonly #limits: ExtLimits;

  private constructor(disk: CachedReads, partition: Partition, superblock: ExtSuperblock, limits: ExtLimits) {
    this.#disk = disk;
    this.#partition = partition;
    this.superblock = superblock;
    this.#limits = limits;
  }

  /** Undefined: there is none that this reader understands. */
  static async open(
    disk: CachedReads,
    partition: Partition,
    signal: AbortSignal,
    limits: ExtLimits = defaultExtLimits,
  ): Promise<ExtFileSystem | undefined> {
    const bytes = await disk.read(partition.offset + superblockOffset, superblockBytes, signal);
    const superblock = bytes === undefined ? undefined : decodeSuperblock(bytes);
    return superblock === undefined ? undefined : new ExtFileSystem(disk, partition, superblock, limits);
  }

  /** Directories before what is in them. Ends early, without a word, where a limit is reached. */
  async *files(signal: AbortSignal): AsyncGenerator<FoundFile> {
    const seen = new Set([rootInode]);
    const queue: { inode: number; path: string; depth: number; trail: DirectoryTrail | null }[] = [
      { inode: rootInode, path: "", depth: 0, trail: null },
    ];
    let count = 0;
    for (let head = 0; head < queue.length; head += 1) {
      const { inode: number, path, depth, trail } = queue[head] as (typeof queue)[number];
      signal.throwIfAborted();
      if (count >= this.#limits.files || this.#disk.readBytes >= this.#limits.readBytes) return;
      const inode = await this.#inode(number, signal);
      if (inode === undefined || inode.kind === "other") continue;
      count += 1;
      const { map, content } = await this.#mapOf(inode, signal);
      const ranges = [...this.#takePlace(number), ...map, ...content];
      const { kind, isExecutable, sizeBytes, modifiedMs } = inode;
      const found = { path: path || "/", kind, isExecutable, sizeBytes, modifiedMs, ranges, trail };
      yield { ...found, kind };
      if (kind === "directory" && depth < this.#limits.depth) {
        const inside: DirectoryTrail = { ranges, parent: trail };
        for (const entry of await this.#entries(inode, content, signal)) {
          // A file with several names has its first one; a directory that leads back to itself is not entered again.
          if (seen.has(entry.inode) || queue.length >= this.#limits.files) continue;
          seen.add(entry.inode);
          const below = { path: `${path}/${entry.name}`, depth: depth + 1, trail: inside };
          queue.push({ inode: entry.inode, ...below });
        }
      }
      // What was gone through is not held.
      if (head < 10_000) continue;
      queue.splice(0, head + 1);
      head = -1;
    }
  }

  #range(block: number, count: number): ByteRange | undefined {
    const { blockBytes } = this.superblock;
    const [offset, length] = [block * blockBytes, count * blockBytes];
    if (block <= 0 || !Number.isSafeInteger(offset) || offset + length > this.#partition.length)
      return undefined;
    return { offset: this.#partition.offset + offset, length };
  }

  #takePlace(number: number): readonly ByteRange[] {
    const place = this.#places.get(number);
    this.#places.delete(number);
    return place === undefined ? [] : [place];
  }

  /** Of inodes that were read just now. */
  readonly #places = new Map<number, ByteRange>();

  async #inode(number: number, signal: AbortSignal): Promise<ExtInode | undefined> {
    const { inodes, inodesPerGroup, inodeBytes, descriptorBytes, firstDataBlock, blockBytes } =
      this.superblock;
    if (number < 1 || number > inodes) return undefined;
    const group = Math.floor((number - 1) / inodesPerGroup);
    const descriptors = (firstDataBlock + 1) * blockBytes;
    const descriptor = await this.#read(descriptors + group * descriptorBytes, descriptorBytes, signal);
    if (descriptor === undefined) return undefined;
    const at = decodeInodeTable(descriptor) * blockBytes + ((number - 1) % inodesPerGroup) * inodeBytes;
    const bytes = await this.#read(at, inodeBytes, signal);
    if (bytes === undefined) return undefined;
    this.#places.set(number, { offset: this.#partition.offset + at, length: inodeBytes });
    return decodeInode(bytes);
  }

  async #read(offset: number, length: number, signal: AbortSignal): Promise<Buffer | undefined> {
    if (offset + length > this.#partition.length) return undefined;
    return this.#disk.read(this.#partition.offset + offset, length, signal);
  }

  async #mapOf(inode: ExtInode, signal: AbortSignal): Promise<FileMap> {
    const found: FileMap = { map: [], content: [] };
    if (inode.map === "inline" || inode.sizeBytes === 0) return found;
    const add: AddRun = (kind, block, count) => {
      const range = this.#range(block, count);
      if (range !== undefined) found[kind].push(range);
      return found.map.length + found.content.length < this.#limits.runs;
    };
    if (inode.map === "extents") await this.#walkExtents(inode.root, 6, add, signal);
    else await this.#walkBlocks(inode, add, signal);
    return found;
  }

  /** False: enough was found. */
  async #walkExtents(bytes: Buffer, above: number, add: AddRun, signal: AbortSignal): Promise<boolean> {
    const node = decodeExtentNode(bytes);
    // Each is less deep than the one above it: a ring ends here.
    if (node === undefined || node.depth >= above) return true;
    for (const { block, count } of node.runs) if (!add("content", block, count)) return false;
    for (const child of node.children) {
      if (!add("map", child, 1)) return false;
      const { blockBytes } = this.superblock;
      const below = await this.#read(child * blockBytes, blockBytes, signal);
      if (below !== undefined && !(await this.#walkExtents(below, node.depth, add, signal))) return false;
    }
    return true;
  }

  /** As before extents: twelve blocks, then blocks of block numbers, one to three deep. */
  async #walkBlocks({ root }: ExtInode, add: AddRun, signal: AbortSignal): Promise<void> {
    const { blockBytes } = this.superblock;
    let run = { block: 0, count: 0 };
    const end = (): boolean => run.count === 0 || add("content", run.block, run.count);
    const note = (block: number): boolean => {
      if (block === 0) return true;
      if (run.count > 0 && block === run.block + run.count) {
        run.count += 1;
        return true;
      }
      const more = end();
      run = { block, count: 1 };
      return more;
    };
    const walk = async (block: number, depth: number): Promise<boolean> => {
      if (block === 0 || depth === 0) return note(block);
      if (!add("map", block, 1)) return false;
      const bytes = await this.#read(block * blockBytes, blockBytes, signal);
      if (bytes === undefined) return true;
      for (let at = 0; at < blockBytes; at += 4)
        if (!(await walk(bytes.readUInt32LE(at), depth - 1))) return false;
      return true;
    };
    for (let number = 0; number < 15; number += 1) {
      if (!(await walk(root.readUInt32LE(number * 4), Math.max(0, number - 11)))) return;
    }
    end();
  }

  async #entries(
    inode: ExtInode,
    ranges: readonly ByteRange[],
    signal: AbortSignal,
  ): Promise<readonly DirectoryEntry[]> {
    const { blockBytes, hasFileTypes } = this.superblock;
    if (inode.map === "inline") return decodeDirectory(inode.root.subarray(4), hasFileTypes);
    const entries: DirectoryEntry[] = [];
    let left = Math.min(inode.sizeBytes, this.#limits.directoryBytes);
    for (const { offset, length } of ranges) {
      for (let at = 0; at < length && left > 0; at += blockBytes, left -= blockBytes) {
        const block = await this.#disk.read(offset + at, blockBytes, signal);
        if (block !== undefined) entries.push(...decodeDirectory(block, hasFileTypes));
      }
    }
    return entries;
  }
}
