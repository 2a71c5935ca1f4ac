/** Carries out single actions of a plan so that an interruption at any moment is made up for by the next plan. */
import type { Cloud, Observed } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import type { RetryPolicy } from "#kernel/retry.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import type { CallLimiter } from "./call-limiter.ts";
import type { CreateAction, DeleteAction, RetagAction, UpdateAction } from "./convergence-plan.ts";
import { mapReferences } from "./map-references.ts";
import type { PairingBook } from "./pairing-book.ts";
import type { Content, Pairing } from "./pairings.ts";
import { isSynthetic } from "./translate.ts";

export interface PerformerOptions {
  readonly cloud: Cloud;
  readonly limiter: CallLimiter;
  readonly clock: Clock;
  readonly random: Random;
  readonly book: PairingBook;
  /** The scope that creations bear in the target. */
  readonly scope: string;
  readonly retry: RetryPolicy;
  readonly signal: AbortSignal;
  readonly onCall: () => void;
}

type Creation = Pick<CreateAction, "key" | "kind" | "activeId" | "source" | "target" | "priority">;

/** A refusal proves that nothing exists under the token, since a driver returns what does. */
function provesAbsence(error: unknown): boolean {
  return isOperational(error) && error.retry === "never" && error.outcome === "not_applied";
}

export class Performer {
  readonly #options: PerformerOptions;

  constructor(options: PerformerOptions) {
    this.#options = options;
  }

  /** Token first, then the call, then the id: whichever of them an interruption cuts off, no second one is made. */
  async create(action: Creation & { readonly resume: string | null }): Promise<Observed> {
    const { book, random } = this.#options;
    const { kind, activeId, source, target } = action;
    const spec = this.#resolve(kind, target.spec);
    const token = action.resume ?? random.hex(16);
    const row: Pairing = {
      kind,
      activeId,
      standbyId: null,
      state: "creating",
      token,
      applied: source,
      counterpart: null,
      confirmed: false,
      original: false,
    };
    const observed = await this.#sendCreate(action, spec, row);
    const confirmed = observed.status === "ready" || observed.status === "stopped";
    const counterpart: Content = { spec, tags: target.tags };
    if (action.resume !== null) await this.#fitSize(action.priority, observed, spec);
    await book.write({ ...row, state: "paired", standbyId: observed.resource.id, counterpart, confirmed });
    return observed;
  }

