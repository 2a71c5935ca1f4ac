import { ID_BYTES, PACK_ID_BYTES } from "./block-ref.ts";
import type { PackEntry } from "./pack-format.ts";
import { damaged } from "./vault-damage.ts";

const HEAD = 12;
const ENTRY = 40;
export const MOST_INDEXED = 2 ** 18;
const mark = Buffer.from([...Buffer.from("USVI"), 1, 0, 0, 0]);

export interface IndexedPack {
  readonly pack: string;
  /** As `PackBuilder.finish` hands it out. */
  readonly directory: readonly PackEntry[];
}

export function encodeIndex(packs: readonly IndexedPack[]): Buffer {
  const entries = packs
    .flatMap(({ directory }, number) => directory.map((entry) => ({ entry, number })))
    .sort((a, b) => (a.entry.id < b.entry.id ? -1 : a.entry.id > b.entry.id ? 1 : a.number - b.number));
  const bytes = Buffer.alloc(HEAD + packs.length * PACK_ID_BYTES + 4 + entries.length * ENTRY);
  mark.copy(bytes);
  let at = bytes.writeUInt32LE(packs.length, 8);
  for (const { pack } of packs) at += bytes.write(pack, at, "hex");
  at = bytes.writeUInt32LE(entries.length, at);
  for (const { entry, number } of entries) {
    at += bytes.write(entry.id, at, "hex");
    at = bytes.writeUInt32LE(number, at);
    at = bytes.writeUInt32LE(entry.offset, at);
    at = bytes.writeUInt32LE(entry.storedLength, at);
    at = bytes.writeUInt32LE(entry.plainLength, at);
    at = bytes.writeUInt8(entry.kind, at);
    at = bytes.writeUInt8(entry.codec, at) + 2;
  }
  return bytes;
}

export interface IndexView {
  readonly packs: readonly string[];
  readonly count: number;
  /** Calls `visit` with each blob; `id` is a view that the next call overwrites nothing of, but the index holds. */
  each(visit: (id: Buffer, packNumber: number, entry: Omit<PackEntry, "id">) => void): void;
}

/** A view on the bytes; nothing is copied. Throws `vault.damaged`. */
export function decodeIndex(where: string, bytes: Buffer): IndexView {
  const wrong = (what: string): never => {
    throw damaged(where, what);
  };
  if (bytes.length < HEAD + 4 || !bytes.subarray(0, 8).equals(mark)) wrong("is not an index");
  const packCount = bytes.readUInt32LE(8);
  const countAt = HEAD + packCount * PACK_ID_BYTES;
  if (countAt + 4 > bytes.length) wrong("is cut short");
  const count = bytes.readUInt32LE(countAt);
  if (count > MOST_INDEXED || countAt + 4 + count * ENTRY !== bytes.length) wrong("has an impossible length");
  const from = countAt + 4;
  for (let n = 0; n < count; n += 1)
    if (bytes.readUInt32LE(from + n * ENTRY + ID_BYTES) >= packCount) wrong("points to no pack");
  return {
    packs: Array.from({ length: packCount }, (_, n) =>
      bytes.toString("hex", HEAD + n * PACK_ID_BYTES, HEAD + (n + 1) * PACK_ID_BYTES),
    ),
    count,
    each(visit) {
      for (let at = from; at < bytes.length; at += ENTRY) {
        visit(bytes.subarray(at, at + ID_BYTES), bytes.readUInt32LE(at + ID_BYTES), {
          offset: bytes.readUInt32LE(at + ID_BYTES + 4),
          storedLength: bytes.readUInt32LE(at + ID_BYTES + 8),
          plainLength: bytes.readUInt32LE(at + ID_BYTES + 12),
          kind: bytes.readUInt8(at + ID_BYTES + 16),
          codec: bytes.readUInt8(at + ID_BYTES + 17),
        });
      }
    },
  };
}
