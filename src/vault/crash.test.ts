import assert from "node:assert/strict";
import { test } from "node:test";
import { BLOCK_BYTES } from "./block-ref.ts";
import { LEASE_MS, SKEW_MS } from "./leases.ts";
import { openVault } from "./open-vault.ts";
import type { PointId } from "./point-manifest.ts";
import { type StorageFault, type StorageOperation, faultyStorage } from "./storage/faulty-storage.ts";
import { type MemoryStorage, memoryStorage } from "./storage/memory-storage.ts";
import {
  type ManualClock,
  manualClock,
  memoryDisk,
  newVault,
  passphrase,
  readWhole,
  text,
} from "./vault.fixture.ts";

/** A disk, and the same after some writes. */
const first = Buffer.concat([text(1, 3 * BLOCK_BYTES), Buffer.alloc(BLOCK_BYTES)]);
const second = Buffer.from(first);
second.write("changed", 100);
text(2, BLOCK_BYTES).copy(second, 2 * BLOCK_BYTES);
const changed = [
  { offset: 100, length: 7 },
  { offset: 2 * BLOCK_BYTES, length: BLOCK_BYTES },
];

interface Stage {
  readonly storage: MemoryStorage;
  readonly clock: ManualClock;
}

async function stageWithOnePoint(): Promise<Stage> {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  await vault.writePoint({ volumeId: "v", sizeBytes: first.length, source: memoryDisk(first) });
  return { storage, clock };
}

/** Writes the second point over a store that fails from the n-th operation on. Returns whether it was told that all is well. */
async function writeSecond({ storage, clock }: Stage, at: number, how: StorageFault): Promise<boolean> {
  const dying = faultyStorage(storage, (_, number) =>
    number < at ? "none" : number === at ? how : "before",
  );
  try {
    const vault = await openVault({ storage: dying, unlock: passphrase(), threads: 0, clock });
    const [base] = await vault.listPoints("v");
    clock.advance(60_000);
    const source = memoryDisk(second);
    await vault.writePoint({
      volumeId: "v",
      sizeBytes: second.length,
      source,
      changed,
      ...(base === undefined ? {} : { base: base.id }),
    });
    return true;
  } catch {
    return false;
  }
}

/** What a run asks of the store, call by call. */
interface Calls {
  readonly made: StorageOperation[];
  readonly count: (operation: StorageOperation) => StorageFault;
}

function countCalls(): Calls {
  const made: StorageOperation[] = [];
  return {
    made,
    count: (operation) => {
      made.push(operation);
      return "none";
    },
  };
}

/** Where and how to die. Dying after a call that changes nothing is dying before the next one. */
function deaths(
  made: readonly StorageOperation[],
): { readonly at: number; readonly how: "before" | "after" }[] {
  return made.flatMap((operation, n) => [
    { at: n + 1, how: "before" as const },
    ...(operation === "put" || operation === "delete" ? [{ at: n + 1, how: "after" as const }] : []),
  ]);
}

async function operationsOfSecond(): Promise<StorageOperation[]> {
  const stage = await stageWithOnePoint();
  const { made, count } = countCalls();
  const counted = faultyStorage(stage.storage, count);
  const vault = await openVault({ storage: counted, unlock: passphrase(), threads: 0, clock: stage.clock });
  const [base] = await vault.listPoints("v");
  if (base === undefined) throw new Error("the first point is there");
  await vault.writePoint({
    volumeId: "v",
    sizeBytes: second.length,
    source: memoryDisk(second),
    changed,
    base: base.id,
  });
  return made;
}

