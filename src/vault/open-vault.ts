import { availableParallelism } from "node:os";
import { z } from "zod";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import { type Random, systemRandom } from "#kernel/random.ts";
import { randomBytes } from "node:crypto";
import { BLOCK_BYTES, FAN_OUT } from "./block-ref.ts";
import { BlobReader } from "./blob-reader.ts";
import { BlockPool } from "./block-pool.ts";
import { decodeChecked, encodeChecked } from "./checked-document.ts";
import { KnownBlobs } from "./known-blobs.ts";
import { type CollectionOptions, type CollectionResult, collectGarbage } from "./collect-garbage.ts";
import { holdLease, readLeases } from "./leases.ts";
import { type RetentionPolicy, planRetention } from "./plan-retention.ts";
import { type ScryptCost, type VaultUnlock, unwrapMaster, wrapMaster } from "./master-key.ts";
import { movedFinder } from "./moved-blobs.ts";
import { OpenPoint, type PointReader } from "./open-point.ts";
import {
  type PointId,
  type PointManifest,
  type PointName,
  decodeManifest,
  encodeVolume,
  parsePointId,
  pointObject,
} from "./point-manifest.ts";
import {
  type RestoreOptions,
  type RestoreResult,
  type RestoreTarget,
  restoreTo,
  restoreToFile,
} from "./restore-point.ts";
import { type RepairOptions, type RepairReport, repairVault } from "./repair-vault.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import type { BlobStorage } from "./storage/blob-storage.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultContext } from "./vault-context.ts";
import { type VaultKeys, deriveKeys } from "./vault-keys.ts";
import { type VerifyOptions, type VerifyReport, verifyVault } from "./verify-vault.ts";
import { type PointRequest, writePoint } from "./write-point.ts";

export interface VaultOptions {
  readonly storage: BlobStorage;
  readonly unlock: VaultUnlock;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: Log;
  /** Worker threads that compress and encrypt; 0: in this one. Default: one for each processor, at most 4: each holds some 80 MiB. */
  readonly threads?: number;
  /** Limit of the table that finds duplicates, in slots of 32 bytes. */
  readonly mostKnownBlobs?: number;
  readonly signal?: AbortSignal;
}

export interface OpenPointOptions {
  /** `none`: nothing is written to the store; only where no garbage collection runs. Default `held`. */
  readonly lease?: "held" | "none";
  readonly signal?: AbortSignal;
}

const configSchema = z.strictObject({
  format: z.literal("understudy vault"),
  version: z.int(),
  id: z.string().regex(/^[0-9a-f]{32}$/),
  sealed: z.base64(),
});
const sealedConfig = z.strictObject({ blockBytes: z.literal(BLOCK_BYTES), fanOut: z.literal(FAN_OUT) });

/** Makes an empty vault in a store that has none, and opens it. `state.conflict` if there is one already. */
export async function initVault(options: VaultOptions & { readonly scrypt?: ScryptCost }): Promise<Vault> {
  const { storage, signal } = options;
  for (const prefix of ["config", "packs/"])
    for await (const { name } of storage.list(prefix, signal))
      throw new OperationalError(
        "state.conflict",
        `${storage.description} already holds a vault: ${name} is there`,
      );
  const master = randomBytes(32);
  const id = randomBytes(16).toString("hex");
  const keys = deriveKeys(master, id);
  const key = await wrapMaster(master, id, options.unlock, options.scrypt, signal);
  await storage.put(`keys/${randomBytes(8).toString("hex")}`, [key], signal);
  const parameters = Buffer.from(JSON.stringify({ blockBytes: BLOCK_BYTES, fanOut: FAN_OUT }));
  const sealed = seal(keys, sealKinds.config, "config", parameters).toString("base64");
  // Last: a vault with a config can be opened.
  await storage.put(
    "config",
    [encodeChecked({ format: "understudy vault", version: 1, id, sealed })],
    signal,
  );
  return new Vault(options, id, keys, master);
}

/** Opens a vault with nothing but its store and a key. `vault.key`: no key document answers to it; `not_found`: no vault is there. */
export async function openVault(options: VaultOptions): Promise<Vault> {
  const { storage, signal } = options;
  const config = await readConfig(storage, signal);
  const master = await findMaster(options, config.id);
  const keys = deriveKeys(master, config.id);
  const plain = unseal(keys, sealKinds.config, "config", Buffer.from(config.sealed, "base64"));
  const parameters = sealedConfig.safeParse(JSON.parse(plain.toString("utf8")));
  if (!parameters.success)
    throw new OperationalError(
      "store.version",
      "this vault was made with parameters that this version does not know",
    );
  return new Vault(options, config.id, keys, master);
}

