import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import { openFileSource } from "./file-source.ts";
import { initVault, openVault } from "./open-vault.ts";
import { openFolderStorage } from "./storage/folder-storage.ts";
import { memoryStorage } from "./storage/memory-storage.ts";
import { memoryDisk, newVault, passphrase, readWhole, reopen, text } from "./vault.fixture.ts";

const MiB = 1024 * 1024;

test("a disk comes back byte for byte, from the store and the key alone", async () => {
  const storage = memoryStorage();
  const disk = text(1, 3 * MiB + 12_345);
  disk.fill(0, MiB, 2 * MiB);
  const vault = await newVault(storage);
  const written = await vault.writePoint({
    volumeId: "vol/1 ü",
    sizeBytes: disk.length,
    source: memoryDisk(disk),
  });
  await vault[Symbol.asyncDispose]();
  const again = await reopen(storage);
  const points = await again.listPoints("vol/1 ü");
  assert.deepEqual(
    points.map((point) => [point.id, point.volumeId]),
    [[written.id, "vol/1 ü"]],
  );
  await using point = await again.openPoint(written.id);
  assert.ok((await readWhole(point)).equals(disk));
  assert.deepEqual(await point.extents(0, disk.length), [
    { offset: 0, length: MiB, kind: "data" },
    { offset: MiB, length: MiB, kind: "zero" },
    { offset: 2 * MiB, length: MiB + 12_345, kind: "data" },
  ]);
  assert.deepEqual(
    await point.read(MiB - 3, 6),
    Buffer.concat([disk.subarray(MiB - 3, MiB), Buffer.alloc(3)]),
  );
});

test("a session begins with small packs, so that a small point is on its way while the rest is made", async () => {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  const random = randomBytes(64 * MiB);
  const write = (from: number, sizeBytes: number): Promise<unknown> =>
    vault.writePoint({
      volumeId: `from ${from}`,
      sizeBytes,
      source: memoryDisk(random.subarray(from, from + sizeBytes)),
    });
  const packs = async (): Promise<number[]> => {
    const sizes: number[] = [];
    for await (const { sizeBytes } of storage.list("packs/")) sizes.push(Math.floor(sizeBytes / MiB));
    return sizes.sort((a, b) => a - b);
  };
  await write(0, 48 * MiB);
  // The first holds map nodes; what is random does not shrink.
  assert.deepEqual(await packs(), [0, 4, 4, 8, 16, 16]);
  await write(50 * MiB, 5 * MiB);
  assert.deepEqual(await packs(), [0, 0, 1, 4, 4, 4, 8, 16, 16], "also where buffers of all sizes wait");
});

test("worker threads and a file give the same point as work in place", async () => {
  const folder = await mkdtemp(join(tmpdir(), "vault-threads-"));
  try {
    const disk = Buffer.concat([text(2, 20 * MiB), Buffer.alloc(5 * MiB), text(3, 9 * MiB + 1)]);
    await writeFile(join(folder, "disk"), disk);
    const storage = await openFolderStorage(join(folder, "vault"));
    const vault = await newVault(storage, { threads: 2 });
    await using source = await openFileSource(join(folder, "disk"));
    const fromFile = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source });
    const fromMemory = await vault.writePoint({
      volumeId: "v",
      sizeBytes: disk.length,
      source: memoryDisk(disk),
    });
    assert.deepEqual(fromMemory.root, fromFile.root);
    assert.equal(fromMemory.cost.storedBytes, 0);
    await using point = await vault.openPoint(fromFile.id);
    assert.ok((await readWhole(point)).equals(disk));
    const back = join(folder, "back");
    assert.deepEqual((await vault.restoreToFile(fromFile.id, back)).missing, []);
    assert.ok((await readFile(back)).equals(disk));
    const copy = Buffer.alloc(disk.length);
    await vault.restoreTo(fromFile.id, { write: async (offset, bytes) => copy.set(bytes, offset) });
    assert.ok(copy.equals(disk));
    await vault[Symbol.asyncDispose]();
    await storage.close();
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a thread that ends is one turn's failure: the next one begins its threads anew", async () => {
  await using vault = await newVault(memoryStorage(), { threads: 1 });
  const { keys } = vault.context;
  // Without keys a thread ends in its first step.
  Object.assign(vault.context, { keys: {} });
  const broken = vault.pool();
  Object.assign(vault.context, { keys });
  await assert.rejects(broken.finish());
  const disk = text(3, MiB);
  const point = { volumeId: "vol", sizeBytes: disk.length, source: memoryDisk(disk) };
  const { id } = await vault.writePoint(point);
  await using read = await vault.openPoint(id);
  assert.ok((await readWhole(read)).equals(disk));
});

