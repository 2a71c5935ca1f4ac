import { PACK_ID_BYTES } from "./block-ref.ts";
import type { VaultContext } from "./vault-context.ts";

/** The packs that are there, with their sizes in bytes. */
export async function listPacks(
  { storage }: Pick<VaultContext, "storage">,
  signal: AbortSignal | undefined,
): Promise<Map<string, number>> {
  const packs = new Map<string, number>();
  for await (const { name, sizeBytes } of storage.list("packs/", signal)) {
    const pack = name.slice(name.lastIndexOf("/") + 1);
    if (pack.length === PACK_ID_BYTES * 2) packs.set(pack, sizeBytes);
  }
  return packs;
}
