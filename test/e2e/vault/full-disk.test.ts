import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import { openFileSource } from "#vault/file-source.ts";
import { initVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

const mebibytes = (count: number): number => count * 1024 * 1024;

/** A file system that is really full: a small tmpfs, which only root can mount. */
test("a full disk is store.full; what was there stays whole, and room is all it takes to go on", async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "vault-full-"));
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", "size=24m", "tmpfs", folder]);
  if (mounted.status !== 0) {
    await rm(folder, { recursive: true });
    t.skip("a tmpfs cannot be mounted here");
    return;
  }
  const outside = await mkdtemp(join(tmpdir(), "vault-full-"));
  try {
    const storage = await openFolderStorage(join(folder, "vault"));
    const vault = await initVault({ storage, unlock: { passphrase: new Secret("full") }, threads: 2 });
    const [small, large] = [join(outside, "small"), join(outside, "large")];
    await writeFile(small, randomBytes(mebibytes(4)));
    await writeFile(large, randomBytes(mebibytes(30)));
    const write = async (path: string): Promise<string> => {
      await using source = await openFileSource(path);
      return (await vault.writePoint({ volumeId: "v", sizeBytes: source.sizeBytes, source })).id;
    };
    await write(small);
    await assert.rejects(write(large), (error) => isOperational(error, "store.full"));
    assert.equal((await vault.listPoints()).length, 1);
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
    assert.equal(spawnSync("mount", ["-o", "remount,size=96m", folder]).status, 0);
    await write(large);
    assert.equal((await vault.listPoints()).length, 2);
    assert.deepEqual((await vault.verify({ depth: "full" })).findings, []);
    await vault[Symbol.asyncDispose]();
    await storage.close();
  } finally {
    spawnSync("umount", [folder]);
    await rm(folder, { recursive: true });
    await rm(outside, { recursive: true });
  }
});
