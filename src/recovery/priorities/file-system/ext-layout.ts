/**
 * The parts of an ext2, ext3 or ext4 file system that say where its files are
 * (https://docs.kernel.org/filesystems/ext4/, "Data Structures and Algorithms"). Pure decoders; undefined: it is not what it should be.
 */

export interface ExtSuperblock {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly firstDataBlock: number;
  readonly inodes: number;
  readonly inodesPerGroup: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** Directory entries say what they name. */
  readonly hasFileTypes: boolean;
  /** Where it was mounted last; empty: nobody knows. */
  readonly lastMounted: string;
}

export const superblockOffset = 1024;
export const superblockBytes = 1024;
export const rootInode = 2;

const incompatible = { compression: 0x1, fileTypes: 0x2, journalDevice: 0x8, metaGroups: 0x10, wide: 0x80 };
/** What lies elsewhere, or is packed, with these. */
const notUnderstood =
  incompatible.compression | incompatible.journalDevice | incompatible.metaGroups | 0x1000;

export function decodeSuperblock(bytes: Buffer): ExtSuperblock | undefined {
  if (bytes.length < superblockBytes || bytes.readUInt16LE(0x38) !== 0xef53) return undefined;
  const features = bytes.readUInt32LE(0x60);
  if ((features & notUnderstood) !== 0) return undefined;
  const logBlock = bytes.readUInt32LE(0x18);
  const dynamic = bytes.readUInt32LE(0x4c) >= 1;
  const isWide = (features & incompatible.wide) !== 0;
  const inodeBytes = dynamic ? bytes.readUInt16LE(0x58) : 128;
  const descriptorBytes = isWide ? bytes.readUInt16LE(0xfe) : 32;
  const found = {
    blockBytes: 1024 * 2 ** logBlock,
    blocks: bytes.readUInt32LE(0x4) + (isWide ? bytes.readUInt32LE(0x150) * 2 ** 32 : 0),
    firstDataBlock: bytes.readUInt32LE(0x14),
    inodes: bytes.readUInt32LE(0x0),
    inodesPerGroup: bytes.readUInt32LE(0x28),
    inodeBytes,
    descriptorBytes,
    hasFileTypes: (features & incompatible.fileTypes) !== 0,
    lastMounted: textOf(bytes.subarray(0x88, 0x88 + 64)),
  };
  const sound =
    logBlock <= 6 &&
    found.inodesPerGroup > 0 &&
    inodeBytes >= 128 &&
    inodeBytes <= found.blockBytes &&
    descriptorBytes >= 32 &&
    descriptorBytes <= 1024 &&
    found.firstDataBlock <= 1;
  return sound ? found : undefined;
}

function textOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
}

/** Block of a group's inode table. */
export function decodeInodeTable(descriptor: Buffer): number {
  const high = descriptor.length >= 64 ? descriptor.readUInt32LE(0x28) : 0;
  return descriptor.readUInt32LE(0x8) + high * 2 ** 32;
}

export type ExtKind = "file" | "directory" | "other";

export interface ExtInode {
  readonly kind: ExtKind;
  /** Somebody may execute it. */
  readonly isExecutable: boolean;
  readonly sizeBytes: number;
  /** Milliseconds since the epoch. */
  readonly modifiedMs: number;
  readonly map: "extents" | "blocks" | "inline";
  /** Root of its map: 60 bytes. */
  readonly root: Buffer;
}

const inodeFlags = { extents: 0x80000, inline: 0x10000000 };

/** Undefined: nobody uses it. */
export function decodeInode(bytes: Buffer): ExtInode | undefined {
  const mode = bytes.readUInt16LE(0x0);
  if (mode === 0 || bytes.readUInt16LE(0x1a) === 0) return undefined;
  const type = mode & 0xf000;
  const kind = type === 0x8000 ? "file" : type === 0x4000 ? "directory" : "other";
  const flags = bytes.readUInt32LE(0x20);
  const extra = bytes.length >= 0x8c && bytes.readUInt16LE(0x80) >= 0xc ? bytes.readUInt32LE(0x88) : 0;
  const seconds = bytes.readInt32LE(0x10) + (extra & 3) * 2 ** 32;
  return {
    kind,
    isExecutable: kind === "file" && (mode & 0o111) !== 0,
    sizeBytes: bytes.readUInt32LE(0x4) + bytes.readUInt32LE(0x6c) * 2 ** 32,
    modifiedMs: seconds * 1000,
    map:
      (flags & inodeFlags.inline) !== 0
        ? "inline"
        : (flags & inodeFlags.extents) !== 0
          ? "extents"
          : "blocks",
    root: bytes.subarray(0x28, 0x28 + 60),
  };
}

export interface ExtentNode {
  /** 0: it is a leaf. */
  readonly depth: number;
  /** Where the file's content is. */
  readonly runs: readonly { readonly block: number; readonly count: number }[];
  /** Nodes below it. */
  readonly children: readonly number[];
}

export function decodeExtentNode(bytes: Buffer): ExtentNode | undefined {
  if (bytes.length < 12 || bytes.readUInt16LE(0) !== 0xf30a) return undefined;
  const entries = bytes.readUInt16LE(2);
  const depth = bytes.readUInt16LE(6);
  if (depth > 5 || 12 + entries * 12 > bytes.length) return undefined;
  const runs: { block: number; count: number }[] = [];
  const children: number[] = [];
  for (let at = 12; at < 12 + entries * 12; at += 12) {
    if (depth > 0) {
      children.push(bytes.readUInt32LE(at + 4) + bytes.readUInt16LE(at + 8) * 2 ** 32);
      continue;
    }
    const count = bytes.readUInt16LE(at + 4);
    // Above 32768 the blocks are reserved and read as zeroes.
    if (count > 32_768 || count === 0) continue;
    runs.push({ block: bytes.readUInt32LE(at + 8) + bytes.readUInt16LE(at + 6) * 2 ** 32, count });
  }
  return { depth, runs, children };
}

export interface DirectoryEntry {
  readonly inode: number;
  readonly name: string;
}

/**
 * The entries of one block of a directory, without `.` and `..`. A hashed directory's inner nodes look like entries that name nothing: read
 * in plain order, they are passed over.
 */
export function decodeDirectory(block: Buffer, hasFileTypes: boolean): readonly DirectoryEntry[] {
  const found: DirectoryEntry[] = [];
  for (let at = 0; at + 8 <= block.length;) {
    const inode = block.readUInt32LE(at);
    const length = block.readUInt16LE(at + 4);
    const nameBytes = hasFileTypes ? block.readUInt8(at + 6) : block.readUInt16LE(at + 6);
    if (length < 8 || length % 4 !== 0 || at + length > block.length || 8 + nameBytes > length) break;
    const name = block.toString("utf8", at + 8, at + 8 + nameBytes);
    if (inode !== 0 && nameBytes > 0 && name !== "." && name !== "..") found.push({ inode, name });
    at += length;
  }
  return found;
}
