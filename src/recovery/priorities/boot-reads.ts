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
/** Plain, and sealed: a larger object is none of ours. */
const MOST_BYTES = 64 * 1024;
/** What is said to come from so far ahead is not believed; clocks may differ. */
const AHEAD_MS = 24 * 3_600_000;
const time = /-(\d{15})$/u;

export interface BootReads {
  /**
   * Empty when none was kept, or what was kept cannot be understood: it only says what to fetch first. Errors: those of the store.
   */
  load(volume: string, signal?: AbortSignal): Promise<readonly number[]>;
  /** Durable when it returns; nothing is written that is kept already. Errors: those of the store. */
  save(volume: string, regions: readonly number[], signal?: AbortSignal): Promise<void>;
}

interface KeptReads {
  readonly name: string;
  readonly atMs: number;
}

export function openBootReads(
  { context }: Pick<Vault, "context">,
  group: string,
  kind: "boot" | "files",
): BootReads {
  const { storage, keys, clock } = context;

  const prefixOf = (volume: string): string => `reads/${group}/${encodeVolume(volume)}/${kind}-`;

  /** Newest first. */
  async function keptOf(volume: string, signal: AbortSignal | undefined): Promise<KeptReads[]> {
    const kept: KeptReads[] = [];
    for await (const { name, sizeBytes } of storage.list(prefixOf(volume), signal)) {
      const atMs = Number(time.exec(name)?.[1] ?? Number.NaN);
      if (atMs <= clock.now() + AHEAD_MS && sizeBytes <= MOST_BYTES) kept.push({ name, atMs });
    }
    return kept.reverse();
  }

  /** Undefined: it is gone, damaged, or nothing of ours. */
  async function read(name: string, signal: AbortSignal | undefined): Promise<readonly number[] | undefined> {
    try {
      const packed = unseal(keys, sealKinds.recovery, name, await storage.get(name, undefined, signal));
      return schema.parse(JSON.parse(gunzipSync(packed, { maxOutputLength: MOST_BYTES }).toString())).regions;
    } catch (error) {
      signal?.throwIfAborted();
      const ofStore =
        isOperational(error) && !isOperational(error, "vault.damaged") && !isOperational(error, "not_found");
      if (ofStore) throw error;
      return undefined;
    }
  }

  async function newestOf(
    kept: readonly KeptReads[],
    signal: AbortSignal | undefined,
  ): Promise<readonly number[] | undefined> {
    for (const { name } of kept) {
      const regions = await read(name, signal);
      if (regions !== undefined) return regions;
    }
    return undefined;
  }

  return {
    async load(volume, signal) {
      const kept = await keptOf(volume, signal);
      const regions = await newestOf(kept, signal);
      if (regions !== undefined || kept.length === 0) return regions ?? [];
      // All that was listed may have been replaced meanwhile.
      return (await newestOf(await keptOf(volume, signal), signal)) ?? [];
    },

    async save(volume, regions, signal) {
      const before = await keptOf(volume, signal);
      const kept = await newestOf(before, signal);
      if (kept?.length === regions.length && kept.every((region, at) => region === regions[at])) return;
      const atMs = Math.max(clock.now(), (before[0]?.atMs ?? 0) + 1);
      const name = `${prefixOf(volume)}${String(atMs).padStart(15, "0")}`;
      const packed = gzipSync(JSON.stringify({ format: 1, regions }));
      await storage.put(name, [seal(keys, sealKinds.recovery, name, packed)], signal);
      try {
        for (const old of before) await storage.delete(old.name, signal);
      } catch (error) {
        if (!isOperational(error) && signal?.aborted !== true) throw error;
        // A store that keeps what it has for a while keeps these too; the next one that is written tries again.
      }
    },
  };
}
