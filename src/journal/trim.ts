import type { EnvironmentId } from "#kernel/ids.ts";
import type { Store } from "#store/contract.ts";
import type { JournalQueries } from "./journal-queries.ts";

/** One bounded batch of `Journal.trim`. */
export async function trimJournal(
  store: Store,
  queries: JournalQueries,
  environment: EnvironmentId,
  upTo: number,
  limit: number,
): Promise<number> {
  const { db } = store;
  const passed = await db
    .selectFrom("reader")
    .select((eb) => eb.fn.min("position").as("position"))
    .where("environment", "=", environment)
    .executeTakeFirst();
  const slowest = passed?.position ?? null;
  if (slowest === null) return 0;
  const bound = Math.min(upTo, slowest, (await queries.head(environment)) - 1);
  const newestSeq = await queries.lastSeq(environment);
  const removable = await db
    .selectFrom("command")
    .select("seq")
    .where("environment", "=", environment)
    .where("position", "<=", bound)
    .where("seq", "<", newestSeq)
    .orderBy("position")
    .limit(limit)
    .execute();
  if (removable.length === 0) return 0;
  const seqs = removable.map((row) => row.seq);
  const query = db
    .deleteFrom("command")
    .where("environment", "=", environment)
    .where("seq", "in", seqs)
    // A reader that was added or set back since the look keeps what it has not read.
    .where((eb) =>
      eb.not(
        eb.exists(
          eb
            .selectFrom("reader")
            .select("name")
            .where("reader.environment", "=", environment)
            .where("reader.position", "<", bound),
        ),
      ),
    )
    .compile();
  await store.commit([{ query, expectRows: seqs.length }]);
  return seqs.length;
}
