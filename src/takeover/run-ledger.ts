/**
 * Runs and their steps on stable storage. A step's end and the state it changes are one commit: after a crash a step
 * either happened, with everything that it says, or is begun anew.
 */
import { sql } from "kysely";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, runId, type RunId } from "#kernel/ids.ts";
import type { Json } from "#kernel/json.ts";
import type { Random } from "#kernel/random.ts";
import type { Run, RunKind, RunState, RunStep } from "#model/run.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { EventTable, RunStepTable, RunTable } from "#store/schema.ts";

export interface NewRun {
  readonly environment: string;
  readonly kind: RunKind;
  readonly trigger: string;
  readonly reason: string;
  readonly epoch: number;
  readonly input: Json;
}

export interface TimelineEvent {
  readonly environment: string;
  readonly ordinal: number;
  readonly run: string | null;
  readonly at: number;
  readonly severity: "info" | "warning" | "error";
  readonly message: string;
  readonly fields: Json;
}

export interface StoredRun extends Run {
  readonly input: Json;
}

export interface RunLedger {
  /** Begins a run together with `effects`; refused with `state.conflict` while another one runs there. */
  begin(run: NewRun, effects: readonly Statement[]): Promise<StoredRun>;
  finish(run: RunId, state: RunState, error: string | null, effects: readonly Statement[]): Promise<void>;
  stepStarted(run: RunId, ordinal: number, name: string): Promise<void>;
  stepDone(
    run: RunId,
    ordinal: number,
    summary: string,
    result: Json,
    effects: readonly Statement[],
  ): Promise<void>;
  stepFailed(run: RunId, ordinal: number, summary: string): Promise<void>;
  /** Results of finished steps, by name. */
  results(run: RunId): Promise<ReadonlyMap<string, Json>>;
  steps(run: RunId): Promise<readonly RunStep[]>;
  get(run: RunId): Promise<StoredRun | undefined>;
  list(environment: string | undefined, limit: number): Promise<readonly StoredRun[]>;
  running(): Promise<readonly StoredRun[]>;
  /** Appends to the timeline of the environment. */
  event(event: Omit<TimelineEvent, "ordinal" | "at">): Promise<void>;
  /** Events with an ordinal greater than `after`, oldest first. */
  events(environment: string, after: number, limit: number, run?: RunId): Promise<readonly TimelineEvent[]>;
}

export interface LedgerPorts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
}

