import { type KeyObject, createCipheriv, createDecipheriv, createHmac, createSecretKey } from "node:crypto";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { type BlobKind, ID_BYTES, codecs } from "./block-ref.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

/**
 * On an ext4 image of program files in blocks of 256 KiB, bytes left and milliseconds a block: level 1 0.359 and 0.65, level 2 0.347 and
 * 0.71, level 3 0.339 and 0.88; these parameters (level 1's strategy, a table twice as large, shorter matches) 0.350 and 0.62.
 */
const parameters = {
  [constants.ZSTD_c_compressionLevel]: 1,
  [constants.ZSTD_c_strategy]: constants.ZSTD_fast,
  [constants.ZSTD_c_windowLog]: 18,
  [constants.ZSTD_c_hashLog]: 15,
  [constants.ZSTD_c_minMatch]: 5,
};
const OUTPUT_CHUNK = 128 * 1024;
export const TAG_BYTES = 16;

/** Also the least that compression must save to be worth the time that reading then takes. */
const SAVES_AT_LEAST = 1 / 32;

export interface Coded {
  readonly codec: number;
  readonly bytes: Buffer;
}

/**
 * Frees what a codec returned and nobody looks at again. Left to the collector, each 64 MiB of it would cost a full collection: a tenth of
 * a backup's processor time.
 */
export function letGo({ buffer }: Buffer): void {
  // Shorter ones are parts of Node's pool.
  if (buffer instanceof ArrayBuffer && buffer.byteLength > Buffer.poolSize) buffer.transfer(0);
}

/** The keyed id of a blob, as bytes. */
export function blobId(keys: Pick<VaultKeys, "content">, kind: BlobKind, plain: Uint8Array): Buffer {
  return createHmac("sha256", keys.content)
    .update(kindBytes[kind])
    .update(plain)
    .digest()
    .subarray(0, ID_BYTES);
}

const kindBytes: Readonly<Record<BlobKind, Buffer>> = {
  1: Buffer.from([1]),
  2: Buffer.from([2]),
  3: Buffer.from([3]),
};

export function compress(plain: Uint8Array): Coded {
  const packed = zstdCompressSync(plain, {
    // Most blocks come out in one chunk of this; larger ones would only make more garbage.
    chunkSize: Math.min(OUTPUT_CHUNK, Math.max(1024, plain.length + (plain.length >> 8) + 64)),
    pledgedSrcSize: plain.length,
    params: parameters,
  });
  if (packed.length <= plain.length * (1 - SAVES_AT_LEAST)) return { codec: codecs.zstd, bytes: packed };
  letGo(packed);
  return { codec: codecs.plain, bytes: Buffer.from(plain.buffer, plain.byteOffset, plain.byteLength) };
}

/** Takes `bytes`. `plainLength` is authenticated, so it bounds what a hostile frame may unpack to. */
export function expand(codec: number, bytes: Buffer, plainLength: number): Buffer {
  if (codec === codecs.plain) {
    if (bytes.length !== plainLength) throw new RangeError(`${bytes.length} bytes instead of ${plainLength}`);
    return bytes;
  }
  if (codec !== codecs.zstd) throw new RangeError(`codec ${codec} is unknown`);
  const plain = zstdDecompressSync(bytes, {
    chunkSize: Math.max(1024, plainLength),
    maxOutputLength: Math.max(1, plainLength),
  });
  letGo(bytes);
  if (plain.length !== plainLength) throw new RangeError(`${plain.length} bytes instead of ${plainLength}`);
  return plain;
}

export function packKey(keys: Pick<VaultKeys, "packs">, pack: Uint8Array): KeyObject {
  return createSecretKey(createHmac("sha256", keys.packs).update(pack).digest());
}

/** What a blob's tag binds besides its bytes. */
export function blobBinding(id: Uint8Array, kind: number, codec: number, plainLength: number): Buffer {
  const binding = Buffer.alloc(ID_BYTES + 6);
  binding.set(id);
  binding[ID_BYTES] = kind;
  binding[ID_BYTES + 1] = codec;
  binding.writeUInt32LE(plainLength, ID_BYTES + 2);
  return binding;
}

/** Encrypts into `target` at `offset`; returns the stored length. What is not the directory has its offset as its nonce. */
export function encryptInto(
  key: KeyObject,
  binding: Buffer,
  bytes: Uint8Array,
  target: Buffer,
  offset: number,
  nonce = offset,
): number {
  const cipher = createCipheriv("aes-256-gcm", key, nonceAt(nonce));
  cipher.setAAD(binding);
  const encrypted = cipher.update(bytes);
  target.set(encrypted, offset);
  letGo(encrypted);
  cipher.final();
  target.set(cipher.getAuthTag(), offset + bytes.length);
  return bytes.length + TAG_BYTES;
}

/** `stored` is ciphertext and tag, which stood at `offset` of its pack. Throws `vault.damaged`. */
export function decrypt(
  where: string,
  key: KeyObject,
  binding: Buffer,
  stored: Buffer,
  offset: number,
): Buffer {
  if (stored.length < TAG_BYTES) throw damaged(where, `is cut short at ${offset}`);
  const decipher = createDecipheriv("aes-256-gcm", key, nonceAt(offset));
  decipher.setAAD(binding);
  decipher.setAuthTag(stored.subarray(stored.length - TAG_BYTES));
  const plain = decipher.update(stored.subarray(0, stored.length - TAG_BYTES));
  try {
    decipher.final();
  } catch (error) {
    throw damaged(where, `fails its authentication at ${offset}`, error);
  }
  return plain;
}

/** The directory's nonce: no offset reaches it. */
export const DIRECTORY = -1;

function nonceAt(offset: number): Buffer {
  if (offset === DIRECTORY) return Buffer.alloc(12, 0xff);
  const nonce = Buffer.alloc(12);
  nonce.writeUInt32LE(offset, 0);
  return nonce;
}
