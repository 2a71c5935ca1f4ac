/** The list of what is not protected: rows of their own, seen again and cleared, never lines of a log. */
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Gap, GapCode } from "#model/gap.ts";
import { gapKey } from "#model/gap.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { Statement, Store } from "#store/contract.ts";

export interface RecordedGap extends Gap {
  readonly firstAt: number;
  readonly lastAt: number;
}

const severityOrder: Readonly<Record<Gap["severity"], number>> = { lost: 0, degraded: 1, note: 2 };

/** The worst first. */
export async function listGaps(store: Store, environment: EnvironmentId): Promise<RecordedGap[]> {
  const rows = await store.db
    .selectFrom("gap")
    .selectAll()
    .where("environment", "=", environment)
    .orderBy("first_at")
    .orderBy("key")
    .execute();
  return rows
    .map((row) => ({
      code: row.code as GapCode,
      severity: row.severity as Gap["severity"],
      ...(row.kind === null || row.resource === null
        ? {}
        : { resource: { kind: row.kind as ResourceKind, id: row.resource } }),
      ...(row.operation === null ? {} : { operation: row.operation }),
      message: row.message,
      firstAt: row.first_at,
      lastAt: row.last_at,
    }))
    .toSorted((a, b) => severityOrder[a.severity] - severityOrder[b.severity]);
}

/** A gap that is there already keeps the time at which it was first seen. */
export function recordGap(store: Store, environment: EnvironmentId, gap: Gap, at: number): Statement {
  const seen = {
    severity: gap.severity,
    message: gap.message,
    last_at: at,
  };
  return {
    query: store.db
      .insertInto("gap")
      .values({
        environment,
        key: gapKey(gap),
        code: gap.code,
        kind: gap.resource?.kind ?? null,
        resource: gap.resource?.id ?? null,
        operation: gap.operation ?? null,
        first_at: at,
        ...seen,
      })
      .onConflict((conflict) => conflict.columns(["environment", "key"]).doUpdateSet(seen))
      .compile(),
  };
}

export function clearGap(store: Store, environment: EnvironmentId, key: string): Statement {
  return {
    query: store.db.deleteFrom("gap").where("environment", "=", environment).where("key", "=", key).compile(),
  };
}

export function clearGapsOfCode(store: Store, environment: EnvironmentId, code: GapCode): Statement {
  return {
    query: store.db
      .deleteFrom("gap")
      .where("environment", "=", environment)
      .where("code", "=", code)
      .compile(),
  };
}

/** With a resource go the gaps about it. */
export function clearGapsOf(
  store: Store,
  environment: EnvironmentId,
  kind: ResourceKind,
  id: string,
): Statement {
  return {
    query: store.db
      .deleteFrom("gap")
      .where("environment", "=", environment)
      .where("kind", "=", kind)
      .where("resource", "=", id)
      .compile(),
  };
}

/**
 * Makes the gaps of `codes` that are about resources exactly `current`: those whose cause is gone are cleared. Gaps about an
 * operation came from the journal and stay.
 */
export async function replaceGaps(
  store: Store,
  environment: EnvironmentId,
  codes: readonly GapCode[],
  current: readonly Gap[],
  at: number,
): Promise<void> {
  const wanted = new Map(current.map((gap) => [gapKey(gap), gap]));
  const known = await listGaps(store, environment);
  const before = new Map(known.map((gap) => [gapKey(gap), gap]));
  const gone = known.filter(
    (gap) => codes.includes(gap.code) && gap.operation === undefined && !wanted.has(gapKey(gap)),
  );
  const news = [...wanted].filter(([key, gap]) => {
    const old = before.get(key);
    return old === undefined || old.message !== gap.message || old.severity !== gap.severity;
  });
  if (gone.length === 0 && news.length === 0) return;
  await store.commit([
    ...gone.map((gap) => clearGap(store, environment, gapKey(gap))),
    ...news.map(([, gap]) => recordGap(store, environment, gap, at)),
  ]);
}
