import assert from "node:assert/strict";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { resourceId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { createDiskMover } from "#recovery/create-disk-mover.ts";
import { FakeContext, FakeHost, FakeVault, keptTags, memoryDisk } from "#recovery/disk-peers.fixture.ts";
import type { DiskMover } from "#recovery/disk-mover.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createVirtualClock } from "#testing/virtual-clock.ts";

const { signal } = new AbortController();
const disk = { sourceId: resourceId("vol-1"), targetId: resourceId("vol-1") };
const moment = { sequence: 7, at: 7000 };

interface Stage {
  readonly mover: DiskMover;
  readonly host: FakeHost;
  readonly vault: FakeVault;
  readonly target: Buffer;
  /** What the next openings give; absent: both sides as they should be. */
  readonly openings: Map<string, () => BlockDevice>;
}

/** A disk of ones, and a moment of it that is all twos. */
async function move(play: (stage: Stage) => Promise<void>): Promise<void> {
  const clock = createVirtualClock();
  const store = await openSqliteStore({ path: ":memory:", clock });
  const [place, host, vault] = [new FakeContext(["vol-1"]), new FakeHost(), new FakeVault()];
  const target = Buffer.alloc(3 * 1024 * 1024, 1);
  const source = Buffer.alloc(target.length, 2);
  const openings = new Map<string, () => BlockDevice>();
  const mover = createDiskMover({
    context: place.context,
    select: keptTags,
    desk: vault.desk,
    hostOf: () => host.host,
    openDisk: async (uri) => openings.get(uri)?.() ?? memoryDisk(uri === "vault:moment" ? source : target),
    store,
    clock,
    log: silentLog,
  });
  try {
    await play({ mover, host, vault, target, openings });
  } finally {
    await store.close();
  }
}

test("a restore that breaks off half-way keeps machines away until it was done to its end", () =>
  move(async ({ mover, host, target, openings }) => {
    openings.set("disk:vol-1", () => memoryDisk(target, 2));
    await assert.rejects(mover.restore("east", disk, moment, signal), (error) =>
      isOperational(error, "nbd.unreachable"),
    );
    assert.ok(host.exported.has("vol-1"), "what is exported starts no machine");
    assert.equal(await mover.given("east", disk.targetId), "half");
    // The vault is gone: that changes nothing of it.
    openings.set("vault:moment", () => {
      throw new OperationalError("nbd.unreachable", "nothing answers");
    });
    await assert.rejects(mover.restore("east", disk, moment, signal));
    assert.ok(host.exported.has("vol-1"));
    openings.clear();
    const { writtenBytes } = await mover.restore("east", disk, moment, signal);
    assert.ok(writtenBytes > 0 && writtenBytes < target.length, "only what was still missing");
    assert.ok(target.every((byte) => byte === 2));
    assert.ok(!host.exported.has("vol-1"));
    assert.deepEqual(await mover.given("east", disk.targetId), { sequence: 7 });
  }));

test("a disk that is half restored is taken as it is when a person says so, and no other", () =>
  move(async ({ mover, host, target, openings }) => {
    await mover.accept("east", disk.targetId, signal);
    assert.equal(await mover.given("east", disk.targetId), null);
    openings.set("disk:vol-1", () => memoryDisk(target, 2));
    await assert.rejects(mover.restore("east", disk, moment, signal));
    const [before] = [Buffer.from(target)];
    openings.set("vault:moment", () => {
      throw new OperationalError("nbd.unreachable", "the vault is gone for good");
    });
    for (let said = 0; said < 2; said += 1) await mover.accept("east", disk.targetId, signal);
    assert.ok(!host.exported.has("vol-1"), "machines start with it again");
    assert.equal(await mover.given("east", disk.targetId), null);
    assertSameBytes(target, before);
  }));

test("a restore whose disk can't be opened leaves it as it was", () =>
  move(async ({ mover, host, openings }) => {
    openings.set("disk:vol-1", () => {
      throw new OperationalError("nbd.unreachable", "nothing answers");
    });
    await assert.rejects(mover.restore("east", disk, moment, signal));
    assert.ok(!host.exported.has("vol-1"));
    assert.equal(await mover.given("east", disk.targetId), null);
  }));

test("what can't be restored is known before anything is touched", () =>
  move(async ({ mover, host, vault, openings }) => {
    await mover.check("east", disk, moment, signal);
    openings.set("vault:moment", () => {
      throw new OperationalError("nbd.unreachable", "nothing answers");
    });
    await assert.rejects(mover.check("east", disk, moment, signal));
    openings.clear();
    host.silent = true;
    await assert.rejects(mover.check("east", disk, moment, signal));
    host.silent = false;
    vault.desk.serve = async () => ({ uri: "vault:moment", sizeBytes: 2 * 1024 ** 3 });
    await assert.rejects(mover.check("east", disk, moment, signal), (error) =>
      isOperational(error, "input.invalid"),
    );
    assert.deepEqual(host.did, []);
    assert.equal(host.exported.size, 0);
  }));
