/**
 * Keeps the record of an environment at the journal's head: folds each command's changes into the `resource` table, its gaps
 * into the `gap` table, and moves the reader `state`, all in one commit a batch: a crash repeats nothing and loses nothing.
 */
import type { Cloud } from "#cloud/contract.ts";
import type { Journal } from "#journal/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Gap } from "#model/gap.ts";
import { gapKey } from "#model/gap.ts";
import type { Reference, Resource } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { Folded, Removals } from "./fold-entries.ts";
import { StateFold } from "./fold-entries.ts";
import { clearGap, clearGapsOf, listGaps, recordGap } from "./gaps.ts";
import { eraseResource, loadState, moveReader, stateReader, writeResource } from "./load-state.ts";

export interface FollowJournalOptions {
  readonly environment: EnvironmentId;
  readonly store: Store;
  readonly journal: Journal;
  readonly clock: Clock;
  readonly log: Log;
  /** The active site, for what no command made; `undefined` while it is known to be gone. */
  readonly cloud: () => Cloud | undefined;
}

const batchSize = 500;
const retryMs = { least: 1_000, most: 60_000 };
const readTimeoutMs = 10_000;
const readsAtOnce = 4;

interface Waiter {
  readonly reached: () => boolean;
  readonly resolve: () => void;
}

export class JournalFollower {
  readonly #options: FollowJournalOptions;
  readonly #stop = new AbortController();
  readonly #waiters = new Set<Waiter>();
  /** Key -> what is to be read from the active site. */
  readonly #missing = new Map<string, Reference>();
  #fold: StateFold;
  #position: number;
  #version = 0;
  #stale = false;
  /** One change of the state at a time: a batch, an observation, a reload. */
  #turn: Promise<unknown> = Promise.resolve();
  #behindSince: number | null = null;
  #failure: unknown;
  readonly #loops: Promise<unknown>;

  constructor(options: FollowJournalOptions, fold: StateFold, position: number) {
    this.#options = options;
    this.#fold = fold;
    this.#position = position;
    this.#loops = Promise.all([this.#run(() => this.#follow()), this.#run(() => this.#readMissing())]);
  }

  /** Live: the same object until `reload`, changed only between two awaits of the caller. Not to be written to. */
  get state(): EnvironmentState {
    return this.#fold.state;
  }

  /** Every command up to here is in `state` and on disk. */
  get position(): number {
    return this.#position;
  }

  /** Rises with every change of `state`, those that no command made included. */
  get version(): number {
    return this.#version;
  }

  /** Since when commands wait to be folded, in milliseconds since the Unix epoch; null when none do. */
  get behindSince(): number | null {
    return this.#behindSince;
  }

  /** What ended the follower, if it ended by itself: a bug, or a store that is not ours any more. */
  get failure(): unknown {
    return this.#failure;
  }

  waitFor(position: number, signal: AbortSignal): Promise<void> {
    return this.#wait(() => this.#position >= position, signal);
  }

  /** Resolves once `version` exceeds `after`. */
  changed(after: number, signal: AbortSignal): Promise<void> {
    return this.#wait(() => this.#version > after, signal);
  }

  /** Somebody else wrote the resources (an exchange of roles): begins anew from what is durable. */
  async reload(): Promise<void> {
    await this.#exclusive(() => this.#load());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the journal is no longer followed"));
    await this.#loops;
  }

