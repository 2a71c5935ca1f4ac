/** The one row that says where an environment stands: which site is which, its phase, its fencing epoch. */
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, siteId, type EnvironmentId, type SiteId } from "#kernel/ids.ts";
import type { EnvironmentPhase } from "#model/run.ts";
import type { Statement, Store } from "#store/contract.ts";
import type { Clock } from "#kernel/clock.ts";

export interface EnvironmentRecord {
  readonly id: EnvironmentId;
  /** The site whose API the journal's commands went to. */
  readonly activeSite: SiteId;
  readonly standbySite: SiteId;
  readonly phase: EnvironmentPhase;
  readonly epoch: number;
  readonly updatedAt: number;
}

/** Which site users' traffic belongs to in this phase. */
export function servingSite(record: EnvironmentRecord): SiteId {
  switch (record.phase) {
    case "failing_over":
      return record.standbySite;
    case "protected":
    case "failed_over":
    case "failing_back":
    case "migrating":
      return record.activeSite;
  }
}

/** No run moves it. */
export function isAtRest({ phase }: Pick<EnvironmentRecord, "phase">): boolean {
  return phase === "protected" || phase === "failed_over";
}

export async function readEnvironment(store: Store, id: string): Promise<EnvironmentRecord> {
  const row = await store.db.selectFrom("environment").selectAll().where("id", "=", id).executeTakeFirst();
  if (row === undefined) {
    const known = await store.db.selectFrom("environment").select("id").execute();
    const names = known.map((one) => one.id).join(", ") || "none";
    throw new OperationalError(
      "not_found",
      `there is no environment "${id}"; the environments are: ${names}`,
    );
  }
  return {
    id: environmentId(row.id),
    activeSite: siteId(row.active_site),
    standbySite: siteId(row.standby_site),
    phase: row.phase as EnvironmentPhase,
    epoch: row.epoch,
    updatedAt: row.updated_at,
  };
}

/** Makes the row of an environment that the configuration names for the first time; never changes one that stands. */
export async function ensureEnvironment(
  store: Store,
  clock: Clock,
  environment: { readonly id: string; readonly active: string; readonly standby: string },
): Promise<EnvironmentRecord> {
  await store.commit([
    {
      query: store.db
        .insertInto("environment")
        .values({
          id: environment.id,
          active_site: environment.active,
          standby_site: environment.standby,
          phase: "protected",
          epoch: 1,
          updated_at: clock.now(),
        })
        .onConflict((conflict) => conflict.column("id").doNothing())
        .compile(),
    },
  ]);
  return readEnvironment(store, environment.id);
}

export interface EnvironmentMove {
  readonly phase: EnvironmentPhase;
  /** Default: unchanged. A higher epoch fences everyone who still holds the old one. */
  readonly epoch?: number;
  readonly activeSite?: string;
  readonly standbySite?: string;
}

/** One compare-and-set on the epoch: of two that would move the environment, one is refused with `state.fenced`. */
export function moveEnvironment(
  store: Store,
  clock: Clock,
  from: EnvironmentRecord,
  to: EnvironmentMove,
): Statement {
  return {
    query: store.db
      .updateTable("environment")
      .set({
        phase: to.phase,
        epoch: to.epoch ?? from.epoch,
        active_site: to.activeSite ?? from.activeSite,
        standby_site: to.standbySite ?? from.standbySite,
        updated_at: clock.now(),
      })
      .where("id", "=", from.id)
      .where("epoch", "=", from.epoch)
      .compile(),
    expectRows: 1,
    onMismatch: () =>
      new OperationalError(
        "state.fenced",
        `environment "${from.id}" has left epoch ${from.epoch}: another run has moved it since`,
      ),
  };
}
