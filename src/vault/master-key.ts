import { createCipheriv, createDecipheriv, randomBytes, scrypt } from "node:crypto";
import { z } from "zod";
import { OperationalError } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import { decodeChecked, encodeChecked } from "./checked-document.ts";
import { damaged } from "./vault-damage.ts";

/** A key service that wraps the master key, e.g. a cloud's KMS or an HSM. It sees the key; the vault stores what it returns. */
export interface KeyService {
  /** Names the wrapping key, without secrets; kept in the key document. */
  readonly name: string;
  wrap(key: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
  /** Throws `vault.key` when it will not. */
  unwrap(wrapped: Uint8Array, signal?: AbortSignal): Promise<Uint8Array>;
}

export type VaultUnlock = { readonly passphrase: Secret } | { readonly keyService: KeyService };

export interface ScryptCost {
  readonly N: number;
  readonly r: number;
  readonly p: number;
}

/** 64 MiB and about 0.1 s: RFC 7914 leaves the choice to the user; OWASP's password storage sheet asks for 2^16 or more with r = 8. */
const defaultScrypt: ScryptCost = { N: 2 ** 16, r: 8, p: 1 };
/** A hostile store must not be able to ask for all memory: 128 N r bytes. */
const mostMemory = 1024 ** 3 + 65_536;

const base64 = z.base64().max(65_536);
const keyDocument = z.discriminatedUnion("kdf", [
  z.strictObject({
    version: z.literal(1),
    kdf: z.literal("scrypt"),
    N: z
      .int()
      .min(2)
      .max(2 ** 20),
    r: z.int().min(1).max(32),
    p: z.int().min(1).max(16),
    salt: base64,
    wrapped: base64,
  }),
  z.strictObject({
    version: z.literal(1),
    kdf: z.literal("kms"),
    service: z.string().max(512),
    wrapped: base64,
  }),
]);

/** The bytes of a key document for this way to unlock. */
export async function wrapMaster(
  master: Buffer,
  vaultId: string,
  unlock: VaultUnlock,
  cost: ScryptCost = defaultScrypt,
  signal?: AbortSignal,
): Promise<Buffer> {
  if ("keyService" in unlock) {
    const wrapped = Buffer.from(await unlock.keyService.wrap(master, signal)).toString("base64");
    return encodeChecked({ version: 1, kdf: "kms", service: unlock.keyService.name, wrapped });
  }
  const salt = randomBytes(32);
  const cipher = createCipheriv(
    "aes-256-gcm",
    await stretch(unlock.passphrase, salt, cost),
    salt.subarray(0, 12),
  );
  cipher.setAAD(binding(vaultId));
  const body = Buffer.concat([cipher.update(master), cipher.final(), cipher.getAuthTag()]);
  return encodeChecked({
    version: 1,
    kdf: "scrypt",
    ...cost,
    salt: salt.toString("base64"),
    wrapped: body.toString("base64"),
  });
}

/** The master key, or undefined if this document is for another passphrase or service. Throws `vault.damaged`. */
export async function unwrapMaster(
  name: string,
  bytes: Buffer,
  vaultId: string,
  unlock: VaultUnlock,
  signal?: AbortSignal,
): Promise<Buffer | undefined> {
  const parsed = keyDocument.safeParse(decodeChecked(name, bytes));
  if (!parsed.success) throw damaged(name, "is not a key document", parsed.error);
  const document = parsed.data;
  const wrapped = Buffer.from(document.wrapped, "base64");
  if ("keyService" in unlock) {
    if (document.kdf !== "kms" || document.service !== unlock.keyService.name) return undefined;
    return Buffer.from(await unlock.keyService.unwrap(wrapped, signal));
  }
  if (document.kdf !== "scrypt") return undefined;
  const salt = Buffer.from(document.salt, "base64");
  if (salt.length !== 32 || wrapped.length !== 48 || (document.N & (document.N - 1)) !== 0)
    throw damaged(name, "is not a key document");
  const key = await stretch(unlock.passphrase, salt, document);
  const decipher = createDecipheriv("aes-256-gcm", key, salt.subarray(0, 12));
  decipher.setAAD(binding(vaultId));
  decipher.setAuthTag(wrapped.subarray(32));
  const master = decipher.update(wrapped.subarray(0, 32));
  try {
    decipher.final();
    return master;
  } catch {
    return undefined;
  }
}

const binding = (vaultId: string): Buffer => Buffer.from(`understudy vault 1 key ${vaultId}`);

function stretch(passphrase: Secret, salt: Buffer, { N, r, p }: ScryptCost): Promise<Buffer> {
  if (128 * N * r > mostMemory)
    throw new OperationalError("vault.key", "a key document asks for more than 1 GiB of memory");
  return new Promise((resolve, reject) => {
    const text = passphrase.reveal().normalize("NFKC");
    scrypt(text, salt, 32, { N, r, p, maxmem: 128 * N * r + 1024 * 1024 }, (error, key) => {
      if (error === null) resolve(key);
      else reject(error);
    });
  });
}
