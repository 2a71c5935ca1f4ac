/**
 * What is fetched first of each volume, kept beside its points in the vault, so that whoever opens the vault anywhere has it: what the last
 * start of a machine read (`boot`), and what the rules want of its files (`files`). One sealed object each, `reads/GROUP/VOLUME/KIND-TIME`,
 * which is never changed: the newest counts, and takes the older ones with it where the store lets it.
 */
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { isOperational } from "#kernel/errors.ts";
import type { Vault } from "#vault/open-vault.ts";
import { encodeVolume } from "#vault/point-manifest.ts";
import { seal, sealKinds, unseal } from "#vault/sealed-object.ts";
import { MOST_REGIONS } from "./read-trace.ts";

const schema = z.strictObject({
  format: z.literal(1),
  regions: z.array(z.int().nonnegative()).max(MOST_REGIONS),
});
const MOST_BYTES = 64 * 1024;
const time = /-(\d{15})$/u;

export interface BootReads {
  /**
   * Empty when none was kept, or what was kept cannot be understood: it only says what to fetch first. Errors: those of the store.
   */
  load(volume: string, signal?: AbortSignal): Promise<readonly number[]>;
  /** Durable when it returns; nothing is written that is kept already. Errors: those of the store. */
  save(volume: string, regions: readonly number[], signal?: AbortSignal): Promise<void>;
}

export function openBootReads(vault: Vault, group: string, kind: "boot" | "files"): BootReads {
  const { storage, keys, clock } = vault.context;

  const prefixOf = (volume: string): string => `reads/${group}/${encodeVolume(volume)}/${kind}`;

  /** In the order of time. */
  async function namesOf(volume: string, signal: AbortSignal | undefined): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of storage.list(`${prefixOf(volume)}-`, signal))
      if (time.test(name)) names.push(name);
    return names;
  }

  async function read(name: string | undefined, signal: AbortSignal | undefined): Promise<readonly number[]> {
    if (name === undefined) return [];
    try {
      const packed = unseal(keys, sealKinds.recovery, name, await storage.get(name, undefined, signal));
      return schema.parse(JSON.parse(gunzipSync(packed, { maxOutputLength: MOST_BYTES }).toString())).regions;
    } catch (error) {
      signal?.throwIfAborted();
      const ofStore =
        isOperational(error) && !isOperational(error, "vault.damaged") && !isOperational(error, "not_found");
      if (ofStore) throw error;
      return [];
    }
  }

  return {
    load: async (volume, signal) => read((await namesOf(volume, signal)).at(-1), signal),

    async save(volume, regions, signal) {
      const before = await namesOf(volume, signal);
      const newest = before.at(-1);
      const kept = await read(newest, signal);
      if (kept.length === regions.length && kept.every((region, at) => region === regions[at])) return;
      const after = Number(time.exec(newest ?? "")?.[1] ?? 0) + 1;
      const name = `${prefixOf(volume)}-${String(Math.max(clock.now(), after)).padStart(15, "0")}`;
      const packed = gzipSync(JSON.stringify({ format: 1, regions }));
      await storage.put(name, [seal(keys, sealKinds.recovery, name, packed)], signal);
      // A store that keeps what it has for a while keeps these too; the next one that is written tries again.
      for (const old of before) await storage.delete(old, signal).catch(() => {});
    },
  };
}