async function readConfig(
  storage: BlobStorage,
  signal: AbortSignal | undefined,
): Promise<z.infer<typeof configSchema>> {
  let bytes: Buffer;
  try {
    bytes = await storage.get("config", undefined, signal);
  } catch (error) {
    if (!isOperational(error, "not_found")) throw error;
    throw new OperationalError("not_found", `${storage.description} holds no vault`, { cause: error });
  }
  const parsed = configSchema.safeParse(decodeChecked("config", bytes));
  if (!parsed.success) throw damaged("config", "is not a vault's", parsed.error);
  if (parsed.data.version !== 1)
    throw new OperationalError(
      "store.version",
      `the vault has format ${parsed.data.version}; this version reads 1`,
    );
  return parsed.data;
}

async function findMaster({ storage, unlock, signal }: VaultOptions, vaultId: string): Promise<Buffer> {
  const broken: unknown[] = [];
  let seen = 0;
  for await (const { name } of storage.list("keys/", signal)) {
    seen += 1;
    try {
      const master = await unwrapMaster(
        name,
        await storage.get(name, undefined, signal),
        vaultId,
        unlock,
        signal,
      );
      if (master !== undefined) return master;
    } catch (error) {
      if (!isOperational(error, "vault.damaged")) throw error;
      broken.push(error);
    }
  }
  // A damaged key may be the right one: then "wrong passphrase" would be a wrong answer.
  if (broken.length > 0) throw broken[0];
  if (seen === 0) throw damaged("keys/", "holds no key");
  throw new OperationalError(
    "vault.key",
    "the vault's key does not open it: another passphrase or key service was used",
  );
}

/** An open vault. Writing is one point at a time; reading is side by side. */
export class Vault implements AsyncDisposable {
  readonly id: string;
  /** For the parts of the vault that stand in files of their own: verify, repair, collection, the write log. */
  readonly context: VaultContext;
  readonly known: KnownBlobs;
  readonly #threads: number;
  readonly #master: Buffer;
  #pool: BlockPool | undefined;
  /** Those before it, whose threads are being ended. */
  #broken: Promise<void>[] = [];
  #line: Promise<unknown> = Promise.resolve();

  constructor(options: VaultOptions, id: string, keys: VaultKeys, master: Buffer) {
    const { storage } = options;
    this.id = id;
    this.#master = master;
    this.#threads = options.threads ?? Math.min(4, availableParallelism());
    this.context = {
      storage,
      keys,
      blobs: new BlobReader(storage, keys, movedFinder(storage, keys)),
      clock: options.clock ?? systemClock,
      random: options.random ?? systemRandom,
      log: options.log ?? silentLog,
    };
    this.known = new KnownBlobs(this.context, options.mostKnownBlobs);
  }

