import type { Clock } from "#kernel/clock.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlockReader, Extent } from "#model/block-device.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import { type Vault, initVault, openVault } from "./open-vault.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";

/** Cheap: the tests are not about guessing. */
const scrypt = { N: 2, r: 1, p: 1 };
export const passphrase = (text = "correct horse"): { passphrase: Secret } => ({
  passphrase: new Secret(text),
});

export function newVault(
  storage: BlobStorage,
  more: { threads?: number; clock?: Clock } = {},
): Promise<Vault> {
  return initVault({ storage, unlock: passphrase(), scrypt, threads: 0, ...more });
}

export function reopen(storage: BlobStorage, more: { threads?: number; clock?: Clock } = {}): Promise<Vault> {
  return openVault({ storage, unlock: passphrase(), threads: 0, ...more });
}

export interface MemoryDisk extends BlockReader {
  readonly bytes: Buffer;
  /** Bytes that were read from it. */
  readonly readBytes: number;
}

/** A disk in memory. Holes are blocks that are zero and were never marked written. */
export function memoryDisk(bytes: Buffer, holes: readonly Extent[] = []): MemoryDisk {
  let readBytes = 0;
  return {
    bytes,
    sizeBytes: bytes.length,
    get readBytes() {
      return readBytes;
    },
    async read(offset, length) {
      readBytes += length;
      return Buffer.from(bytes.subarray(offset, offset + length));
    },
    async extents(offset, length) {
      const cuts = new Set([offset, offset + length]);
      for (const one of holes)
        for (const at of [one.offset, one.offset + one.length])
          if (at > offset && at < offset + length) cuts.add(at);
      const sorted = [...cuts].sort((a, b) => a - b);
      return sorted.slice(0, -1).map((from, n) => {
        const kind =
          holes.find((one) => one.offset <= from && from < one.offset + one.length)?.kind ?? "data";
        return { offset: from, length: (sorted[n + 1] as number) - from, kind };
      });
    },
    async [Symbol.asyncDispose]() {},
  };
}

/** Bytes that compress, differ by seed, and are the same in every run. */
export function text(seed: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = (seed * 2_654_435_761 + 12_345) >>> 0;
  for (let at = 0; at < length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    bytes.writeUInt8(state >>> 24, at);
  }
  return bytes;
}

export async function readWhole(reader: BlockReader, step = BLOCK_BYTES * 3 + 17): Promise<Buffer> {
  const parts: Buffer[] = [];
  for (let at = 0; at < reader.sizeBytes; at += step)
    parts.push(await reader.read(at, Math.min(step, reader.sizeBytes - at)));
  return Buffer.concat(parts);
}

export interface ManualClock extends Clock {
  advance(ms: number): void;
}

/** Time that a test moves by hand. */
export function manualClock(start = 1_750_000_000_000): ManualClock {
  let now = start;
  const sleepers = new Set<{ readonly at: number; readonly wake: () => void }>();
  return {
    now: () => now,
    monotonicMs: () => now,
    advance(ms) {
      now += ms;
      for (const sleeper of sleepers)
        if (sleeper.at <= now) {
          sleepers.delete(sleeper);
          sleeper.wake();
        }
    },
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        const sleeper = { at: now + ms, wake: resolve };
        sleepers.add(sleeper);
        signal?.addEventListener("abort", () => {
          sleepers.delete(sleeper);
          reject(signal.reason as Error);
        });
      }),
  };
}
