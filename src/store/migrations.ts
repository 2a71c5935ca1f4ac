/**
 * The schema's history: numbered, forward only, each in a transaction of its own with its record. Portable
 * between SQLite and PostgreSQL, so that one list serves both: text and bigint, no engine's own types.
 * A migration that was released is never edited; a change is a new number.
 */
import type { CreateTableBuilder, Kysely } from "kysely";
import { OperationalError } from "#kernel/errors.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Schema } from "./schema.ts";

interface MigrationTable {
  version: number;
  name: string;
  applied_at: number;
}

interface Migrated {
  migration: MigrationTable;
}

interface Migration {
  readonly version: number;
  readonly name: string;
  up(db: Kysely<Migrated>): Promise<void>;
}

type Columns = Readonly<Record<string, "text" | "bigint" | "text?" | "bigint?">>;

/** A table whose primary key is `key`; `?` marks a column that may be null. */
async function table(
  db: Kysely<Migrated>,
  name: string,
  columns: Columns,
  key: readonly string[],
): Promise<void> {
  let builder: CreateTableBuilder<string, string> = db.schema.createTable(name);
  for (const [column, type] of Object.entries(columns)) {
    builder = builder.addColumn(column, type.startsWith("text") ? "text" : "bigint", (definition) =>
      type.endsWith("?") ? definition : definition.notNull(),
    );
  }
  await builder.addPrimaryKeyConstraint(`${name}_key`, [...key]).execute();
}

const environments = (db: Kysely<Migrated>): Promise<void> =>
  table(
    db,
    "environment",
    {
      id: "text",
      active_site: "text",
      standby_site: "text",
      phase: "text",
      epoch: "bigint",
      updated_at: "bigint",
    },
    ["id"],
  );

async function journal(db: Kysely<Migrated>): Promise<void> {
  await table(
    db,
    "command",
    {
      environment: "text",
      seq: "bigint",
      id: "text",
      service: "text",
      operation: "text",
      input: "text",
      token: "text?",
      principal: "text",
      epoch: "bigint",
      intent_at: "bigint",
      position: "bigint?",
      result: "text?",
      status: "bigint?",
      error_code: "text?",
      changes: "text?",
      gaps: "text?",
      resolved_later: "bigint?",
      outcome_at: "bigint?",
    },
    ["environment", "seq"],
  );
  await db.schema.createIndex("command_id").unique().on("command").columns(["environment", "id"]).execute();
  await db.schema
    .createIndex("command_position")
    .unique()
    .on("command")
    .columns(["environment", "position"])
    .where((eb) => eb("position" as never, "is not", null))
    .execute();
  await db.schema
    .createIndex("command_open")
    .on("command")
    .columns(["environment", "seq"])
    .where((eb) => eb("position" as never, "is", null))
    .execute();
  await table(db, "reader", { environment: "text", name: "text", position: "bigint" }, [
    "environment",
    "name",
  ]);
}

async function resources(db: Kysely<Migrated>): Promise<void> {
  await table(
    db,
    "resource",
    {
      environment: "text",
      kind: "text",
      id: "text",
      spec: "text",
      tags: "text",
      aliases: "text",
      position: "bigint",
    },
    ["environment", "kind", "id"],
  );
  await table(
    db,
    "pairing",
    {
      environment: "text",
      scope: "text",
      kind: "text",
      active_id: "text",
      standby_id: "text?",
      state: "text",
      token: "text",
      applied: "text",
      counterpart: "text?",
      updated_at: "bigint",
    },
    ["environment", "scope", "kind", "active_id"],
  );
  await db.schema
    .createIndex("pairing_standby")
    .on("pairing")
    .columns(["environment", "scope", "standby_id"])
    .execute();
  await table(
    db,
    "gap",
    {
      environment: "text",
      key: "text",
      code: "text",
      severity: "text",
      kind: "text?",
      resource: "text?",
      operation: "text?",
      message: "text",
      first_at: "bigint",
      last_at: "bigint",
    },
    ["environment", "key"],
  );
}

async function runs(db: Kysely<Migrated>): Promise<void> {
  await table(
    db,
    "run",
    {
      id: "text",
      environment: "text",
      kind: "text",
      state: "text",
      trigger: "text",
      reason: "text",
      epoch: "bigint",
      input: "text",
      started_at: "bigint",
      finished_at: "bigint?",
      error: "text?",
    },
    ["id"],
  );
  await db.schema.createIndex("run_environment").on("run").columns(["environment", "started_at"]).execute();
  await table(
    db,
    "run_step",
    {
      run: "text",
      ordinal: "bigint",
      name: "text",
      state: "text",
      attempts: "bigint",
      started_at: "bigint",
      finished_at: "bigint?",
      result: "text?",
      summary: "text?",
    },
    ["run", "ordinal"],
  );
  await table(
    db,
    "event",
    {
      environment: "text",
      ordinal: "bigint",
      run: "text?",
      at: "bigint",
      severity: "text",
      message: "text",
      fields: "text",
    },
    ["environment", "ordinal"],
  );
  await db.schema.createIndex("event_run").on("event").columns(["run", "ordinal"]).execute();
}

