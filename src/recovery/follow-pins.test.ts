import assert from "node:assert/strict";
import { test } from "node:test";
import type { DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { planPin, planUnpin, PinFollower } from "#recovery/follow-pins.ts";
import type { PinnedMoment } from "#recovery/vault-desk.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";

const minute = 60_000;

const pinOf = (site: string, volumeId: string, sequence: number): PinnedMoment => ({
  volume: "vol-1",
  sequence,
  taker: { site, volumeId },
  uri: `nbd+unix:///moment/shop/vol-1/${sequence}?socket=/vault.sock`,
  since: 0,
});
const seedOf = ({ taker: { volumeId }, uri }: PinnedMoment, state: SeedStatus["state"]): SeedStatus => ({
  volumeId,
  uri,
  state,
  copiedBytes: 1,
  totalBytes: 1,
});

test("a pin ends when its disk has all of it, or when no host has ever claimed it", () => {
  const pin = pinOf("west", "vol-w", 5);
  const other = pinOf("west", "vol-w", 4);
  const ended = (seeds: readonly SeedStatus[], nowMs: number): boolean =>
    planUnpin([pin], seeds, nowMs).length === 1;
  assert.ok(!ended([seedOf(pin, "copying")], 1e9), "however long it takes");
  assert.ok(!ended([seedOf(pin, "waiting")], 1e9));
  assert.ok(ended([seedOf(pin, "done")], 1));
  assert.ok(!ended([], minute), "its host may be about to be told");
  assert.ok(!ended([seedOf(other, "done")], minute), "another moment's copy says nothing of this one");
  assert.ok(ended([seedOf(other, "copying")], 60 * minute), "the disk takes another moment by now");
  assert.ok(ended([], 60 * minute));
});

test("a site that does not answer keeps its own pins, and no other's", async () => {
  const clock = createVirtualClock();
  const stop = new AbortController();
  const pins = new Set([pinOf("east", "vol-e", 1), pinOf("west", "vol-w", 2)]);
  const over = Promise.withResolvers<void>();
  let asked = 0;
  const hosts: Record<string, Partial<DiskHost>> = {
    east: {
      seeds: async () => {
        asked += 1;
        if (asked === 3) over.resolve();
        throw new OperationalError("machine.failing", "it does not answer");
      },
    },
    west: { seeds: async () => [...pins].map((pin) => seedOf(pin, "done")) },
  };
  const follower = new PinFollower({
    environment: environmentId("shop"),
    desk: {
      pins: async () => [...pins],
      pin: () => Promise.reject(new Error("every pin is known")),
      unpin: async (_group, { sequence }) => {
        for (const pin of pins) if (pin.sequence === sequence) pins.delete(pin);
      },
    },
    hostOf: (site) => hosts[site] as DiskHost,
    sites: ["east", "west"],
    clock,
    log: silentLog,
  });
  const running = follower.run(stop.signal);
  await clock.drive(over.promise);
  stop.abort();
  await running;
  assert.deepEqual(
    [...pins].map(({ taker }) => taker.site),
    ["east"],
  );
});

test("what a disk still reads is pinned again where the vault has forgotten it", () => {
  const shop = environmentId("shop");
  const pin = pinOf("west", "vol-w", 5);
  const seed = seedOf(pin, "copying");
  assert.deepEqual(planPin(shop, [], [seed, seedOf(pinOf("west", "vol-x", 6), "waiting")]), [
    { volume: "vol-1", sequence: 5, at: 0, volumeId: "vol-w" },
    { volume: "vol-1", sequence: 6, at: 0, volumeId: "vol-x" },
  ]);
  assert.deepEqual(planPin(shop, [pin], [seed]), []);
  assert.deepEqual(planPin(shop, [], [seedOf(pin, "done")]), []);
  assert.deepEqual(planPin(environmentId("other"), [], [seed]), []);
  const point = { ...seed, uri: "nbd+unix:///point/vol-1?socket=/vault.sock" };
  assert.deepEqual(planPin(shop, [], [point]), []);
});
