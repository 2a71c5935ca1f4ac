/** The journal's statements, compiled once. What reads, reads everything that was recorded. */
import type { CompiledQuery, Kysely } from "kysely";
import { sql } from "kysely";
import { queryTemplate } from "#store/query-template.ts";
import type { Store } from "#store/contract.ts";
import type { CommandTable, Schema } from "#store/schema.ts";

type Db = Kysely<Schema>;

const intentTexts = ["environment", "id", "service", "operation", "input", "token", "principal"] as const;
const intentNumbers = ["seq", "epoch", "intent_at"] as const;

type IntentColumn = (typeof intentTexts)[number] | (typeof intentNumbers)[number];
type Values<Name extends string> = Readonly<Record<Name, unknown>>;

/**
 * Inserts only while the environment has the intent's epoch: the check and the record are one statement, so no
 * failover can come between. PostgreSQL needs the casts to know the parameters' types.
 */
function insertIntent(db: Db): (values: Values<IntentColumn>) => CompiledQuery {
  return queryTemplate<IntentColumn>((slot) =>
    db
      .insertInto("command")
      .columns([...intentTexts, ...intentNumbers])
      .expression((eb) =>
        eb
          .selectFrom("environment as e")
          .select([
            ...intentTexts.map((name) => sql<string>`cast(${slot(name)} as text)`.as(name)),
            ...intentNumbers.map((name) => sql<number>`cast(${slot(name)} as bigint)`.as(name)),
          ])
          .where("e.id", "=", slot<string>("environment"))
          .where("e.epoch", "=", slot<number>("epoch")),
      ),
  );
}

export type OutcomeColumn =
  | "position"
  | "result"
  | "status"
  | "error_code"
  | "changes"
  | "gaps"
  | "resolved_later"
  | "outcome_at";

/** Touches the row only while it is open: a final outcome is never changed. */
function completeCommand(db: Db): (values: Values<OutcomeColumn | "environment" | "id">) => CompiledQuery {
  return queryTemplate<OutcomeColumn | "environment" | "id">((slot) =>
    db
      .updateTable("command")
      .set({
        position: slot<number>("position"),
        result: slot<string>("result"),
        status: slot<number>("status"),
        error_code: slot<string>("error_code"),
        changes: slot<string>("changes"),
        gaps: slot<string>("gaps"),
        resolved_later: slot<number>("resolved_later"),
        outcome_at: slot<number>("outcome_at"),
      })
      .where("environment", "=", slot<string>("environment"))
      .where("id", "=", slot<string>("id"))
      .where("position", "is", null),
  );
}

export interface JournalQueries {
  readonly insertIntent: ReturnType<typeof insertIntent>;
  readonly completeCommand: ReturnType<typeof completeCommand>;
  lastSeq(environment: string): Promise<number>;
  /** The greatest id of a command; "" if there is none. */
  lastId(environment: string): Promise<string>;
  head(environment: string): Promise<number>;
  openCount(environment: string): Promise<number>;
  open(environment: string): Promise<CommandTable[]>;
  after(environment: string, position: number, limit: number): Promise<CommandTable[]>;
  changesAfter(
    environment: string,
    position: number,
    limit: number,
  ): Promise<{ position: number; changes: string | null }[]>;
  before(environment: string, seq: number, limit: number): Promise<CommandTable[]>;
  byId(environment: string, id: string): Promise<CommandTable | undefined>;
}

export function journalQueries(store: Store): JournalQueries {
  const { db } = store;
  const everything = (): Promise<void> => store.showAppended();
  const lastSeq = queryTemplate<"environment">((slot) =>
    db
      .selectFrom("command")
      .select((eb) => eb.fn.max("seq").as("last"))
      .where("environment", "=", slot<string>("environment")),
  );
  const head = queryTemplate<"environment">((slot) =>
    db
      .selectFrom("command")
      .select("position")
      .where("environment", "=", slot<string>("environment"))
      .where("position", "is not", null)
      .orderBy("position", "desc")
      .limit(1),
  );
  const after = queryTemplate<"environment" | "after" | "limit">((slot) =>
    db
      .selectFrom("command")
      .selectAll()
      .where("environment", "=", slot<string>("environment"))
      .where("position", ">", slot<number>("after"))
      .orderBy("position")
      .limit(slot<number>("limit")),
  );
  const changesAfter = queryTemplate<"environment" | "after" | "limit">((slot) =>
    db
      .selectFrom("command")
      .select(["position", "changes"])
      .where("environment", "=", slot<string>("environment"))
      .where("position", ">", slot<number>("after"))
      .orderBy("position")
      .limit(slot<number>("limit")),
  );
  return {
    insertIntent: insertIntent(db),
    completeCommand: completeCommand(db),
    async lastSeq(environment) {
      await everything();
      const { rows } = await db.executeQuery(lastSeq({ environment }));
      return (rows[0] as { last: number | null } | undefined)?.last ?? 0;
    },
    async lastId(environment) {
      await everything();
      const row = await db
        .selectFrom("command")
        .select((eb) => eb.fn.max("id").as("last"))
        .where("environment", "=", environment)
        .executeTakeFirst();
      return row?.last ?? "";
    },
    async head(environment) {
      await everything();
      const { rows } = await db.executeQuery(head({ environment }));
      return (rows[0] as { position: number } | undefined)?.position ?? 0;
    },
    async openCount(environment) {
      await everything();
      const row = await db
        .selectFrom("command")
        .select((eb) => eb.fn.countAll().as("open"))
        .where("environment", "=", environment)
        .where("position", "is", null)
        .executeTakeFirst();
      return Number(row?.open ?? 0);
    },
    open: async (environment) => {
      await everything();
      return db
        .selectFrom("command")
        .selectAll()
        .where("environment", "=", environment)
        .where("position", "is", null)
        .orderBy("seq")
        .execute();
    },
    async after(environment, position, limit) {
      await everything();
      const { rows } = await db.executeQuery(after({ environment, after: position, limit }));
      return rows as CommandTable[];
    },
    async changesAfter(environment, position, limit) {
      await everything();
      const { rows } = await db.executeQuery(changesAfter({ environment, after: position, limit }));
      return rows as { position: number; changes: string | null }[];
    },
    before: async (environment, seq, limit) => {
      await everything();
      return db
        .selectFrom("command")
        .selectAll()
        .where("environment", "=", environment)
        .where("seq", "<", seq)
        .orderBy("seq", "desc")
        .limit(limit)
        .execute();
    },
    byId: async (environment, id) => {
      await everything();
      return db
        .selectFrom("command")
        .selectAll()
        .where("environment", "=", environment)
        .where("id", "=", id)
        .executeTakeFirst();
    },
  };
}
