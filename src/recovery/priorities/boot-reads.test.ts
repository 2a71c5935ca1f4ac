import assert from "node:assert/strict";
import { test } from "node:test";
import { OperationalError } from "#kernel/errors.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { newVault, reopen } from "#vault/vault.fixture.ts";
import { openBootReads } from "./boot-reads.ts";

async function namesIn(storage: ReturnType<typeof memoryStorage>): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of storage.list("reads/")) names.push(name);
  return names;
}

test("whoever opens the vault has what a start read, the newest of it, for each volume, group and kind", async () => {
  const storage = memoryStorage();
  {
    await using vault = await newVault(storage);
    const boot = openBootReads(vault, "shop", "boot");
    await boot.save("vol-1", [3, 1]);
    await boot.save("vol-1", [4, 1, 5]);
    await boot.save("disk of db/1", [9]);
    await openBootReads(vault, "shop", "files").save("vol-1", [7]);
    await openBootReads(vault, "blog", "boot").save("vol-1", [8]);
  }
  await using vault = await reopen(storage);
  const boot = openBootReads(vault, "shop", "boot");
  assert.deepEqual(await boot.load("vol-1"), [4, 1, 5]);
  assert.deepEqual(await boot.load("disk of db/1"), [9]);
  assert.deepEqual(await boot.load("vol-2"), []);
  assert.deepEqual(await openBootReads(vault, "shop", "files").load("vol-1"), [7]);
  assert.deepEqual(await openBootReads(vault, "blog", "boot").load("vol-1"), [8]);
  assert.equal((await namesIn(storage)).length, 4, "the older one is gone");
});

test("what is kept already is not written again", async () => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const files = openBootReads(vault, "shop", "files");
  await files.save("vol-1", [2, 3]);
  const before = await namesIn(storage);
  await files.save("vol-1", [2, 3]);
  assert.deepEqual(await namesIn(storage), before);
});

test("what was kept and cannot be understood is as if nothing was kept", async () => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const boot = openBootReads(vault, "shop", "boot");
  await boot.save("vol-1", [1]);
  await boot.save("vol-1", [-1]);
  assert.deepEqual(await boot.load("vol-1"), []);

  await boot.save("vol-1", [6]);
  const [name = ""] = await namesIn(storage);
  const sealed = await storage.get(name);
  await storage.delete(name);
  sealed.writeUInt8(sealed.readUInt8(60) ^ 1, 60);
  await storage.put(name, [sealed]);
  assert.deepEqual(await boot.load("vol-1"), []);
  await boot.save("vol-1", [7]);
  assert.deepEqual(await boot.load("vol-1"), [7]);
});

test("a damaged one, one from far ahead and a large one hide none that is whole", async () => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const boot = openBootReads(vault, "shop", "boot");
  await boot.save("vol-1", [1, 2]);
  const [name = ""] = await namesIn(storage);
  const nameAt = (ms: number): string => name.replace(/\d{15}$/u, String(ms).padStart(15, "0"));
  await storage.put(nameAt(Date.now() + 60_000), [Buffer.from("not sealed")]);
  await storage.put(nameAt(Date.now() + 61_000), [Buffer.alloc(1024 * 1024)]);
  await storage.put(nameAt(999_999_999_999_999), [Buffer.from("from far ahead")]);
  assert.deepEqual(await boot.load("vol-1"), [1, 2]);
  await boot.save("vol-1", [3]);
  assert.deepEqual(await boot.load("vol-1"), [3]);
});

test("one that is replaced between the list and the look is found anew", async () => {
  const storage = memoryStorage();
  await using vault = await newVault(storage);
  const boot = openBootReads(vault, "shop", "boot");
  await boot.save("vol-1", [1]);
  let replaced = false;
  const racing = {
    ...vault.context.storage,
    get: async (...asked: Parameters<typeof storage.get>) => {
      if (!replaced) {
        replaced = true;
        await boot.save("vol-1", [2]);
      }
      return storage.get(...asked);
    },
  };
  const other = openBootReads({ context: { ...vault.context, storage: racing } }, "shop", "boot");
  assert.deepEqual(await other.load("vol-1"), [2]);
});

test("a store that deletes nothing keeps them all, and the newest counts", async () => {
  const storage = memoryStorage();
  const refusal = new OperationalError("auth.forbidden", "it is locked");
  const locked = { ...storage, delete: () => Promise.reject(refusal) };
  await using vault = await newVault(locked);
  const boot = openBootReads(vault, "shop", "boot");
  for (const region of [1, 2, 3]) await boot.save("vol-1", [region]);
  assert.equal((await namesIn(storage)).length, 3);
  assert.deepEqual(await boot.load("vol-1"), [3]);
});