  /** A further passphrase or key service that opens this vault. Returns the key document's name. */
  async addKey(unlock: VaultUnlock, scrypt?: ScryptCost, signal?: AbortSignal): Promise<string> {
    const name = `keys/${randomBytes(8).toString("hex")}`;
    await this.context.storage.put(
      name,
      [await wrapMaster(this.#master, this.id, unlock, scrypt, signal)],
      signal,
    );
    return name;
  }

  /** Durable and listed when it returns. */
  async writePoint(request: PointRequest): Promise<PointManifest> {
    return this.inTurn(() => writePoint(this.context, this.pool(), this.known, request), request.signal);
  }

  /** By time, from names alone; `pointFacts` says more about one. */
  async listPoints(volumeId?: string, signal?: AbortSignal): Promise<PointName[]> {
    const prefix = volumeId === undefined ? "points/" : `points/${encodeVolume(volumeId)}/`;
    const points: PointName[] = [];
    for await (const { name } of this.context.storage.list(prefix, signal)) {
      const point = parsePointId(name.slice("points/".length));
      if (point !== undefined) points.push(point);
    }
    return points.sort((a, b) => a.timeMs - b.timeMs);
  }

  async pointFacts(id: PointId, signal?: AbortSignal): Promise<PointManifest> {
    const bytes = await this.context.storage.get(pointObject(id), undefined, signal);
    return decodeManifest(this.context.keys, id, bytes);
  }

  /** Costs the manifest and a lease, whatever the history and the disk's size. Dispose of it to end the lease. */
  async openPoint(id: PointId, options: OpenPointOptions = {}): Promise<PointReader> {
    return this.#open(id, options);
  }

  async #open(id: PointId, options: OpenPointOptions): Promise<OpenPoint> {
    const { signal } = options;
    // The lease first: from then on no collector takes what the manifest names.
    const lease = options.lease === "none" ? undefined : await holdLease(this.context, "read", id, signal);
    try {
      return new OpenPoint(this.context.blobs, await this.pointFacts(id, signal), lease);
    } catch (error) {
      await lease?.release();
      throw error;
    }
  }

  /** Restores a point to a file, made anew and sparse. */
  async restoreToFile(
    id: PointId,
    path: string,
    options: RestoreOptions & OpenPointOptions = {},
  ): Promise<RestoreResult> {
    return this.inTurn(async () => {
      await using point = await this.#open(id, options);
      return restoreToFile(this.context, this.pool(), point, path, options);
    }, options.signal);
  }

  /** Restores a point to whatever takes writes; it must read as zeroes before. */
  async restoreTo(
    id: PointId,
    target: RestoreTarget,
    options: RestoreOptions & OpenPointOptions = {},
  ): Promise<RestoreResult> {
    await using point = await this.#open(id, options);
    return restoreTo(this.context, this.pool(), point, target, options);
  }

  /**
   * Removes the point from the list. Its space comes back by garbage collection. A point that someone reads is refused
   * with `state.conflict`; so is one with a lease that died with its holder, until it expires.
   */
  async deletePoint(id: PointId, signal?: AbortSignal): Promise<void> {
    const leases = await readLeases(this.context, signal);
    if (leases.some((lease) => lease.kind === "read" && lease.subject === id))
      throw new OperationalError(
        "state.conflict",
        `the point ${id} is being read: try again when that has ended`,
      );
    await this.context.storage.delete(pointObject(id), signal);
  }

  /** Deletes the points of a volume that the policy does not keep; those that are being read stay for another time. */
  async applyRetention(
    volumeId: string,
    policy: RetentionPolicy,
    signal?: AbortSignal,
  ): Promise<{ readonly deleted: readonly PointId[]; readonly inUse: readonly PointId[] }> {
    const plan = planRetention(await this.listPoints(volumeId, signal), policy, this.context.clock.now());
    const [deleted, inUse]: [PointId[], PointId[]] = [[], []];
    for (const { id } of plan.remove) {
      try {
        await this.deletePoint(id, signal);
        deleted.push(id);
      } catch (error) {
        if (!isOperational(error, "state.conflict")) throw error;
        inUse.push(id);
      }
    }
    return { deleted, inUse };
  }

  /** Reads the vault and says what is wrong, and what it costs. */
  async verify(options: VerifyOptions): Promise<VerifyReport> {
    return verifyVault(this.context, options);
  }

  /** Verifies in full and mends what can be mended. */
  async repair(options: RepairOptions = {}): Promise<RepairReport> {
    return this.inTurn(() => repairVault(this.context, options), options.signal);
  }

  /** One run of garbage collection: deletes what an earlier run condemned, and condemns what nothing needs now. */
  async collectGarbage(options: CollectionOptions = {}): Promise<CollectionResult> {
    return this.inTurn(() => collectGarbage(this.context, options), options.signal);
  }

  /** The threads, begun when they are first needed, and anew after one of them has ended: out of memory, it may have been. */
  pool(): BlockPool {
    if (this.#pool?.isBroken === true) {
      this.#broken.push(this.#pool.close());
      this.#pool = undefined;
    }
    this.#pool ??= new BlockPool(this.context.keys, this.#threads);
    return this.#pool;
  }

  /** Runs what writes, one after another. */
  async inTurn<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    const before = this.#line;
    const mine = (async () => {
      await before.catch(() => {});
      signal?.throwIfAborted();
      return work();
    })();
    this.#line = mine.catch(() => {});
    return mine;
  }

  /** Ends the threads. The store is the caller's to close. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#line;
    await this.#pool?.close();
    this.#pool = undefined;
    await Promise.all(this.#broken);
  }
}