test("threads restore small blobs too, from a store whose buffers cannot be given away", async () => {
  const storage = memoryStorage();
  const disk = Buffer.alloc(40 * BLOCK_BYTES);
  for (let block = 0; block < 40; block += 1) disk.write(`block ${block}`, block * BLOCK_BYTES);
  const vault = await newVault(storage, { threads: 2 });
  const { id } = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const copy = Buffer.alloc(disk.length);
  await vault.restoreTo(id, { write: async (offset, bytes) => copy.set(bytes, offset) });
  assert.ok(copy.equals(disk));
  await vault[Symbol.asyncDispose]();
});

test("the same content is stored once, over volumes and over vault users", async () => {
  const storage = memoryStorage();
  const disk = text(4, 2 * MiB);
  const first = await newVault(storage);
  await first.writePoint({ volumeId: "a", sizeBytes: disk.length, source: memoryDisk(disk) });
  const second = await reopen(storage);
  const copy = Buffer.concat([disk, text(5, BLOCK_BYTES)]);
  const point = await second.writePoint({ volumeId: "b", sizeBytes: copy.length, source: memoryDisk(copy) });
  assert.ok(point.cost.newBytes < 2 * BLOCK_BYTES, `${point.cost.newBytes} new bytes`);
});

test("a point with a base costs what changed, and small writes cost small", async () => {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  const disk = text(6, 70 * MiB);
  const base = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
  const changed = Buffer.from(disk);
  const ranges = [
    { offset: 5_000, length: 4096 },
    { offset: BLOCK_BYTES - 10, length: 20 },
    { offset: 66 * MiB, length: 2 * BLOCK_BYTES },
  ];
  for (const [n, { offset, length }] of ranges.entries()) text(100 + n, length).copy(changed, offset);
  const source = memoryDisk(changed);
  const next = await vault.writePoint({
    volumeId: "v",
    sizeBytes: disk.length,
    source,
    base: base.id,
    changed: ranges,
  });
  assert.equal(source.readBytes, 4096 + 20 + 2 * BLOCK_BYTES);
  await using point = await vault.openPoint(next.id);
  assert.ok((await readWhole(point)).equals(changed));
  await using before = await vault.openPoint(base.id);
  assert.ok((await readWhole(before)).equals(disk));
});

test("a wrong passphrase is vault.key; any of several keys opens; no vault is not_found", async () => {
  const storage = memoryStorage();
  await assert.rejects(reopen(storage), (error) => isOperational(error, "not_found"));
  const vault = await newVault(storage);
  await assert.rejects(newVault(storage), (error) => isOperational(error, "state.conflict"));
  const wrong = { storage, unlock: passphrase("wrong"), threads: 0 };
  await assert.rejects(openVault(wrong), (error) => isOperational(error, "vault.key"));
  await vault.addKey(passphrase("second"), { N: 2, r: 1, p: 1 });
  const keyService = {
    name: "test key 1",
    wrap: async (key: Uint8Array) => key.map((byte) => byte ^ 0x5a),
    unwrap: async (key: Uint8Array) => key.map((byte) => byte ^ 0x5a),
  };
  await vault.addKey({ keyService });
  for (const unlock of [passphrase(), passphrase("second"), { keyService }])
    assert.equal((await openVault({ storage, unlock, threads: 0 })).id, vault.id);
  await assert.rejects(openVault(wrong), (error) => isOperational(error, "vault.key"));
  assert.equal((await initVault({ storage: memoryStorage(), unlock: { keyService } })).id.length, 32);
});
