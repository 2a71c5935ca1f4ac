/**
 * The `newc` cpio format, which Linux unpacks as an initramfs (kernel document `driver-api/early-userspace/buffer-format`).
 * Several archives may stand one after another in one file: the kernel unpacks them in order.
 */
import { invariant } from "#kernel/invariant.ts";

export interface ArchiveEntry {
  /** Without a leading slash. A folder must come before what lies in it. */
  readonly path: string;
  readonly kind: "file" | "folder" | "link" | "character_device";
  /** Permission bits; a link's are not looked at. */
  readonly mode?: number;
  /** A file's bytes, or a link's target. */
  readonly content?: Uint8Array | string;
  /** Of a character device: major and minor number. */
  readonly device?: readonly [number, number];
}

const TYPE_BITS = { file: 0o100000, folder: 0o040000, link: 0o120000, character_device: 0o020000 } as const;
const DEFAULT_MODE = { file: 0o644, folder: 0o755, link: 0o777, character_device: 0o600 } as const;

/** The same entries give the same bytes: owner is root, times are zero. */
export function encodeNewc(entries: readonly ArchiveEntry[]): Buffer {
  const parts: Buffer[] = [];
  let inode = 1;
  for (const entry of entries) {
    invariant(!entry.path.startsWith("/"), `archive path ${entry.path} must be relative`);
    parts.push(
      ...encodeEntry(entry, inode++, TYPE_BITS[entry.kind] | (entry.mode ?? DEFAULT_MODE[entry.kind])),
    );
  }
  parts.push(...encodeEntry({ path: "TRAILER!!!", kind: "file" }, 0, 0));
  return Buffer.concat(parts);
}

function encodeEntry(entry: ArchiveEntry, inode: number, mode: number): Buffer[] {
  const content = Buffer.from(entry.content ?? "");
  const name = Buffer.from(`${entry.path}\0`);
  const [major, minor] = entry.device ?? [0, 0];
  const fields = [
    inode,
    mode,
    0, // owner
    0, // group
    entry.kind === "folder" ? 2 : 1, // links
    0, // time
    content.length,
    0, // device the file is on: major, minor
    0,
    major,
    minor,
    name.length,
    0, // checksum: none in this variant
  ];
  const header = Buffer.from(`070701${fields.map((value) => value.toString(16).padStart(8, "0")).join("")}`);
  return [padded(Buffer.concat([header, name])), padded(content)];
}

/** Header with name, and content, each end at a multiple of four bytes. */
function padded(bytes: Buffer): Buffer {
  const rest = bytes.length % 4;
  return rest === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(4 - rest)]);
}
