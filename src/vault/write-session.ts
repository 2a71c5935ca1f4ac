import { OperationalError } from "#kernel/errors.ts";
import { SESSION_BYTES, type MapEntry, blobKinds, packName } from "./block-ref.ts";
import type { BlockPool } from "./block-pool.ts";
import { BlockWork, type FinishedPack, RESULT_BYTES, found, resultAt } from "./block-work.ts";
import { type IndexedPack, encodeIndex } from "./index-object.ts";
import type { KnownBlobs } from "./known-blobs.ts";
import { decodeDirectory } from "./pack-format.ts";
import { seal, sealKinds } from "./sealed-object.ts";
import { UploadQueue } from "./upload-queue.ts";
import type { VaultContext } from "./vault-context.ts";

/** Packs on their way to the store, each 16 MiB. */
const UPLOADS = 4;
/** Blobs that wait for an index object; one is written when there are more. */
const INDEX_BATCH = 65_536;

/**
 * Takes blobs, packs them, puts packs and index objects. Everything that it gave references to is durable when `finish` returns.
 * One at a time for each open vault.
 */
export class WriteSession {
  readonly id: string;
  readonly #context: VaultContext;
  readonly #pool: BlockPool;
  readonly #known: KnownBlobs;
  readonly #work: BlockWork;
  readonly #uploads = new UploadQueue(UPLOADS);
  readonly #signal: AbortSignal | undefined;
  #indexed: IndexedPack[] = [];
  #indexedBlobs = 0;
  #indexNumber = 0;
  storedBytes = 0;
  newBytes = 0;

  private constructor(
    context: VaultContext,
    pool: BlockPool,
    known: KnownBlobs,
    id: string,
    signal: AbortSignal | undefined,
  ) {
    this.#context = context;
    this.#pool = pool;
    this.#known = known;
    this.#signal = signal;
    this.id = id;
    this.#work = new BlockWork(context.keys, (pack) =>
      this.#upload(pack, () => this.#work.recycle(pack.buffer)),
    );
  }

  /** The caller holds a write lease for `id`, and has refreshed `known` under it. */
  static async begin(
    context: VaultContext,
    pool: BlockPool,
    known: KnownBlobs,
    id: string,
    localPath: string | undefined,
    signal: AbortSignal | undefined,
  ): Promise<WriteSession> {
    const session = new WriteSession(context, pool, known, id, signal);
    const start = {
      session: Buffer.from(id, "hex"),
      table: known.table.memory,
      firstPack: known.numbers.begin(Buffer.from(id, "hex")),
      localPath,
    };
    session.#work.start({ ...start, localPath: undefined });
    await pool.start(start, (pack, recycle) => session.#upload(pack, recycle));
    return session;
  }

  /** Resolves when another task may be begun; throws what an upload threw. */
  async room(): Promise<void> {
    await this.#uploads.room();
  }

  get needsGrowth(): boolean {
    return this.#known.table.isFull;
  }

  /** No task may be under way. */
  async grow(): Promise<void> {
    if (!this.#known.growIfFull()) return;
    this.#work.useTable(this.#known.table.memory);
    await this.#pool.useTable(this.#known.table.memory);
  }

  /** The entry that a result of the threads stands for. */
  entry(results: Uint8Array, n: number): MapEntry {
    const result = resultAt(results, n);
    if (result.what === found.zero) return { kind: "zero" };
    if (result.what === found.stored) this.newBytes += result.plainLength;
    const { codec, offset, storedLength, plainLength } = result;
    const pack = this.#known.numbers.idOf(result.pack);
    return {
      kind: "blob",
      ref: { id: result.id.toString("hex"), pack, codec, offset, storedLength, plainLength },
    };
  }

  storeNode(node: Buffer): MapEntry {
    const result = Buffer.alloc(RESULT_BYTES);
    this.#work.store(blobKinds.node, node, result, 0);
    return this.entry(result, 0);
  }

  /** Packs, then index: when it returns, all is durable. */
  async finish(): Promise<void> {
    this.#work.finishPack();
    await this.#pool.finish();
    await this.#uploads.settled();
    await this.#putIndex();
  }

  /** Lets go of threads and buffers, whatever came before. */
  async end(): Promise<void> {
    await this.#uploads.settled().catch(() => {});
    this.#work.end();
    await this.#pool.end();
    this.#known.numbers.end(this.#known.table.nextPackNumber);
  }

  #upload(pack: FinishedPack, recycle: () => void): void {
    const id = this.#known.numbers.idOf(pack.number);
    this.#uploads.add(async () => {
      this.#signal?.throwIfAborted();
      const bytes = pack.buffer.subarray(0, pack.length);
      const name = packName(id);
      const put = await this.#context.storage.put(name, [bytes], this.#signal);
      // Only a second drawing of 128 random bits, or a process that was copied while it ran.
      if (put === "present") throw new OperationalError("state.conflict", `${name} was there before`);
      recycle();
      this.storedBytes += pack.length;
      const directory = decodeDirectory(name, Buffer.from(pack.directory));
      this.#indexed.push({ pack: id, directory });
      this.#indexedBlobs += directory.length;
      if (this.#indexedBlobs >= INDEX_BATCH) await this.#putIndex();
    });
  }

  async #putIndex(): Promise<void> {
    if (this.#indexed.length === 0) return;
    const packs = this.#indexed;
    this.#indexed = [];
    this.#indexedBlobs = 0;
    const name = `index/${this.id}-${this.#indexNumber}`;
    this.#indexNumber += 1;
    const sealed = seal(this.#context.keys, sealKinds.index, name, encodeIndex(packs));
    await this.#context.storage.put(name, [sealed], this.#signal);
    this.#known.ownIndex(name);
  }
}

export function newSession(random: VaultContext["random"]): string {
  return random.hex(SESSION_BYTES);
}
