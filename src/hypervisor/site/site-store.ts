/**
 * What a bare host's site holds, durable: one small file, replaced whole at each change. A change is made on a draft; when the
 * file is written, the draft is what is held. Whatever fails, what was held before still is.
 */
import { type BookOptions, type BookRecord, ResourceBook } from "#cloud/resource-book.ts";
import { replaceFile } from "#kernel/durable-file.ts";
import { readVersioned } from "#hypervisor/read-versioned.ts";

/** A disk that came with its server: the image's, or one that was asked for with it. */
export interface OwnDisk {
  /** A volume's id. */
  readonly id: string;
  readonly sizeGiB: number;
  /** `root`: over the image's disk. */
  readonly device: string;
  readonly deleteOnTermination: boolean;
}

export interface SiteRecord extends BookRecord {
  /** Servers: rises with each boot that was asked for. */
  boot: number;
  readonly ownDisks: readonly OwnDisk[];
}

export type SiteBook = ResourceBook<SiteRecord>;

interface SiteFile {
  readonly format: 1;
  readonly records: readonly SiteRecord[];
}

const FORMAT = 1;

type MakeBook = () => SiteBook;

export class SiteStore {
  readonly #path: string;
  readonly #make: MakeBook;
  readonly #listeners: (() => void)[] = [];
  #book: SiteBook;
  #turns: Promise<unknown> = Promise.resolve();

  constructor(path: string, make: MakeBook, book: SiteBook) {
    this.#path = path;
    this.#make = make;
    this.#book = book;
  }

  /** What is durable. It is not to be changed but by `transact`. */
  get book(): SiteBook {
    return this.#book;
  }

  /** After each change that is durable. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  /** One at a time. Durable when it resolves; nothing of it when it rejects. Errors: those of `work`, `store.*`. */
  transact<T>(work: (draft: SiteBook) => T): Promise<T> {
    const result = this.#turns.then(async () => {
      const draft = this.#make();
      for (const record of this.#book.records()) draft.restore({ ...record });
      const before = encode(draft);
      const value = work(draft);
      const after = encode(draft);
      if (after === before) return value;
      await replaceFile(this.#path, after);
      this.#book = draft;
      for (const listener of this.#listeners) listener();
      return value;
    });
    this.#turns = result.catch(() => {});
    return result;
  }

  /** What was asked for before is durable, or has failed, when it resolves. */
  async durable(): Promise<void> {
    await this.#turns;
  }
}

/** `options`: as for each book; the address is one that `book` does not have. Errors: `store.failing`, `store.version`. */
export async function openSiteStore(
  path: string,
  options: Omit<BookOptions, "takePublicAddress">,
  takeAddress: (book: SiteBook) => string,
): Promise<SiteStore> {
  const make = (): SiteBook => {
    const book: SiteBook = new ResourceBook({ ...options, takePublicAddress: () => takeAddress(book) });
    return book;
  };
  const book = make();
  for (const record of await readRecords(path)) book.restore(record);
  return new SiteStore(path, make, book);
}

async function readRecords(path: string): Promise<readonly SiteRecord[]> {
  return (await readVersioned<SiteFile>(path, FORMAT))?.records ?? [];
}

function encode(book: SiteBook): string {
  const file: SiteFile = { format: FORMAT, records: [...book.records()] };
  return `${JSON.stringify(file)}\n`;
}
