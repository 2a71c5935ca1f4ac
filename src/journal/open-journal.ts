import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { CommandId, EnvironmentId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";
import type { Statement, Store } from "#store/contract.ts";
import { decodeEntry, encodeOutcome } from "./command-row.ts";
import type { Journal } from "./contract.ts";
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

async function recordIntent(ports: Ports, intent: Intent): Promise<{ seq: number }> {
  const { store, queries, numbering } = ports;
  const input = JSON.stringify(intent.input);
  try {
    return await numbering.numbered(intent.environment, (next) => {
      const seq = next.seq();
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
      return { done: store.commit([{ query, ...oneRow }]), value: { seq } };
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
): Promise<{ position: number | null }> {
  const { store, queries, numbering, waiters } = ports;
  const columns = encodeOutcome(outcome);
  try {
    const recorded = await numbering.numbered(environment, (next) => {
      const position = outcome.result === "unknown" ? null : next.position();
      const query = queries.completeCommand({ environment, id, position, ...columns });
      return { done: store.commit([{ query, ...oneRow }]), value: { position } };
    });
    if (recorded.position !== null) waiters.announce(environment, recorded.position);
    return recorded;
  } catch (error) {
    throw error instanceof NoRow ? await explainConflict(queries, environment, id) : error;
  }
}

/** Opens the journal over a store. The store's writer is the journal's only writer: it keeps the numbering in memory. */
export function openJournal(store: Store, options: JournalOptions): Promise<Journal> {
  const queries = journalQueries(store.db);
  const numbering = new Numbering(queries);
  const waiters = new HeadWaiters({ head: (environment) => queries.head(environment), ...options });
  const ports: Ports = { store, queries, numbering, waiters };
  return Promise.resolve({
    recordIntent: (intent) => recordIntent(ports, intent),
    recordOutcome: (environment, id, outcome) => recordOutcome(ports, environment, id, outcome),
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
    counts: async (environment) => ({
      commands: await queries.lastSeq(environment),
      open: await queries.openCount(environment),
      head: await queries.head(environment),
    }),
    trim: (environment, upTo, limit) => trimJournal(store, queries, environment, upTo, limit),
  });
}
