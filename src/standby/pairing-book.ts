import type { Clock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { Pairing, Pairings, PairingScope } from "./pairings.ts";
import { erasePairing, pairingKey, writePairing } from "./pairings.ts";

/** The pairings of one scope, in memory and durable. What it says is on disk. */
export class PairingBook {
  readonly #store: Store;
  readonly #of: PairingScope;
  readonly #clock: Clock;
  /** Goes with every write, so that a holder of an older fencing epoch can't write. */
  readonly #guard: readonly Statement[];
  readonly #pairings: Map<string, Pairing>;

  constructor(
    store: Store,
    of: PairingScope,
    clock: Clock,
    pairings: Pairings,
    guard: readonly Statement[] = [],
  ) {
    this.#store = store;
    this.#of = of;
    this.#clock = clock;
    this.#pairings = new Map(pairings);
    this.#guard = guard;
  }

  get(key: string): Pairing | undefined {
    return this.#pairings.get(key);
  }

  /** For callers who know by the plan's order that it exists. */
  expect(key: string): Pairing {
    const pairing = this.#pairings.get(key);
    invariant(pairing !== undefined, `${key} has a pairing`);
    return pairing;
  }

  standbyId(kind: ResourceKind, activeId: string): ResourceId | undefined {
    const pairing = this.#pairings.get(resourceKey(kind, activeId));
    return pairing?.state === "paired" ? (pairing.standbyId ?? undefined) : undefined;
  }

  async write(...pairings: readonly Pairing[]): Promise<void> {
    const now = this.#clock.now();
    const statements = pairings.map((pairing) => writePairing(this.#store, this.#of, pairing, now));
    await this.#store.commit([...this.#guard, ...statements]);
    for (const pairing of pairings) this.#pairings.set(pairingKey(pairing), pairing);
  }

  async erase(pairing: Pick<Pairing, "kind" | "activeId">): Promise<void> {
    await this.#store.commit([...this.#guard, erasePairing(this.#store, this.#of, pairing)]);
    this.#pairings.delete(pairingKey(pairing));
  }
}