  async #load(): Promise<void> {
    const { store, environment } = this.#options;
    const opened = await openFold(store, environment);
    this.#fold = opened.fold;
    this.#position = opened.position;
    this.#stale = false;
    this.#missing.clear();
    await this.#rememberMissing();
    this.#moved();
  }

  /** Restores what is still to be read: from references that lead nowhere, and from the gaps that tell of it. */
  async #rememberMissing(): Promise<void> {
    const { store, environment } = this.#options;
    this.#note(this.#fold.missing());
    for (const { code, resource } of await listGaps(store, environment)) {
      if (code === "reference.missing" && resource !== undefined) this.#note([resource as Reference]);
    }
  }

  #note(references: readonly Reference[]): void {
    for (const one of references) this.#missing.set(resourceKey(one.kind, one.id), one);
    if (references.length > 0) this.#wake();
  }

  async #run(loop: () => Promise<void>): Promise<void> {
    try {
      await loop();
    } catch (error) {
      if (this.#stop.signal.aborted) return;
      this.#failure = error;
      this.#options.log.error(
        { environment: this.#options.environment, err: error },
        "following the journal ended",
      );
      this.#stop.abort(error);
    }
  }

  async #follow(): Promise<void> {
    const { journal, environment, clock, log } = this.#options;
    const { signal } = this.#stop;
    for (let pauseMs = retryMs.least; ;) {
      try {
        await journal.changed(environment, this.#position, signal);
        signal.throwIfAborted();
        this.#behindSince ??= clock.now();
        while (await this.#exclusive(() => this.#foldBatch())) pauseMs = retryMs.least;
        this.#behindSince = null;
      } catch (error) {
        if (signal.aborted || !isOperational(error) || error.retry === "never") throw error;
        log.error({ environment, code: error.code }, `the journal is not followed: ${publicMessage(error)}`);
        await clock.sleep(pauseMs, signal);
        pauseMs = Math.min(pauseMs * 2, retryMs.most);
      }
    }
  }

  /** Answers whether there may be more. */
  async #foldBatch(): Promise<boolean> {
    const { journal, environment, store, clock } = this.#options;
    if (this.#stale) await this.#load();
    const entries = await journal.read(environment, this.#position, batchSize);
    if (entries.length === 0) return false;
    const folded = this.#fold.fold(entries);
    try {
      await store.commit(this.#statements(folded, clock.now()));
    } catch (error) {
      // The memory is ahead of the disk: what is durable is the truth.
      this.#stale = true;
      throw error;
    }
    this.#position = folded.position;
    for (const { kind, id } of folded.removed) this.#missing.delete(resourceKey(kind, id));
    this.#note(folded.missing.filter((one) => !this.#isKnown(one)));
    this.#moved();
    return entries.length === batchSize;
  }

  #statements(folded: Folded, now: number): Statement[] {
    const { store, environment } = this.#options;
    const statements: Statement[] = [];
    for (const resource of folded.removed) {
      statements.push(eraseResource(store, environment, resource));
      statements.push(clearGapsOf(store, environment, resource.kind, resource.id));
    }
    for (const [key, position] of folded.written) {
      const resource = this.#fold.resource(key);
      if (resource === undefined) continue;
      statements.push(writeResource(store, environment, resource, this.#fold.aliases(key), position));
    }
    for (const { gap, at } of folded.gaps) statements.push(recordGap(store, environment, gap, at));
    for (const one of folded.missing) {
      if (!this.#isKnown(one)) statements.push(recordGap(store, environment, missingGap(one, null), now));
    }
    statements.push(moveReader(store, environment, stateReader, folded.position));
    return statements;
  }

  /** A later command of the same batch may have made it. */
  #isKnown({ kind, id }: Reference): boolean {
    const known = this.#fold.state.get(kind, id);
    return known !== undefined && !(known.kind === "keyPair" && known.spec.publicKey === undefined);
  }

  async #readMissing(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#stop;
    await this.#exclusive(() => this.#rememberMissing());
    for (let pauseMs = retryMs.least; ;) {
      await this.#wait(() => this.#missing.size > 0, signal);
      const batch = [...this.#missing.values()].slice(0, readsAtOnce);
      const read = await Promise.all(batch.map((one) => this.#readOrLater(one)));
      if (read.includes(true)) {
        pauseMs = retryMs.least;
        continue;
      }
      // Those that could not be read give way to the others.
      for (const one of batch) {
        const key = resourceKey(one.kind, one.id);
        if (this.#missing.delete(key)) this.#missing.set(key, one);
      }
      await clock.sleep(pauseMs, signal);
      pauseMs = Math.min(pauseMs * 2, retryMs.most);
    }
  }

  /** As `#read`; what the disk refuses for now is read again later, from what is durable. */
  async #readOrLater(one: Reference): Promise<boolean> {
    const { environment, log } = this.#options;
    try {
      return await this.#read(one);
    } catch (error) {
      if (this.#stop.signal.aborted || !isOperational(error) || error.retry === "never") throw error;
      this.#stale = true;
      log.warn({ environment, code: error.code }, `what was read is not recorded: ${publicMessage(error)}`);
      return false;
    }
  }

  /** Answers whether it is no longer missing. */
  async #read(one: Reference): Promise<boolean> {
    const cloud = this.#options.cloud();
    if (cloud === undefined) return false;
    const answer = await this.#ask(cloud, one);
    return this.#exclusive(async () => {
      if (this.#stale) await this.#load();
      const key = resourceKey(one.kind, one.id);
      const { store, environment, clock } = this.#options;
      const gap = missingGap(one, "failed" in answer ? answer.failed : null);
      if (this.#isKnown(one) || ("gone" in answer && !this.#isReferredTo(one))) {
        await store.commit([clearGap(store, environment, gapKey(gap))]);
        return this.#missing.delete(key);
      }
      if (!("resource" in answer)) {
        await store.commit([recordGap(store, environment, gap, clock.now())]);
        return false;
      }
      const { resource } = answer;
      const ends = this.#fold.observe(resource).filter((end) => resourceKey(end.kind, end.id) !== key);
      await store.commit([
        writeResource(store, environment, resource, this.#fold.aliases(key), this.#position),
        clearGap(store, environment, gapKey(gap)),
        ...ends.map((end) => recordGap(store, environment, missingGap(end, null), clock.now())),
      ]);
      this.#missing.delete(key);
      this.#note(ends);
      this.#moved();
      return true;
    });
  }

  async #ask(cloud: Cloud, one: Reference): Promise<Answer> {
    const { clock, log } = this.#options;
    const deadline = new AbortController();
    const over = new AbortController();
    const signal = AbortSignal.any([this.#stop.signal, deadline.signal]);
    clock.sleep(readTimeoutMs, over.signal).then(
      () => deadline.abort(new Error("the active site did not answer in time")),
      () => {},
    );
    try {
      const observed = await cloud.get(one.kind, one.id, signal);
      if (observed === undefined) return { gone: true, failed: "the active site has no such resource" };
      const { resource } = observed;
      if (resource.kind === "keyPair" && resource.spec.publicKey === undefined) {
        return { failed: "the active site does not tell its public key" };
      }
      return { resource };
    } catch (error) {
      if (this.#stop.signal.aborted) throw error;
      if (!isOperational(error) && !deadline.signal.aborted) throw error;
      log.debug({ kind: one.kind, id: one.id }, publicMessage(error));
      return { failed: publicMessage(error) };
    } finally {
      over.abort();
    }
  }

  #isReferredTo(one: Reference): boolean {
    for (const resource of this.#fold.state.resources()) {
      if (resource.kind === "keyPair" && one.kind === "keyPair" && resource.id === one.id) return true;
      if (referencesOf(resource).some(({ kind, id }) => kind === one.kind && id === one.id)) return true;
    }
    return false;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #moved(): void {
    this.#version += 1;
    this.#wake();
  }

  #wake(): void {
    for (const waiter of this.#waiters) {
      if (!waiter.reached()) continue;
      this.#waiters.delete(waiter);
      waiter.resolve();
    }
  }

  #wait(reached: () => boolean, asked: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([asked, this.#stop.signal]);
    return new Promise((resolve, reject) => {
      if (reached()) return resolve();
      if (signal.aborted) return reject(signal.reason as Error);
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal.reason as Error);
      };
      const waiter: Waiter = {
        reached,
        resolve: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.add(waiter);
    });
  }
}

type Answer =
  | { readonly resource: Resource }
  | { readonly gone: true; readonly failed: string }
  | { readonly failed: string };

function missingGap(one: Reference, why: string | null): Gap {
  const reason = why === null ? "it is being read from the active site" : `${why}; it is asked for again`;
  return {
    code: "reference.missing",
    severity: "degraded",
    resource: { kind: one.kind, id: one.id },
    message:
      one.kind === "keyPair"
        ? `the public key of key pair ${one.id} is not known: ${reason}`
        : `${one.kind} ${one.id} is used but was not made through the gateway: ${reason}`,
  };
}

async function openFold(
  store: Store,
  environment: EnvironmentId,
): Promise<{ readonly fold: StateFold; readonly position: number }> {
  const removed: Removals = new Map();
  const loaded = await loadState(store, environment, (resource) =>
    removed.set(resourceKey(resource.kind, resource.id), resource),
  );
  return { fold: new StateFold(loaded, removed), position: loaded.position };
}

/** Starts to follow where an earlier process left off. */
export async function openJournalFollower(options: FollowJournalOptions): Promise<JournalFollower> {
  const { fold, position } = await openFold(options.store, options.environment);
  return new JournalFollower(options, fold, position);
}