async function surroundings(db: Kysely<Migrated>): Promise<void> {
  await table(
    db,
    "notice",
    {
      environment: "text",
      witness: "text",
      probe: "text",
      code: "text",
      raised: "bigint",
      detail: "text",
      since: "bigint",
      at: "bigint",
    },
    ["environment", "witness", "probe", "code"],
  );
  await table(db, "catalogue", { site: "text", data: "text", at: "bigint" }, ["site"]);
  await table(
    db,
    "route",
    { environment: "text", route: "text", epoch: "bigint", target: "text", updated_at: "bigint" },
    ["environment", "route"],
  );
  await table(db, "lease", { name: "text", holder: "text", epoch: "bigint", expires_at: "bigint" }, ["name"]);
}

async function keptDisks(db: Kysely<Migrated>): Promise<void> {
  await table(
    db,
    "kept_volume",
    { environment: "text", site: "text", volume_id: "text", lineage: "text", since: "bigint" },
    ["environment", "site", "volume_id"],
  );
  await table(
    db,
    "recovery_point",
    {
      environment: "text",
      id: "text",
      at: "bigint",
      sequence: "bigint",
      journal_position: "bigint",
      consistency: "text",
      site: "text",
      resources: "text",
      volumes: "text",
      verified_at: "bigint?",
      verdict: "text?",
    },
    ["environment", "id"],
  );
  await db.schema
    .createIndex("recovery_point_at")
    .on("recovery_point")
    .columns(["environment", "at"])
    .execute();
}

const migrations: readonly Migration[] = [
  {
    version: 1,
    name: "first schema",
    async up(db) {
      await environments(db);
      await journal(db);
      await resources(db);
      await runs(db);
      await surroundings(db);
    },
  },
  {
    version: 2,
    name: "disks whose content is kept",
    up: keptDisks,
  },
  {
    version: 3,
    name: "what a run has written into kept disks",
    async up(db) {
      await db.schema.alterTable("kept_volume").addColumn("content", "text").execute();
    },
  },
  {
    version: 4,
    name: "what a recovery point's consistency and verdict rest on",
    async up(db) {
      await db.schema.alterTable("recovery_point").addColumn("consistency_note", "text").execute();
      await db.schema.alterTable("recovery_point").addColumn("evidence", "text").execute();
    },
  },
  {
    version: 5,
    name: "what is durable before it is in the tables",
    up: (db) => table(db, "redo", { owner: "text", applied: "bigint" }, ["owner"]),
  },
];

/** The newest version that this program knows. */
export const schemaVersion = migrations.length;

async function appliedVersion(db: Kysely<Migrated>): Promise<number> {
  const row = await db
    .selectFrom("migration")
    .select((eb) => eb.fn.max("version").as("version"))
    .executeTakeFirst();
  return row?.version ?? 0;
}

function tooNew(where: string, applied: number): OperationalError {
  return new OperationalError(
    "store.version",
    `${where} has schema version ${applied}, this program knows ${schemaVersion}: use the understudy release that wrote it, or a newer one`,
  );
}

/** For a reader, which changes nothing. Errors: `store.version` unless the schema is exactly this program's. */
export async function requireKnownSchema(database: Kysely<Schema>, where: string): Promise<void> {
  const applied = await appliedVersion(database as unknown as Kysely<Migrated>);
  if (applied > schemaVersion) throw tooNew(where, applied);
  if (applied < schemaVersion) {
    throw new OperationalError(
      "store.version",
      `${where} has schema version ${applied}, this program reads ${schemaVersion}: start the engine once, it upgrades the file`,
    );
  }
}

/**
 * Brings the schema to this program's version. `where` names the database in errors.
 * Errors: `store.version` for a database that a newer program wrote.
 */
export async function migrate(database: Kysely<Schema>, where: string, clock: Clock): Promise<void> {
  const db = database as unknown as Kysely<Migrated>;
  await db.schema
    .createTable("migration")
    .ifNotExists()
    .addColumn("version", "bigint", (column) => column.primaryKey())
    .addColumn("name", "text", (column) => column.notNull())
    .addColumn("applied_at", "bigint", (column) => column.notNull())
    .execute();
  const applied = await appliedVersion(db);
  if (applied > schemaVersion) throw tooNew(where, applied);
  for (const migration of migrations.slice(applied)) {
    await db.transaction().execute(async (transaction) => {
      await migration.up(transaction);
      await transaction
        .insertInto("migration")
        .values({ version: migration.version, name: migration.name, applied_at: clock.now() })
        .execute();
    });
  }
}
