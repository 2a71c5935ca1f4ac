import { createCipheriv, createDecipheriv, createHmac, randomBytes } from "node:crypto";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

export const sealKinds = {
  config: 1,
  index: 2,
  point: 3,
  lease: 4,
  condemned: 5,
  moved: 6,
  recovery: 7,
  intake: 8,
} as const;
export type SealKind = (typeof sealKinds)[keyof typeof sealKinds];

const HEAD = 8;
const SALT = 32;
const TAG = 16;
const noNonce = Buffer.alloc(12);

const headOf = (kind: SealKind): Buffer => Buffer.from([...Buffer.from("USVO"), 1, kind, 0, 0]);

/** Encrypts a small object under a key of its own; `name` is bound in, so that it cannot stand in for another object. */
export function seal(
  keys: Pick<VaultKeys, "objects">,
  kind: SealKind,
  name: string,
  plain: Uint8Array,
): Buffer {
  const head = headOf(kind);
  const salt = randomBytes(SALT);
  const cipher = createCipheriv("aes-256-gcm", keyFor(keys, salt, name), noNonce);
  cipher.setAAD(head);
  const body = cipher.update(plain);
  cipher.final();
  return Buffer.concat([head, salt, body, cipher.getAuthTag()]);
}

/** Throws `vault.damaged` for whatever is not exactly what `seal` made under this name. */
export function unseal(
  keys: Pick<VaultKeys, "objects">,
  kind: SealKind,
  name: string,
  bytes: Buffer,
): Buffer {
  const head = headOf(kind);
  if (bytes.length < HEAD + SALT + TAG) throw damaged(name, "is cut short");
  if (!bytes.subarray(0, HEAD).equals(head)) throw damaged(name, "does not begin as it should");
  const salt = bytes.subarray(HEAD, HEAD + SALT);
  const decipher = createDecipheriv("aes-256-gcm", keyFor(keys, salt, name), noNonce);
  decipher.setAAD(head);
  decipher.setAuthTag(bytes.subarray(bytes.length - TAG));
  const plain = decipher.update(bytes.subarray(HEAD + SALT, bytes.length - TAG));
  try {
    decipher.final();
  } catch (error) {
    throw damaged(name, "fails its authentication", error);
  }
  return plain;
}

function keyFor(keys: Pick<VaultKeys, "objects">, salt: Buffer, name: string): Buffer {
  return createHmac("sha256", keys.objects).update(salt).update(name).digest();
}