  /** A token that was sent for a reserve of smaller types brings back a small server, also when a takeover asks again. */
  async #fitSize(priority: number, observed: Observed, wanted: Resource["spec"]): Promise<void> {
    const { cloud, signal } = this.#options;
    const { kind, id, spec } = observed.resource;
    if (kind !== "server" || !("imageId" in wanted)) return;
    const { type } = wanted;
    if (spec.type === type) return;
    await this.#attempt(priority, () => cloud.update("server", id, { type }, signal));
  }

  async #sendCreate(
    action: Creation & { readonly resume: string | null },
    spec: Resource["spec"],
    row: Pairing,
  ): Promise<Observed> {
    const { book, cloud, scope, signal } = this.#options;
    const { kind, token } = row;
    let mayExist = action.resume !== null;
    try {
      return await this.#attempt(action.priority, async (attempt) => {
        // In its turn, not before: after a crash only what was on its way has to be looked for.
        if (action.resume === null && attempt === 1) await book.write(row);
        try {
          const request = { kind, spec, tags: action.target.tags, token, scope, mayExist };
          return await cloud.create(request, signal);
        } catch (error) {
          if (!isOperational(error) || error.outcome !== "not_applied") mayExist = true;
          throw error;
        }
      });
    } catch (error) {
      const absent = provesAbsence(error) || (isOperational(error) && !mayExist);
      if (absent && !signal.aborted && book.get(action.key)?.state === "creating") await book.erase(row);
      throw error;
    }
  }

  /** `recreated`: somebody had deleted the counterpart. */
  async update(action: UpdateAction): Promise<"updated" | { readonly recreated: Observed }> {
    const { book, cloud, signal } = this.#options;
    const pairing = book.expect(action.key);
    const id = this.#idOf(pairing);
    const wanted = new Map(Object.entries(this.#resolve(action.kind, action.target.spec)));
    const set = Object.fromEntries(action.fields.map((field) => [field, wanted.get(field)]));
    try {
      await this.#attempt(action.priority, () => cloud.update(action.kind, id, set, signal));
    } catch (error) {
      if (!isOperational(error, "cloud.not_found") || !(await this.#isGone(action.kind, id))) throw error;
      await book.erase(pairing);
      return { recreated: await this.create({ ...action, resume: null }) };
    }
    const current = book.expect(action.key);
    const before = current.counterpart ?? { spec: action.target.spec, tags: action.target.tags };
    await book.write({
      ...current,
      applied: { ...current.applied, spec: action.source.spec },
      counterpart: { ...before, spec: { ...before.spec, ...set } },
      // A size that was translated is the original's own no more, also where it came out as what was there: a reserve of smaller types must
      // grow again at takeover.
      original: current.original && typeOf(current.applied.spec) === typeOf(action.source.spec),
    });
    return "updated";
  }

  async retag(action: RetagAction): Promise<void> {
    const { book, cloud, signal } = this.#options;
    const id = this.#idOf(book.expect(action.key));
    await this.#attempt(action.priority, () =>
      cloud.setTags(action.kind, id, action.set, action.remove, signal),
    );
    const current = book.expect(action.key);
    if (current.counterpart === null) return;
    const tags = { ...current.counterpart.tags, ...action.set };
    for (const name of action.remove) delete tags[name];
    await book.write({
      ...current,
      applied: { ...current.applied, tags: action.source.tags },
      counterpart: { ...current.counterpart, tags },
    });
  }

  async remove(action: Pick<DeleteAction, "key" | "kind" | "priority" | "implied">): Promise<void> {
    const { book, cloud, signal } = this.#options;
    const pairing = book.get(action.key);
    if (pairing === undefined) return;
    const id = pairing.standbyId;
    // After an exchange of roles, an address that the other side has as a property stands for nothing to delete here.
    if (id !== null && !action.implied && !isSynthetic(id)) {
      if (pairing.state !== "deleting") await book.write({ ...pairing, state: "deleting" });
      await this.#attempt(action.priority, () => cloud.delete(action.kind, id, signal));
    }
    await book.erase(pairing);
  }

  /** One call that may be repeated: the contract makes each of them idempotent, a create by its token. */
  async #attempt<T>(priority: number, call: (attempt: number) => Promise<T>): Promise<T> {
    const { limiter, clock, random, retry, signal, onCall } = this.#options;
    let calls = 0;
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await limiter.run(
          () => {
            onCall();
            calls += 1;
            return call(calls);
          },
          { priority, signal },
        );
      } catch (error) {
        if (signal.aborted || !isOperational(error)) throw error;
        const repeatable = error.retry !== "never" || error.outcome === "unknown";
        if (!repeatable || attempt >= retry.attempts || error.code.startsWith("store.")) throw error;
        await clock.sleep(backoffMs(retry, attempt, random, error.retryAfterMs), signal);
      }
    }
  }

  async #isGone(kind: ResourceKind, id: ResourceId): Promise<boolean> {
    const { cloud, signal } = this.#options;
    const found = await this.#attempt(Number.MAX_SAFE_INTEGER, () => cloud.get(kind, id, signal));
    return found === undefined;
  }

  #idOf(pairing: Pairing): ResourceId {
    if (pairing.standbyId !== null) return pairing.standbyId;
    throw new OperationalError(
      "state.conflict",
      `${pairing.kind} ${pairing.activeId} has no counterpart yet`,
    );
  }

  #resolve(kind: ResourceKind, spec: Resource["spec"]): Resource["spec"] {
    return mapReferences(kind, spec, (endKind, id) => {
      const standbyId = this.#options.book.standbyId(endKind, id);
      if (standbyId !== undefined) return standbyId;
      throw new OperationalError(
        "environment.incomplete",
        `it refers to ${endKind} ${id}, which has no counterpart on the standby site`,
      );
    });
  }
}

function typeOf(spec: Resource["spec"]): string | undefined {
  return "type" in spec ? spec.type : undefined;
}