export async function openRunLedger(ports: LedgerPorts): Promise<RunLedger> {
  const { store, clock, random } = ports;
  const { db } = store;
  const ordinals = new Map<string, number>();
  const rows = await db
    .selectFrom("event")
    .select((select) => ["environment", select.fn.max("ordinal").as("last")])
    .groupBy("environment")
    .execute();
  for (const { environment, last } of rows) ordinals.set(environment, last);

  function eventStatement(event: Omit<TimelineEvent, "ordinal" | "at">): Statement {
    const ordinal = (ordinals.get(event.environment) ?? 0) + 1;
    ordinals.set(event.environment, ordinal);
    const values = { ...event, ordinal, at: clock.now(), fields: JSON.stringify(event.fields) };
    return { query: db.insertInto("event").values(values).compile() };
  }

  /** Names the other run; that there is none is decided within the commit. */
  async function refuseSecond(environment: string): Promise<void> {
    const other = await db
      .selectFrom("run")
      .select(["id", "kind"])
      .where("environment", "=", environment)
      .where("state", "=", "running")
      .executeTakeFirst();
    if (other === undefined) return;
    throw new OperationalError(
      "state.conflict",
      `environment "${environment}" is in a ${other.kind} already: see "understudy run show ${other.id}"`,
    );
  }

  /** The check and the record are one statement: of two runs begun in the same moment, one is refused. */
  function beginStatement(row: RunTable): Statement {
    const columns = Object.keys(row) as (keyof RunTable)[];
    const other = db
      .selectFrom("run")
      .select("id")
      .where("environment", "=", row.environment)
      .where("state", "=", "running");
    const record = db
      .selectNoFrom(columns.map((column) => sql.val(row[column]).as(column)))
      .where((where) => where.not(where.exists(other)));
    return {
      query: db.insertInto("run").columns(columns).expression(record).compile(),
      expectRows: 1,
      onMismatch: () =>
        new OperationalError(
          "state.conflict",
          `environment "${row.environment}" has begun another run in the same moment: see "understudy status"`,
        ),
    };
  }

  return {
    async begin(run, effects) {
      const id = runId(`${run.kind}-${random.hex(4)}`);
      const startedAt = clock.now();
      const values = {
        id,
        environment: run.environment,
        kind: run.kind,
        state: "running",
        trigger: run.trigger,
        reason: run.reason,
        epoch: run.epoch,
        input: JSON.stringify(run.input),
        started_at: startedAt,
        finished_at: null,
        error: null,
      };
      await refuseSecond(run.environment);
      await store.commit([
        beginStatement(values),
        ...effects,
        eventStatement({
          environment: run.environment,
          run: id,
          severity: run.kind === "drill" ? "info" : "warning",
          message: `${run.kind} begun by ${run.trigger}: ${run.reason}`,
          fields: {},
        }),
      ]);
      return toRun(values);
    },

    async finish(run, state, error, effects) {
      const row = await db.selectFrom("run").selectAll().where("id", "=", run).executeTakeFirstOrThrow();
      await store.commit([
        {
          query: db
            .updateTable("run")
            .set({ state, error, finished_at: clock.now() })
            .where("id", "=", run)
            .where("state", "=", "running")
            .compile(),
          expectRows: 1,
          onMismatch: () => new OperationalError("state.conflict", `run ${run} has already ended`),
        },
        ...effects,
        eventStatement({
          environment: row.environment,
          run,
          severity: state === "succeeded" ? "info" : "error",
          message: `${row.kind} ${state.replace("_", " ")}${error === null ? "" : `: ${error}`}`,
          fields: {},
        }),
      ]);
    },

    async stepStarted(run, ordinal, name) {
      const startedAt = clock.now();
      const fresh = {
        state: "running",
        attempts: 1,
        started_at: startedAt,
        finished_at: null,
        result: null,
        summary: null,
      };
      await store.commit([
        {
          query: db
            .insertInto("run_step")
            .values({ run, ordinal, name, ...fresh })
            .onConflict((conflict) =>
              conflict.columns(["run", "ordinal"]).doUpdateSet((update) => ({
                state: "running",
                attempts: update("run_step.attempts", "+", 1),
              })),
            )
            .compile(),
        },
      ]);
    },

    async stepDone(run, ordinal, summary, result, effects) {
      await store.commit([
        {
          query: db
            .updateTable("run_step")
            .set({ state: "done", finished_at: clock.now(), summary, result: JSON.stringify(result) })
            .where("run", "=", run)
            .where("ordinal", "=", ordinal)
            .compile(),
          expectRows: 1,
        },
        ...effects,
      ]);
    },

    async stepFailed(run, ordinal, summary) {
      await store.commit([
        {
          query: db
            .updateTable("run_step")
            .set({ state: "failed", finished_at: clock.now(), summary })
            .where("run", "=", run)
            .where("ordinal", "=", ordinal)
            .compile(),
          expectRows: 1,
        },
      ]);
    },

    async results(run) {
      const done = await db
        .selectFrom("run_step")
        .select(["name", "result"])
        .where("run", "=", run)
        .where("state", "=", "done")
        .execute();
      return new Map(done.map(({ name, result }) => [name, JSON.parse(result ?? "null") as Json]));
    },

    async steps(run) {
      const found = await db
        .selectFrom("run_step")
        .selectAll()
        .where("run", "=", run)
        .orderBy("ordinal")
        .execute();
      return found.map(toStep);
    },

    async get(run) {
      const row = await db.selectFrom("run").selectAll().where("id", "=", run).executeTakeFirst();
      return row === undefined ? undefined : toRun(row);
    },

    async list(environment, limit) {
      let query = db.selectFrom("run").selectAll().orderBy("started_at", "desc").limit(limit);
      if (environment !== undefined) query = query.where("environment", "=", environment);
      return (await query.execute()).map(toRun);
    },

    async running() {
      return (await db.selectFrom("run").selectAll().where("state", "=", "running").execute()).map(toRun);
    },

    async event(event) {
      await store.commit([eventStatement(event)]);
    },

    async events(environment, after, limit, run) {
      let query = db
        .selectFrom("event")
        .selectAll()
        .where("environment", "=", environment)
        .where("ordinal", ">", after)
        .orderBy("ordinal")
        .limit(limit);
      if (run !== undefined) query = query.where("run", "=", run);
      return (await query.execute()).map(toEvent);
    },
  };
}

function toRun(row: RunTable): StoredRun {
  return {
    id: runId(row.id),
    environment: environmentId(row.environment),
    kind: row.kind as RunKind,
    state: row.state as RunState,
    trigger: row.trigger,
    reason: row.reason,
    epoch: row.epoch,
    input: JSON.parse(row.input) as Json,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    error: row.error,
  };
}

function toStep(row: RunStepTable): RunStep {
  return {
    run: runId(row.run),
    ordinal: row.ordinal,
    name: row.name,
    state: row.state as RunStep["state"],
    attempts: row.attempts,
    startedAt: row.started_at,
    finishedAt: row.finished_at,
    summary: row.summary,
    result: row.result === null ? null : (JSON.parse(row.result) as Json),
  };
}

function toEvent(row: EventTable): TimelineEvent {
  return {
    ...row,
    severity: row.severity as TimelineEvent["severity"],
    fields: JSON.parse(row.fields) as Json,
  };
}
