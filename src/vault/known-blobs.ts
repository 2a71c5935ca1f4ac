import { blobKinds } from "./block-ref.ts";
import { condemnedPacks } from "./condemned.ts";
import { DedupTable } from "./dedup-table.ts";
import { decodeIndex } from "./index-object.ts";
import { listPacks } from "./list-packs.ts";
import { readDistrusted } from "./moved-blobs.ts";
import { PackNumbers } from "./pack-numbers.ts";
import { sealKinds, unseal } from "./sealed-object.ts";
import type { VaultContext } from "./vault-context.ts";

const FIRST_SLOTS = 2 ** 16;
/** 128 MiB: about 0.7 TiB of distinct data. Beyond it the vault finds fewer duplicates. */
const DEFAULT_MOST_SLOTS = 2 ** 22;

/** What the vault holds, as far as this process knows: filled from the index, grown by sessions. */
export class KnownBlobs {
  readonly #context: VaultContext;
  readonly #mostSlots: number;
  #table = DedupTable.make(FIRST_SLOTS);
  #numbers = new PackNumbers();
  #loaded = new Set<string>();
  #condemned = new Set<string>();
  /** Damaged where they are: whoever has their content stores it anew. */
  #distrusted = new Set<string>();
  /** Packs that were there when the index was read, and those of them that the table names. */
  #present: ReadonlyMap<string, number> = new Map();
  #named = new Set<string>();
  #missingIndex = 0;

  constructor(context: VaultContext, mostSlots = DEFAULT_MOST_SLOTS) {
    this.#context = context;
    this.#mostSlots = mostSlots;
  }

  get table(): DedupTable {
    return this.#table;
  }

  get numbers(): PackNumbers {
    return this.#numbers;
  }

  /** Index objects that could not be read: duplicates of their blobs are not found. `verify` names them. */
  get missingIndex(): number {
    return this.#missingIndex;
  }

  /** Forgets everything: after a session that failed, whose packs may not exist. */
  forget(): void {
    this.#table = DedupTable.make(FIRST_SLOTS);
    this.#numbers = new PackNumbers();
    this.#loaded = new Set();
    this.#condemned = new Set();
    this.#distrusted = new Set();
    this.#named = new Set();
    this.#missingIndex = 0;
  }

  /** A session's own index object: its blobs are in the table already. */
  ownIndex(name: string): void {
    this.#loaded.add(name);
  }

  /**
   * Takes in what other writers added, and stays off condemned packs. Must be called under a write lease: it is the lease's age
   * that keeps a collector from deleting what was found here.
   */
  async refresh(signal?: AbortSignal): Promise<void> {
    const { storage } = this.#context;
    // Condemned packs first: a collector deletes their index before the condemnation, so that one of the two is seen.
    const condemned = await condemnedPacks(this.#context, signal);
    const names: string[] = [];
    for await (const { name } of storage.list("index/", signal)) names.push(name);
    // After the index, for a pack is there before its index is. The index may name packs that are not: collectors and repairs of
    // several processes may write it at once, and one puts back what the other has just dropped.
    const present = await listPacks(this.#context, signal);
    const vanished = [...this.#named].some((pack) => !present.has(pack));
    const distrusted = await readDistrusted(this.#context.storage, this.#context.keys, signal);
    const newlyDistrusted = [...distrusted].some((blob) => !this.#distrusted.has(blob));
    const gone = [...this.#loaded].some((name) => !names.includes(name));
    const newlyCondemned = [...condemned].some((pack) => !this.#condemned.has(pack));
    // Entries cannot be taken out of the table one by one.
    if (gone || vanished || newlyCondemned || newlyDistrusted) this.forget();
    this.#present = present;
    this.#condemned = condemned;
    this.#distrusted = distrusted;
    for (const name of names) if (!this.#loaded.has(name)) await this.#load(name, signal);
    this.#table.nextPackNumber = this.#numbers.count;
  }

  /** True if the table was replaced: no thread may enter anything meanwhile. */
  growIfFull(): boolean {
    if (!this.#table.isFull || this.#table.slots * 2 > this.#mostSlots) return false;
    this.#table = this.#table.grown(this.#table.slots * 2);
    return true;
  }

  async #load(name: string, signal: AbortSignal | undefined): Promise<void> {
    const { storage, keys, log } = this.#context;
    let index;
    try {
      const sealed = await storage.get(name, undefined, signal);
      index = decodeIndex(name, unseal(keys, sealKinds.index, name, sealed));
    } catch (error) {
      signal?.throwIfAborted();
      // Writing goes on without these duplicates; nothing is lost but space.
      this.#missingIndex += 1;
      log.warn({ index: name, error: String(error) }, "an index object cannot be read");
      return;
    }
    this.#loaded.add(name);
    const numbers = index.packs.map((pack) => {
      if (this.#condemned.has(pack) || !this.#present.has(pack)) return -1;
      this.#named.add(pack);
      return this.#numbers.numberOf(pack);
    });
    index.each((id, packNumber, entry) => {
      const pack = numbers[packNumber] as number;
      if (pack < 0 || entry.kind === blobKinds.patches) return;
      if (
        this.#distrusted.size > 0 &&
        this.#distrusted.has(`${index.packs[packNumber]}:${id.toString("hex")}`)
      )
        return;
      this.growIfFull();
      const { offset, storedLength, codec } = entry;
      this.#table.enter(id, { pack, offset, storedLength, codec });
    });
  }
}
