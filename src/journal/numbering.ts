import type { JournalQueries } from "./journal-queries.ts";

interface Counters {
  seq: number;
  position: number;
  /** Records under way: while there are any, numbers beyond the table's are taken. */
  inFlight: number;
  /** A record failed, so numbers may be unused: look at the table again as soon as nothing is under way. */
  stale: boolean;
  /** The greatest id of a command: a greater one is new. */
  lastId: string;
  /** The fencing epoch that an intent was recorded under, and what `Store.commits` was when that was asked for. */
  epoch: { readonly of: number; readonly since: number } | undefined;
}

/** What is known of an environment while a record of it is made. */
export interface Next {
  seq(): number;
  position(): number;
  /** See `Store.append`; undefined if only the table can tell whether this intent may be recorded. */
  intent(id: string, epoch: number): number | undefined;
  /** The table has taken an intent under this epoch that was asked for when `Store.commits` was `since`. */
  accepted(epoch: number, since: number): void;
}

/** What is next in each environment, kept in memory because this process is the only writer. */
export class Numbering {
  readonly #queries: JournalQueries;
  readonly #counters = new Map<string, Counters>();
  readonly #loading = new Map<string, Promise<Counters>>();

  constructor(queries: JournalQueries) {
    this.#queries = queries;
  }

  /**
   * `record` takes its numbers and hands its statement to the store in one go, with nothing awaited between: so the
   * order of numbers is the order of the batch, and readers see positions appear in order.
   */
  async numbered<T>(
    environment: string,
    record: (next: Next) => { done: Promise<unknown>; value: T },
  ): Promise<T> {
    const known = this.#counters.get(environment);
    const counters =
      known === undefined || (known.stale && known.inFlight === 0) ? await this.#load(environment) : known;
    counters.inFlight += 1;
    try {
      const { done, value } = record({
        seq: () => (counters.seq += 1),
        position: () => (counters.position += 1),
        intent(id, epoch) {
          const isNew = id > counters.lastId;
          if (isNew) counters.lastId = id;
          return isNew && counters.epoch?.of === epoch ? counters.epoch.since : undefined;
        },
        accepted: (epoch, since) => (counters.epoch = { of: epoch, since }),
      });
      await done;
      return value;
    } catch (error) {
      counters.stale = true;
      throw error;
    } finally {
      counters.inFlight -= 1;
    }
  }

  /** Callers that arrive meanwhile wait for the same look, and go on in the order in which they came. */
  #load(environment: string): Promise<Counters> {
    const under = this.#loading.get(environment);
    if (under !== undefined) return under;
    const loading = this.#read(environment).finally(() => this.#loading.delete(environment));
    this.#loading.set(environment, loading);
    return loading;
  }

  async #read(environment: string): Promise<Counters> {
    const seq = await this.#queries.lastSeq(environment);
    const position = await this.#queries.head(environment);
    const lastId = await this.#queries.lastId(environment);
    const counters: Counters = { seq, position, inFlight: 0, stale: false, lastId, epoch: undefined };
    this.#counters.set(environment, counters);
    return counters;
  }
}
