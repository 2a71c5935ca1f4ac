import type { EnvironmentId } from "#kernel/ids.ts";
import type { Journal } from "#journal/contract.ts";

const page = 10_000;

/** Ids of all that an environment's recorded commands made. Read from the journal when first asked for, then kept up. */
export class MadeResources {
  readonly #environment: EnvironmentId;
  readonly #ids = new Set<string>();
  #position = 0;

  constructor(environment: EnvironmentId) {
    this.#environment = environment;
  }

  async upToDate(journal: Journal): Promise<ReadonlySet<string>> {
    for (;;) {
      const records = await journal.readChanges(this.#environment, this.#position, page);
      for (const { position, changes } of records) {
        for (const change of changes) {
          if (change.type !== "create") continue;
          this.#ids.add(change.id);
          for (const alias of change.aliases ?? []) this.#ids.add(alias);
        }
        this.#position = Math.max(this.#position, position);
      }
      if (records.length < page) return this.#ids;
    }
  }
}
