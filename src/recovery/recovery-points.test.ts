import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { environmentId, resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { KeptPoint, KeptVerdict } from "#recovery/kept-points.ts";
import { markVerified, type RecoveryPoint, RecoveryPoints } from "#recovery/recovery-points.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";

const environment = environmentId("shop");
const volume = {
  kind: "volume",
  id: resourceId("vol-1"),
  tags: { role: "database" },
  spec: { sizeGiB: 1 },
} as unknown as Resource;

/** The vault's side: what it keeps outlives any control plane. */
class KeptPoints {
  readonly points = new Map<string, KeptPoint>();
  readonly verdicts = new Map<string, KeptVerdict>();

  desk(): VaultDesk {
    const desk: Partial<VaultDesk> = {
      moment: async () => ({ sequence: 7, at: 1_700_000_000_000 }),
      keepPoint: async (_group, point) => void this.points.set(point.id, point),
      keepVerdict: async (_group, { id }, verdict) => void this.verdicts.set(id, verdict),
      keptPoints: async () =>
        [...this.points.values()].map(({ configuration: _configuration, ...point }) => ({
          ...point,
          disks: { "vol-1": "a-point" },
          verdict: this.verdicts.get(point.id) ?? null,
        })),
      keptConfiguration: async (_group, id) => this.points.get(id)?.configuration ?? "",
    };
    return desk as VaultDesk;
  }
}

/** Runs the loop until the list is as wanted. */
async function follow(
  store: Store,
  kept: KeptPoints,
  done: (points: readonly RecoveryPoint[]) => boolean,
): Promise<readonly RecoveryPoint[]> {
  const points = new RecoveryPoints({
    context: {
      environment,
      state: () => EnvironmentState.of([volume]),
      servingSite: () => "east",
      epoch: () => 1,
      position: () => 12,
    },
    select: { role: "database" },
    desk: kept.desk(),
    store,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    everyMs: 3_600_000,
    hostOf: () => undefined,
    consistency: "crash",
    freezeLimitMs: 1000,
  });
  const stop = new AbortController();
  const running = points.run(stop.signal);
  try {
    for (let turn = 0; turn < 1000; turn += 1) {
      const listed = await points.list();
      if (done(listed)) return listed;
      await systemClock.sleep(5);
    }
    throw new Error(`the points are ${JSON.stringify(await points.list())}`);
  } finally {
    stop.abort(new Error("the test is over"));
    await running;
  }
}

test("a database that was lost has its recovery points again, with their verdicts; what the vault let go is listed no more", async () => {
  const kept = new KeptPoints();
  const first = await openSqliteStore({ path: ":memory:" });
  const [made] = await follow(first, kept, (points) => points.length === 1);
  assert.ok(made !== undefined);
  assert.deepEqual([made.sequence, made.journalPosition, made.resources], [7, 12, 1]);
  assert.deepEqual([...kept.points.keys()], [made.id], "it is in the vault too");
  await first.commit([markVerified(first, environment, 7, { at: 99, summary: "whole" })]);
  await follow(first, kept, () => kept.verdicts.size === 1);
  await first.close();

  const second = await openSqliteStore({ path: ":memory:" });
  const [again] = await follow(second, kept, (points) => points.length === 1);
  assert.deepEqual(again, { ...made, verifiedAt: 99 });

  const stored = kept.points.get(made.id);
  assert.ok(stored !== undefined);
  kept.points.set("point-2", { ...stored, id: "point-2", at: made.at + 1 });
  kept.points.delete(made.id);
  const left = await follow(second, kept, (points) => points[0]?.id === "point-2" && points.length === 1);
  assert.deepEqual(
    left.map(({ id }) => id),
    ["point-2"],
  );
  await second.close();
});
