import {
  BLOCK_BYTES,
  type BlobRef,
  FAN_OUT,
  ID_BYTES,
  type MapEntry,
  PACK_ID_BYTES,
  hole,
  zero,
} from "./block-ref.ts";
import { isCodec } from "./pack-format.ts";
import { damaged } from "./vault-damage.ts";

const HEAD = 12;
const REF = 36;
const kindNumbers = { hole: 0, zero: 1, blob: 2, patched: 3 } as const;
const mark = Buffer.from("USVN");

/** Bytes of disk below one entry of a node of this level; a leaf is level 0. */
export function entrySpan(level: number): number {
  return BLOCK_BYTES * FAN_OUT ** level;
}

/** The level of the root of a disk: the least whose node covers it. */
export function rootLevel(sizeBytes: number): number {
  let level = 0;
  while (entrySpan(level + 1) < sizeBytes) level += 1;
  return level;
}

/** How many entries the node `index` of `level` has in a disk of this size: all but the last of a level have `FAN_OUT`. */
export function entriesIn(sizeBytes: number, level: number, index: number): number {
  const first = index * FAN_OUT;
  return Math.max(0, Math.min(FAN_OUT, Math.ceil(sizeBytes / entrySpan(level)) - first));
}

/** `hole` or `zero` if every entry is that; then the node need not be stored. */
export function uniform(entries: readonly MapEntry[]): MapEntry | undefined {
  if (entries.every((entry) => entry.kind === "hole")) return hole;
  if (entries.every((entry) => entry.kind === "zero")) return zero;
  return undefined;
}

/** The plain bytes of a node; what a node holds decides them fully, so that equal nodes have equal ids. */
export function encodeNode(level: number, entries: readonly MapEntry[]): Buffer {
  const packs = new Map<string, number>();
  const packNumber = (pack: string): number => {
    const known = packs.get(pack);
    if (known !== undefined) return known;
    packs.set(pack, packs.size);
    return packs.size - 1;
  };
  for (const entry of entries) {
    if (entry.kind === "blob" || entry.kind === "patched") packNumber(entry.ref.pack);
    if (entry.kind === "patched") packNumber(entry.patch.bundle.pack);
  }
  const refs = entries.reduce(
    (sum, entry) => sum + (entry.kind === "blob" ? REF : entry.kind === "patched" ? 2 * REF + 8 : 0),
    0,
  );
  const node = Buffer.alloc(HEAD + packs.size * PACK_ID_BYTES + entries.length + refs);
  mark.copy(node);
  node.writeUInt8(1, 4);
  node.writeUInt8(level, 5);
  node.writeUInt16LE(entries.length, 6);
  node.writeUInt16LE(packs.size, 8);
  let at = HEAD;
  for (const pack of packs.keys()) at += node.write(pack, at, "hex");
  for (const entry of entries) at = node.writeUInt8(kindNumbers[entry.kind], at);
  const writeRef = (ref: BlobRef): void => {
    at += node.write(ref.id, at, "hex");
    at = node.writeUInt16LE(packNumber(ref.pack), at);
    at = node.writeUInt8(ref.codec, at) + 1;
    at = node.writeUInt32LE(ref.offset, at);
    at = node.writeUInt32LE(ref.storedLength, at);
    at = node.writeUInt32LE(ref.plainLength, at);
  };
  for (const entry of entries) {
    if (entry.kind === "blob" || entry.kind === "patched") writeRef(entry.ref);
    if (entry.kind === "patched") {
      writeRef(entry.patch.bundle);
      at = node.writeUInt32LE(entry.patch.offset, at);
      at = node.writeUInt32LE(entry.patch.length, at);
    }
  }
  return node;
}

/** Throws `vault.damaged` for whatever `encodeNode` would not have made at this level. */
export function decodeNode(where: string, level: number, node: Buffer): MapEntry[] {
  const wrong = (what: string): never => {
    throw damaged(where, `holds a map node that ${what}`);
  };
  if (node.length < HEAD || !node.subarray(0, 4).equals(mark) || node[4] !== 1)
    wrong("does not begin as one");
  if (node[5] !== level) wrong("is of another level");
  const count = node.readUInt16LE(6);
  const packCount = node.readUInt16LE(8);
  if (count === 0 || count > FAN_OUT || packCount > 2 * FAN_OUT) wrong("has an impossible size");
  const kindsAt = HEAD + packCount * PACK_ID_BYTES;
  if (node.length < kindsAt + count) wrong("is cut short");
  const packs = Array.from({ length: packCount }, (_, n) =>
    node.toString("hex", HEAD + n * PACK_ID_BYTES, HEAD + (n + 1) * PACK_ID_BYTES),
  );
  let at = kindsAt + count;
  const need = (bytes: number): void => {
    if (node.length < at + bytes) wrong("is cut short");
  };
  const readRef = (): BlobRef => {
    need(REF);
    const pack = packs[node.readUInt16LE(at + ID_BYTES)];
    const codec = node.readUInt8(at + ID_BYTES + 2);
    if (pack === undefined || !isCodec(codec)) return wrong("points nowhere");
    const ref = {
      id: node.toString("hex", at, at + ID_BYTES),
      pack,
      codec,
      offset: node.readUInt32LE(at + ID_BYTES + 4),
      storedLength: node.readUInt32LE(at + ID_BYTES + 8),
      plainLength: node.readUInt32LE(at + ID_BYTES + 12),
    };
    if (ref.plainLength > 4 * BLOCK_BYTES || ref.storedLength > ref.plainLength + 16)
      wrong("points to too much");
    at += REF;
    return ref;
  };
  const entries: MapEntry[] = [];
  for (let n = 0; n < count; n += 1) {
    const kind = node.readUInt8(kindsAt + n);
    if (kind === kindNumbers.hole) entries.push(hole);
    else if (kind === kindNumbers.zero) entries.push(zero);
    else if (kind === kindNumbers.blob) entries.push({ kind: "blob", ref: readRef() });
    else if (kind === kindNumbers.patched && level === 0) {
      const ref = readRef();
      const bundle = readRef();
      need(8);
      const patch = { bundle, offset: node.readUInt32LE(at), length: node.readUInt32LE(at + 4) };
      at += 8;
      if (patch.offset + patch.length > bundle.plainLength) wrong("points outside a bundle");
      entries.push({ kind: "patched", ref, patch });
    } else wrong("has an entry of no known kind");
  }
  if (at !== node.length) wrong("is longer than its entries");
  return entries;
}
