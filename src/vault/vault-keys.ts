import { hkdfSync } from "node:crypto";

/** The keys for each use, derived from the master key (docs/spec/vault.md, section 2). Raw bytes: never log them. */
export interface VaultKeys {
  readonly content: Buffer;
  readonly packs: Buffer;
  readonly objects: Buffer;
  /** For the write log, which derives its own from it. */
  readonly log: Buffer;
}

export function deriveKeys(master: Uint8Array, vaultId: string): VaultKeys {
  const derive = (use: string): Buffer =>
    Buffer.from(hkdfSync("sha256", master, Buffer.from(vaultId), `understudy vault 1 ${use}`, 32));
  return {
    content: derive("content"),
    packs: derive("packs"),
    objects: derive("objects"),
    log: derive("log"),
  };
}
