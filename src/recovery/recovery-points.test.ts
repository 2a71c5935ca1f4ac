import assert from "node:assert/strict";
import { test } from "node:test";
import { environmentId, resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { KeptPoint, KeptVerdict } from "#recovery/kept-points.ts";
import { keepEvidence, markVerified, type RecoveryPoint, RecoveryPoints } from "#recovery/recovery-points.ts";
import type { KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createVirtualClock, type VirtualClock } from "#testing/virtual-clock.ts";

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

  readonly evidence = new Map<string, { readonly at: number; readonly text: string }>();
  readonly joining: string[] = [];
  /** What happens while the vault looks for the moment. */
  onMoment: () => void = () => {};
  sequence = 7;

  desk(): VaultDesk {
    const desk: Partial<VaultDesk> = {
      volumes: async () =>
        this.joining.map(
          (name) => ({ volume: name, state: "synchronising", reason: "first_copy" }) as KeptVolume,
        ),
      moment: async () => {
        const { sequence } = this;
        this.onMoment();
        return { sequence, at: 1_700_000_000_000 };
      },
      keepPoint: async (_group, point) => void this.points.set(point.id, point),
      keepVerdict: async (_group, { id }, verdict) => void this.verdicts.set(id, verdict),
      keepEvidence: async (_group, { id }, evidence) => void this.evidence.set(id, evidence),
      keptEvidence: async (_group, id) => this.evidence.get(id)?.text ?? "",
      keptPoints: async () =>
        [...this.points.values()].map(({ configuration: _configuration, ...point }) => ({
          ...point,
          disks: { "vol-1": "a-point" },
          verdict: this.verdicts.get(point.id) ?? null,
          evidenceAt: this.evidence.get(point.id)?.at ?? null,
        })),
      keptConfiguration: async (_group, id) => this.points.get(id)?.configuration ?? "",
    };
    return desk as VaultDesk;
  }
}

interface Place {
  readonly site: string;
  readonly epoch: number;
  readonly volumes: readonly Resource[];
}

const home: Place = { site: "east", epoch: 1, volumes: [volume] };

function pointsOf(
  store: Store,
  kept: KeptPoints,
  place: Place = home,
  clock: VirtualClock = createVirtualClock(),
): RecoveryPoints {
  return new RecoveryPoints({
    context: {
      environment,
      state: () => EnvironmentState.of(place.volumes),
      servingSite: () => place.site,
      epoch: () => place.epoch,
      position: () => 12,
    },
    select: { role: "database" },
    desk: kept.desk(),
    store,
    clock,
    random: systemRandom,
    log: silentLog,
    everyMs: 3_600_000,
    hostOf: () => undefined,
    consistency: "crash",
    freezeLimitMs: 1000,
  });
}

/** Runs the loop until the list is as wanted. */
async function follow(
  store: Store,
  kept: KeptPoints,
  done: (points: readonly RecoveryPoint[]) => boolean,
  place: Place = home,
): Promise<readonly RecoveryPoint[]> {
  const clock = createVirtualClock();
  const points = pointsOf(store, kept, place, clock);
  const stop = new AbortController();
  const following = async (): Promise<readonly RecoveryPoint[]> => {
    const running = points.run(stop.signal);
    try {
      for (let turn = 0; turn < 1000; turn += 1) {
        const listed = await points.list();
        if (done(listed)) return listed;
        await clock.sleep(100);
      }
      throw new Error(`the points are ${JSON.stringify(await points.list())}`);
    } finally {
      stop.abort(new Error("the test is over"));
      await running;
    }
  };
  return clock.drive(following());
}

test("a database that was lost has its recovery points again, with their verdicts; what the vault let go is listed no more", async () => {
  const kept = new KeptPoints();
  const first = await openSqliteStore({ path: ":memory:" });
  const [made] = await follow(first, kept, (points) => points.length === 1);
  assert.ok(made !== undefined);
  assert.deepEqual([made.sequence, made.journalPosition, made.resources], [7, 12, 1]);
  assert.deepEqual([...kept.points.keys()], [made.id], "it is in the vault too");
  const evidence = { at: 98, good: true, summary: "whole", servers: [] };
  await first.commit([
    keepEvidence(first, environment, 7, evidence),
    markVerified(first, environment, 7, { at: 99, summary: "whole" }),
  ]);
  await follow(first, kept, () => kept.verdicts.size === 1);
  assert.deepEqual(kept.evidence.get(made.id), { at: 98, text: JSON.stringify(evidence) });
  await first.close();

  const second = await openSqliteStore({ path: ":memory:" });
  const [again] = await follow(second, kept, (points) => points.length === 1);
  assert.deepEqual(again, { ...made, verifiedAt: 99 });
  const { signal } = new AbortController();
  assert.deepEqual(await pointsOf(second, kept).evidence(made.id, signal), evidence, "out of the vault");
  await assert.rejects(pointsOf(second, kept).evidence("point-9", signal), { code: "not_found" });

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

test("a point that the environment moves under is not made of both sides", async () => {
  const kept = new KeptPoints();
  const store = await openSqliteStore({ path: ":memory:" });
  const place = { site: "east", epoch: 1, volumes: [volume] };
  kept.onMoment = () => {
    // Once: the roles are exchanged while the vault is asked.
    if (place.site === "west") return;
    kept.sequence = 8;
    Object.assign(place, { site: "west", epoch: 2, volumes: [{ ...volume, id: resourceId("vol-w") }] });
  };
  const points = await follow(store, kept, (listed) => listed.length > 0, place);
  assert.deepEqual(
    points.map(({ site, sequence, volumes }) => [site, sequence, volumes]),
    [["west", 8, { "vol-w": "vol-w" }]],
  );
  await store.close();
});

test("a volume of which nothing is whole yet keeps no others from their point", async () => {
  const kept = new KeptPoints();
  const store = await openSqliteStore({ path: ":memory:" });
  kept.joining.push("vol-2");
  const volumes = [volume, { ...volume, id: resourceId("vol-2") }];
  const place = { site: "east", epoch: 1, volumes };
  const [made] = await follow(store, kept, (listed) => listed.length > 0, place);
  assert.deepEqual(made?.volumes, { "vol-1": "vol-1" });
  await store.close();
});
