/** One kind of record in memory, with indexes that follow every change. Iteration is in order of creation. */
import { invariant } from "#kernel/invariant.ts";

type KeysOf<T> = (record: T) => readonly string[];

export type ChangeListener = (id: string, before: unknown, after: unknown) => void;

const none: ReadonlySet<string> = new Set();

export class Table<T extends { readonly id: string }> {
  readonly name: string;
  readonly #rows = new Map<string, T>();
  readonly #indexes = new Map<string, { keysOf: KeysOf<T>; ids: Map<string, Set<string>> }>();
  readonly #onChange: ChangeListener;

  constructor(name: string, indexes: Readonly<Record<string, KeysOf<T>>>, onChange: ChangeListener) {
    this.name = name;
    this.#onChange = onChange;
    for (const [index, keysOf] of Object.entries(indexes))
      this.#indexes.set(index, { keysOf, ids: new Map() });
  }

  get size(): number {
    return this.#rows.size;
  }

  get(id: string): T | undefined {
    return this.#rows.get(id);
  }

  values(): IterableIterator<T> {
    return this.#rows.values();
  }

  /** The records whose index holds `key`. */
  by(index: string, key: string): T[] {
    return Array.from(this.#idsBy(index, key), (id) => this.#rows.get(id) as T);
  }

  countBy(index: string, key: string): number {
    return this.#idsBy(index, key).size;
  }

  put(record: T): T {
    const before = this.#rows.get(record.id);
    this.#set(record.id, record);
    this.#onChange(record.id, before, record);
    return record;
  }

  delete(id: string): void {
    const before = this.#rows.get(id);
    if (before === undefined) return;
    this.#set(id, undefined);
    this.#onChange(id, before, undefined);
  }

  /** Sets without telling: for loading from disk and for undoing. */
  restore(id: string, record: T | undefined): void {
    this.#set(id, record);
  }

  #idsBy(index: string, key: string): ReadonlySet<string> {
    const found = this.#indexes.get(index);
    invariant(found, `no index ${index} on ${this.name}`);
    return found.ids.get(key) ?? none;
  }

  #set(id: string, record: T | undefined): void {
    const before = this.#rows.get(id);
    for (const { keysOf, ids } of this.#indexes.values()) {
      if (before !== undefined) {
        for (const key of keysOf(before)) {
          const held = ids.get(key);
          held?.delete(id);
          if (held?.size === 0) ids.delete(key);
        }
      }
      if (record === undefined) continue;
      for (const key of keysOf(record)) {
        const held = ids.get(key);
        if (held === undefined) ids.set(key, new Set([id]));
        else held.add(id);
      }
    }
    if (record === undefined) this.#rows.delete(id);
    else this.#rows.set(id, record);
  }
}
