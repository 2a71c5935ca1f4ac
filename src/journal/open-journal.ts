import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { CommandId, EnvironmentId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";
import type { Statement, Store } from "#store/contract.ts";
import { decodeEntry, encodeOutcome } from "./command-row.ts";
import type { Journal, PositionedChanges, RecordedIntent } from "./contract.ts";
import { HeadWaiters } from "./head-waiters.ts";
import { journalQueries } from "./journal-queries.ts";
import type { JournalQueries } from "./journal-queries.ts";
import { Numbering } from "./numbering.ts";
import { trimJournal } from "./trim.ts";

export interface JournalOptions {
  readonly clock: Clock;
  /**
   * How often `changed` looks at the table. Needed only where another process writes the journal (a store opened for
   * reading); in the writer's own process every record wakes its readers.
   */
  readonly pollMs?: number;
}

interface Ports {
  readonly store: Store;
  readonly queries: JournalQueries;
  readonly numbering: Numbering;
  readonly waiters: HeadWaiters;
  readonly listeners: Map<string, Set<(outcome: PositionedChanges) => void>>;
  /** Positions that readers are told of when they can see them. */
  readonly unseen: Map<string, number>;
}

/** Says why the insert found no environment with that epoch. */
async function explainRefusal(store: Store, intent: Intent): Promise<OperationalError> {
  const row = await store.db
    .selectFrom("environment")
    .select(["epoch", "active_site"])
    .where("id", "=", intent.environment)
    .executeTakeFirst();
  if (row === undefined) {
    return new OperationalError(
      "not_found",
      `environment ${intent.environment} is not in the store: name it in understudy.yaml and start the engine`,
    );
  }
  const fence = `environment ${intent.environment} is at fencing epoch ${row.epoch}, this command came under epoch ${intent.epoch}`;
  return new OperationalError(
    "state.fenced",
    `${fence}: it was not recorded and not sent; the environment has moved (active site: ${row.active_site}), send the command to the gateway that serves it now`,
  );
}

async function explainConflict(
  queries: JournalQueries,
  environment: EnvironmentId,
  id: CommandId,
): Promise<OperationalError> {
  const row = await queries.byId(environment, id);
  return row === undefined
    ? new OperationalError("not_found", `command ${id} of ${environment} was never recorded as an intent`)
    : new OperationalError(
        "state.conflict",
        `command ${id} of ${environment} already has its outcome (${row.result} at position ${row.position}); it stays as it is`,
      );
}

/** Stands for "no row was touched"; the reason is looked up afterwards, outside the batch. */
class NoRow extends Error {
  override readonly name = "NoRow";
}

const oneRow: Omit<Statement, "query"> = { expectRows: 1, onMismatch: () => new NoRow() };

async function recordIntent(ports: Ports, intent: Intent): Promise<RecordedIntent> {
  const { store, queries, numbering } = ports;
  const input = JSON.stringify(intent.input);
  try {
    return await numbering.numbered(intent.environment, (next) => {
      const seq = next.seq();
      const asked = store.commits();
      const since = next.intent(intent.id, intent.epoch);
      const query = queries.insertIntent({
        environment: intent.environment,
        seq,
        id: intent.id,
        service: intent.service,
        operation: intent.operation,
        input,
        token: intent.token,
        principal: intent.principal,
        epoch: intent.epoch,
        intent_at: intent.at,
      });
      const done = store.append([{ query, ...oneRow }], since);
      if (since === asked) return { done, value: { seq, openSince: asked } };
      const accepted = done.then(() => next.accepted(intent.epoch, asked));
      return { done: accepted, value: { seq, openSince: asked } };
    });
  } catch (error) {
    throw error instanceof NoRow ? await explainRefusal(store, intent) : error;
  }
}

async function recordOutcome(
  ports: Ports,
  environment: EnvironmentId,
  id: CommandId,
  outcome: CommandOutcome,
  recorded: RecordedIntent | undefined,
): Promise<{ position: number | null }> {
  const { store, queries, numbering } = ports;
  const columns = encodeOutcome(outcome);
  const since = recorded?.openSince;
  if (recorded !== undefined) recorded.openSince = undefined;
  try {
    return await numbering.numbered(environment, (next) => {
      const position = outcome.result === "unknown" ? null : next.position();
      const query = queries.completeCommand({ environment, id, position, ...columns });
      const statements = [{ query, ...oneRow }];
      // Without the intent's own record another outcome may be on its way: a commit, after which nothing is sure.
      const shown =
        recorded === undefined ? store.commit(statements).then(() => true) : store.append(statements, since);
      const done =
        position === null
          ? shown
          : shown.then((seen) => announce(ports, environment, { position, changes: outcome.changes }, seen));
      return { done, value: { position } };
    });
  } catch (error) {
    throw error instanceof NoRow ? await explainConflict(queries, environment, id) : error;
  }
}

function announce(ports: Ports, environment: string, outcome: PositionedChanges, seen: boolean): void {
  for (const listener of ports.listeners.get(environment) ?? []) listener(outcome);
  if (seen) ports.waiters.announce(environment, outcome.position);
  else ports.unseen.set(environment, outcome.position);
}

function onOutcome(
  { listeners }: Ports,
  environment: string,
  listener: (outcome: PositionedChanges) => void,
): () => void {
  const known = listeners.get(environment) ?? new Set();
  listeners.set(environment, known.add(listener));
  return () => void known.delete(listener);
}

/** Opens the journal over a store. The store's writer is the journal's only writer: it keeps the numbering in memory. */
export function openJournal(store: Store, options: JournalOptions): Promise<Journal> {
  const queries = journalQueries(store);
  const numbering = new Numbering(queries);
  const waiters = new HeadWaiters({ head: (environment) => queries.head(environment), ...options });
  const unseen = new Map<string, number>();
  const ports: Ports = { store, queries, numbering, waiters, listeners: new Map(), unseen };
  store.onShown(() => {
    for (const [environment, position] of unseen) waiters.announce(environment, position);
    unseen.clear();
  });
  return Promise.resolve({
    recordIntent: (intent) => recordIntent(ports, intent),
    recordOutcome: (environment, id, outcome, recorded) =>
      recordOutcome(ports, environment, id, outcome, recorded),
    open: async (environment) => (await queries.open(environment)).map(decodeEntry),
    read: async (environment, after, limit) =>
      (await queries.after(environment, after, limit)).map(decodeEntry),
    readChanges: async (environment, after, limit) =>
      (await queries.changesAfter(environment, after, limit)).map(({ position, changes }) => ({
        position,
        changes: JSON.parse(changes ?? "[]") as Change[],
      })),
    tail: async (environment, limit, before = Number.MAX_SAFE_INTEGER) =>
      (await queries.before(environment, before, limit)).map(decodeEntry).toReversed(),
    head: (environment) => queries.head(environment),
    changed: (environment, after, signal) => waiters.changed(environment, after, signal),
    onOutcome: (environment, listener) => onOutcome(ports, environment, listener),
    counts: async (environment) => ({
      commands: await queries.lastSeq(environment),
      open: await queries.openCount(environment),
      head: await queries.head(environment),
    }),
    trim: (environment, upTo, limit) => trimJournal(store, queries, environment, upTo, limit),
  });
}