test("a writer that dies at any operation of the store leaves whole points, and nothing that collection does not remove", async () => {
  const made = await operationsOfSecond();
  const operations = made.length;
  assert.ok(operations > 10, `${operations} operations`);
  for (const { at, how } of [...deaths(made), { at: operations + 1, how: "before" as const }]) {
    const what = `dead ${how} operation ${at} of ${operations}`;
    const stage = await stageWithOnePoint();
    const told = await writeSecond(stage, at, how);
    assert.equal(told || at <= operations, true, what);
    const vault = await openVault({
      storage: stage.storage,
      unlock: passphrase(),
      threads: 0,
      clock: stage.clock,
    });
    const points = await vault.listPoints("v");
    assert.ok(points.length === 2 || (points.length === 1 && !told), what);
    const disks = [first, second];
    for (const [n, { id }] of points.entries()) {
      await using point = await vault.openPoint(id);
      assert.ok((await readWhole(point)).equals(disks[n] as Buffer), `${what}: point ${n}`);
    }
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, [], what);
    // The dead writer's lease runs out; two runs later only what the points need is left.
    stage.clock.advance(LEASE_MS + 2 * SKEW_MS);
    await vault.collectGarbage();
    stage.clock.advance(2 * SKEW_MS);
    const { waiting } = await vault.collectGarbage();
    assert.deepEqual(waiting, [], what);
    assert.equal(await spareBytes(stage.storage, vault), 0, what);
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, [], what);
    for (const [n, { id }] of points.entries()) {
      await using point = await vault.openPoint(id);
      assert.ok((await readWhole(point)).equals(disks[n] as Buffer), `${what}: point ${n} after collection`);
    }
    // The vault is as good as new: the next point can be written.
    const next = await vault.writePoint({
      volumeId: "v",
      sizeBytes: second.length,
      source: memoryDisk(second),
    });
    await using point = await vault.openPoint(next.id);
    assert.ok((await readWhole(point)).equals(second), what);
  }
});

/** Bytes of packs of which no point needs anything: what a fresh run of both phases would still remove. */
async function spareBytes(
  storage: MemoryStorage,
  vault: Awaited<ReturnType<typeof openVault>>,
): Promise<number> {
  const before = [...storage.objects.keys()].filter((name) => name.startsWith("packs/")).length;
  const { condemnedPacks } = await vault.collectGarbage();
  const after = [...storage.objects.keys()].filter((name) => name.startsWith("packs/")).length;
  return condemnedPacks + (before - after);
}

/** A vault in which collection has all of its work to do: to delete, to empty a pack, to condemn, to rewrite an index. */
async function stageForCollection(): Promise<Stage & { readonly disk: Buffer; readonly id: PointId }> {
  const clock = manualClock();
  const storage = memoryStorage(clock);
  const vault = await newVault(storage, { clock });
  const write = async (disk: Buffer): Promise<PointId> =>
    (await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) })).id;
  const disk = text(1, 4 * BLOCK_BYTES);
  const old = await write(disk);
  text(7, 3 * BLOCK_BYTES).copy(disk, BLOCK_BYTES);
  const gone = await write(text(8, BLOCK_BYTES));
  const id = await write(disk);
  await vault.deletePoint(gone);
  await vault.collectGarbage();
  clock.advance(2 * SKEW_MS);
  await vault.deletePoint(old);
  return { storage, clock, disk, id };
}

test("a collector that dies at any operation of the store takes nothing that is needed, and the next one ends its work", async () => {
  const collect = async (
    { storage, clock }: Stage,
    fault: (operation: StorageOperation, number: number) => StorageFault,
  ): Promise<void> => {
    const dying = faultyStorage(storage, fault);
    const options = { storage: dying, unlock: passphrase(), threads: 0, clock };
    await openVault(options)
      .then((vault) => vault.collectGarbage({ mergeIndexAbove: 0 }))
      .catch(() => {});
  };
  const whole = await stageForCollection();
  const { compactedPacks, condemnedPacks, deletedPacks } = await (
    await openVault({ ...whole, unlock: passphrase(), threads: 0 })
  ).collectGarbage();
  assert.deepEqual(
    [compactedPacks, condemnedPacks, deletedPacks],
    [1, 1, 2],
    "it has all kinds of work to do",
  );
  const { made, count } = countCalls();
  await collect(await stageForCollection(), count);
  for (const { at, how } of deaths(made)) {
    const what = `dead ${how} operation ${at} of ${made.length}`;
    const stage = await stageForCollection();
    await collect(stage, (_, number) => (number < at ? "none" : number === at ? how : "before"));
    const check = async (): Promise<void> => {
      const vault = await openVault({ ...stage, unlock: passphrase(), threads: 0 });
      assert.deepEqual((await vault.verify({ depth: "full" })).lost, [], what);
      await using point = await vault.openPoint(stage.id, { lease: "none" });
      assert.ok((await readWhole(point)).equals(stage.disk), what);
    };
    await check();
    stage.clock.advance(LEASE_MS + 2 * SKEW_MS);
    for (let run = 0; run < 3; run += 1) {
      await collect(stage, () => "none");
      stage.clock.advance(2 * SKEW_MS);
    }
    await check();
    const vault = await openVault({ ...stage, unlock: passphrase(), threads: 0 });
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, [], what);
    assert.equal(await spareBytes(stage.storage, vault), 0, what);
  }
});
