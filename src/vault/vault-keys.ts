import { type KeyObject, createSecretKey, hkdfSync } from "node:crypto";

/**
 * The keys for each use, derived from the master key (docs/spec/vault.md, section 2). Key objects: nothing prints what is in them, and
 * Node begins a cipher or an HMAC in a seventh of the time that raw bytes cost it.
 */
export interface VaultKeys {
  readonly content: KeyObject;
  readonly packs: KeyObject;
  readonly objects: KeyObject;
  /** For the write log, which derives its own from it. Raw bytes: never log them. */
  readonly log: Buffer;
}

/** What reads and writes blobs needs. */
export type BlobKeys = Pick<VaultKeys, "content" | "packs">;

export function deriveKeys(master: Uint8Array, vaultId: string): VaultKeys {
  const derive = (use: string): Buffer =>
    Buffer.from(hkdfSync("sha256", master, Buffer.from(vaultId), `understudy vault 1 ${use}`, 32));
  return {
    content: createSecretKey(derive("content")),
    packs: createSecretKey(derive("packs")),
    objects: createSecretKey(derive("objects")),
    log: derive("log"),
  };
}
