import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { BlobReader } from "./blob-reader.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import type { VaultKeys } from "./vault-keys.ts";

/** What every part of an open vault works with. */
export interface VaultContext {
  readonly storage: BlobStorage;
  readonly keys: VaultKeys;
  readonly blobs: BlobReader;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}
