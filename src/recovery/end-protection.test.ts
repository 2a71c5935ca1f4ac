import assert from "node:assert/strict";
import { test } from "node:test";
import { listGaps, recordGap } from "#environment/gaps.ts";
import { silentLog } from "#kernel/log.ts";
import { capture, captureUri, environment, FakeHost } from "#recovery/disk-peers.fixture.ts";
import { endProtection } from "#recovery/end-protection.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";

test("an environment that keeps no disks any more has its captures ended, and its gaps of them cleared", async () => {
  const clock = createVirtualClock();
  const store = await openSqliteStore({ path: ":memory:", clock });
  const [east, west] = [new FakeHost(), new FakeHost()];
  east.captured.set("vol-1", capture("vol-1"));
  east.captured.set("vol-9", capture("vol-9", { uri: captureUri("vol-9").replace("shop", "bank") }));
  west.captured.set("vol-2", capture("vol-2"));
  west.silent = true;
  const gap = { code: "data.behind", severity: "degraded", message: "behind" } as const;
  await store.commit([recordGap(store, environment, gap, 0)]);
  const hosts = new Map([
    ["east", east.host],
    ["west", west.host],
  ]);
  await clock.drive(
    (async () => {
      const ended = endProtection(
        { environment, hosts, store, clock, log: silentLog },
        new AbortController().signal,
      );
      await clock.sleep(60_000);
      assert.deepEqual([...east.captured.keys()], ["vol-9"], "another environment's goes on");
      assert.ok(west.captured.has("vol-2"));
      west.silent = false;
      await ended;
      assert.equal(west.captured.size, 0);
    })(),
  );
  assert.deepEqual(await listGaps(store, environment), []);
  await store.close();
});
