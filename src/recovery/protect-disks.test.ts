import assert from "node:assert/strict";
import { test } from "node:test";
import { listGaps } from "#environment/gaps.ts";
import { resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { hostWithin } from "#recovery/answer-within.ts";
import {
  capture,
  captureUri,
  environment,
  FakeContext,
  FakeHost,
  FakeVault,
  keptTags,
} from "#recovery/disk-peers.fixture.ts";
import { writeContent } from "#recovery/kept-contents.ts";
import { DiskProtection } from "#recovery/protect-disks.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createVirtualClock, type VirtualClock } from "#testing/virtual-clock.ts";

interface Stage {
  readonly place: FakeContext;
  readonly east: FakeHost;
  readonly west: FakeHost;
  readonly vault: FakeVault;
  readonly store: Store;
  readonly clock: VirtualClock;
  readonly protection: DiskProtection;
}

/** Protects while `play` goes on. */
async function protect(volumes: readonly string[], play: (stage: Stage) => Promise<void>): Promise<void> {
  const clock = createVirtualClock();
  const store = await openSqliteStore({ path: ":memory:", clock });
  const [place, east, west, vault] = [
    new FakeContext(volumes),
    new FakeHost(),
    new FakeHost(),
    new FakeVault(),
  ];
  const hosts: Record<string, FakeHost> = { east, west };
  const protection = new DiskProtection({
    context: place.context,
    select: keptTags,
    desk: vault.desk,
    hostOf: (site) => hosts[site] && hostWithin(hosts[site].host, site, clock),
    sites: ["east", "west"],
    store,
    clock,
    log: silentLog,
    stallLimitMs: 1000,
    pointsEveryMs: 600_000,
  });
  const stop = new AbortController();
  try {
    await clock.drive(
      (async () => {
        const running = protection.run(stop.signal);
        await play({ place, east, west, vault, store, clock, protection });
        stop.abort();
        await running;
      })(),
    );
  } finally {
    await store.close();
  }
}

async function told(store: Store): Promise<readonly string[]> {
  return (await listGaps(store, environment)).map(({ message }) => message);
}

test("a capture is begun, and told to the vault when its host calls it whole", () =>
  protect(["vol-1"], async ({ east, vault, store, clock }) => {
    await clock.sleep(5000);
    assert.deepEqual(east.did, ["start vol-1"]);
    assert.ok(vault.did.includes("whole vol-1"));
    assert.deepEqual(await told(store), []);
  }));

test("a site that was left and hangs holds up nothing where the environment serves", () =>
  protect(["vol-1"], async ({ place, east, west, vault, clock, protection }) => {
    await clock.sleep(2000);
    east.hung = true;
    [place.site, place.epoch] = ["west", 2];
    vault.keep("vol-1", { state: "synchronising", confirmed: false });
    vault.did.length = 0;
    const from = clock.now();
    await clock.sleep(5000);
    assert.deepEqual(west.did, ["start vol-1"]);
    assert.ok(vault.did.includes("whole vol-1"), "its moments are whole");
    assert.ok((protection.disks[0]?.seenAt ?? 0) - from >= 4000, "it is looked at again and again");
    // Back, it is told to stop.
    east.hung = false;
    await clock.sleep(30_000);
    assert.ok(east.did.includes("stop vol-1"));
  }));

test("a host that hangs where the environment serves is a gap, and is asked again", () =>
  protect(["vol-1"], async ({ east, store, clock }) => {
    east.hung = true;
    await clock.sleep(15_000);
    const [message] = await told(store);
    assert.match(message ?? "", /the host agent of "east" has not answered for 10 s \(captures\)/u);
    east.hung = false;
    await clock.sleep(15_000);
    assert.deepEqual(east.did, ["start vol-1"]);
    assert.deepEqual(await told(store), []);
  }));

test("a volume that is gone is released, so that the others' moments go on", () =>
  protect(["vol-1", "vol-2"], async ({ place, east, vault, clock }) => {
    await clock.sleep(3000);
    // An agent's own, of which there is no record here.
    vault.keep("of-an-agent");
    place.volumes.pop();
    await clock.sleep(3000);
    assert.deepEqual([...vault.kept.keys()], ["vol-1", "of-an-agent"]);
    assert.deepEqual([...east.captured.keys()], ["vol-1"], "and is captured no more");
  }));

test("captures of other environments are left alone", () =>
  protect(["vol-1"], async ({ east, clock }) => {
    const uri = captureUri("vol-9").replace("shop", "bank");
    assert.notEqual(uri, captureUri("vol-9"));
    east.captured.set("vol-9", capture("vol-9", { uri }));
    await clock.sleep(3000);
    assert.ok(east.captured.has("vol-9"));
  }));

test("a copy that does not come to its end is told of, with what can still be recovered to", () =>
  protect(["vol-1"], async ({ east, vault, store, clock }) => {
    const since = clock.now();
    const state = "synchronising";
    east.captured.set("vol-1", capture("vol-1", { state, reason: "bitmap", since }));
    vault.keep("vol-1", { state, reason: "interruption", confirmed: false });
    vault.status = { last: { sequence: 1, at: since - 5000 }, oldest: { sequence: 1, at: since - 5000 } };
    await clock.sleep(50_000);
    assert.deepEqual(await told(store), [], "at first it is only late");
    await clock.sleep(20_000);
    assert.deepEqual(await told(store), [
      `volume vol-1 is being copied since ${new Date(since).toISOString()}; no moment newer than ${new Date(since - 5000).toISOString()} can be recovered to`,
    ]);
    east.captured.set("vol-1", capture("vol-1"));
    await clock.sleep(3000);
    assert.deepEqual(await told(store), []);
  }));

test("a volume that nothing has is told of, if it was never whole", () =>
  protect(["vol-1"], async ({ east, vault, store, clock }) => {
    const state = "synchronising";
    const late = capture("vol-1", { state, reason: "not_attached", since: clock.now() });
    east.captured.set("vol-1", late);
    vault.keep("vol-1", { state, confirmed: false });
    await clock.sleep(70_000);
    const [message] = await told(store);
    assert.match(message ?? "", /no machine has volume vol-1.*a takeover now would be without it/u);
    // Detached after it was whole, nothing can have been written to it.
    vault.keep("vol-1");
    await clock.sleep(3000);
    assert.deepEqual(await told(store), []);
  }));

test("recovery points that are not made, although something was captured, are a gap", () =>
  protect(["vol-1"], async ({ vault, store, clock }) => {
    const first = { sequence: 1, at: clock.now() - 1_300_000 };
    vault.status = { last: { sequence: 9, at: clock.now() - 200_000 }, oldest: first };
    await clock.sleep(3000);
    assert.deepEqual(await told(store), [], "two of them may be missing");
    vault.status = { last: { sequence: 9, at: clock.now() }, oldest: first };
    await clock.sleep(3000);
    const [message] = await told(store);
    assert.match(message ?? "", /a recovery point is to be made every 600 s, and there is none/u);
  }));

test("a disk that is part old and part new is a gap", () =>
  protect(["vol-1"], async ({ store, clock }) => {
    const kept = { environment, site: "east", volumeId: resourceId("vol-1"), lineage: "vol-1", at: 0 };
    await store.commit([writeContent(store, { ...kept, content: "half" })]);
    await clock.sleep(3000);
    const [message] = await told(store);
    assert.match(message ?? "", /vol-1 is part old and part new/u);
    await store.commit([writeContent(store, { ...kept, content: null })]);
    await clock.sleep(3000);
    assert.deepEqual(await told(store), []);
  }));

test("a disk that an agent in its guest brings is no gap, until its last whole pass is too old", () =>
  protect(["vol-1"], async ({ place, vault, store, clock, protection }) => {
    place.site = "aws";
    await clock.sleep(2000);
    assert.match((await told(store)).join(), /has no host agent.*run `understudy agent` in the guest/u);
    const atMs = clock.now();
    vault.keep("vol-1", { image: { id: "agent:web:0011aabb:7", atMs, base: null, throughBytes: 0 } });
    await clock.sleep(2000);
    assert.deepEqual(await told(store), []);
    assert.deepEqual(protection.disks[0]?.passes, { agent: "web", at: atMs });
    await clock.sleep(1_210_000);
    assert.match((await told(store)).join(), /the last whole pass of agent "web"/u);
    // A cloud's own snapshot is no pass of an agent.
    vault.keep("vol-1", { image: { id: "snap-0123", atMs, base: null, throughBytes: 0 } });
    await clock.sleep(2000);
    assert.equal(protection.disks[0]?.passes, null);
  }));
