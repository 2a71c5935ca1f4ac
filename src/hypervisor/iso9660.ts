/**
 * A read-only ISO 9660 image (ECMA-119) of a few small files in one folder: how a cloud hands user data to cloud-init's
 * NoCloud source (volume label `cidata`). File names are written as they are, in lower case and with a hyphen, which the
 * standard does not allow and Linux and cloud-init read.
 */
import { invariant } from "#kernel/invariant.ts";

const SECTOR = 2048;
const FIRST_SECTOR = 16;
const PATH_TABLE_SECTOR = 18;
const ROOT_SECTOR = 20;
const FILES_SECTOR = 21;

/** The same files give the same bytes. Names: at most 28 characters, unlike in upper case. */
export function encodeIso9660(label: string, files: Readonly<Record<string, Uint8Array | string>>): Buffer {
  const names = Object.keys(files).sort();
  const placed: { record: Buffer; content: Buffer }[] = [];
  let sector = FILES_SECTOR;
  for (const name of names) {
    invariant(/^[A-Za-z0-9._-]{1,28}$/.test(name), `${name} is no name for a seed file`);
    const content = Buffer.from(files[name] ?? "");
    placed.push({ record: folderRecord(Buffer.from(`${name};1`), sector, content.length, 0), content });
    sector += Math.max(1, Math.ceil(content.length / SECTOR));
  }
  const root = Buffer.concat([
    folderRecord(Buffer.from([0]), ROOT_SECTOR, SECTOR, 2),
    folderRecord(Buffer.from([1]), ROOT_SECTOR, SECTOR, 2),
    ...placed.map(({ record }) => record),
  ]);
  invariant(root.length <= SECTOR, "a seed disk holds few files");
  const image = Buffer.alloc(sector * SECTOR);
  primaryDescriptor(label, sector).copy(image, FIRST_SECTOR * SECTOR);
  image.write("\xffCD001\x01", (FIRST_SECTOR + 1) * SECTOR, "latin1");
  pathTable(false).copy(image, PATH_TABLE_SECTOR * SECTOR);
  pathTable(true).copy(image, (PATH_TABLE_SECTOR + 1) * SECTOR);
  root.copy(image, ROOT_SECTOR * SECTOR);
  let at = FILES_SECTOR;
  for (const { content } of placed) {
    content.copy(image, at * SECTOR);
    at += Math.max(1, Math.ceil(content.length / SECTOR));
  }
  return image;
}

function primaryDescriptor(label: string, sectors: number): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  bytes.write("\x01CD001\x01", 0, "latin1");
  // Text fields are filled with spaces: system and volume id; then set, publisher, preparer, application, three file ids.
  bytes.fill(" ", 8, 72);
  bytes.write(label, 40, 32, "latin1");
  bothEndian32(bytes, 80, sectors);
  bothEndian16(bytes, 120, 1);
  bothEndian16(bytes, 124, 1);
  bothEndian16(bytes, 128, SECTOR);
  bothEndian32(bytes, 132, 10);
  bytes.writeUInt32LE(PATH_TABLE_SECTOR, 140);
  bytes.writeUInt32BE(PATH_TABLE_SECTOR + 1, 148);
  folderRecord(Buffer.from([0]), ROOT_SECTOR, SECTOR, 2).copy(bytes, 156);
  bytes.fill(" ", 190, 813);
  for (const at of [813, 830, 847, 864]) bytes.write("0000000000000000\0", at, "latin1");
  bytes[881] = 1;
  return bytes;
}

/** One record: the root. */
function pathTable(bigEndian: boolean): Buffer {
  const bytes = Buffer.alloc(10);
  bytes[0] = 1;
  if (bigEndian) bytes.writeUInt32BE(ROOT_SECTOR, 2);
  else bytes.writeUInt32LE(ROOT_SECTOR, 2);
  if (bigEndian) bytes.writeUInt16BE(1, 6);
  else bytes.writeUInt16LE(1, 6);
  return bytes;
}

function folderRecord(identifier: Buffer, sector: number, sizeBytes: number, flags: number): Buffer {
  const length = 33 + identifier.length + ((identifier.length + 1) % 2);
  const bytes = Buffer.alloc(length);
  bytes[0] = length;
  bothEndian32(bytes, 2, sector);
  bothEndian32(bytes, 10, sizeBytes);
  // 1 January 1980, UTC: any time will do, as long as it is the same.
  Buffer.from([80, 1, 1, 0, 0, 0, 0]).copy(bytes, 18);
  bytes[25] = flags;
  bothEndian16(bytes, 28, 1);
  bytes[32] = identifier.length;
  identifier.copy(bytes, 33);
  return bytes;
}

function bothEndian16(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt16LE(value, at);
  bytes.writeUInt16BE(value, at + 2);
}

function bothEndian32(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value, at);
  bytes.writeUInt32BE(value, at + 4);
}
