import assert from "node:assert/strict";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { Secret } from "#kernel/secret.ts";
import type { NbdClient } from "#nbd/nbd-client.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { openVault } from "#vault/open-vault.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { faultyStorage } from "#vault/storage/faulty-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { openLogArchive } from "#vault/write-log/open-log-archive.ts";
import { openMoment } from "#vault/write-log/open-moment.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { bringBackLog, type BroughtBackLog } from "./bring-back-log.ts";
import {
  block,
  connect,
  group,
  inFolder,
  openDeskProcess,
  readServed,
  sessionOf,
  signal,
  sizeBytes,
  volume,
} from "./desk.fixture.ts";

const protect = (desk: VaultDesk): Promise<{ readonly uri: string }> =>
  desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);

/** A host that copies its disk from the beginning: these blocks, and nothing else. */
async function copyWhole(desk: VaultDesk, blocks: ReadonlyMap<number, number>): Promise<NbdClient> {
  const host = await connect((await protect(desk)).uri);
  for (const [offset, fill] of blocks) await host.write(offset, block(fill));
  await desk.markWhole(group, volume, await sessionOf(desk), signal);
  return host;
}

async function shipped(desk: VaultDesk): Promise<void> {
  const deadline = Date.now() + 20_000;
  while ((await desk.status(group, signal))?.shipLagMs !== 0) {
    assert.ok(Date.now() < deadline, "the log was shipped");
    await systemClock.sleep(50);
  }
}

/** From a moment on, nothing of the log goes to the store any more. */
function cuttable(): { readonly store: (inner: BlobStorage) => BlobStorage; readonly cut: () => void } {
  let isCut = false;
  return {
    cut: () => {
      isCut = true;
    },
    store: (inner) =>
      faultyStorage(inner, (operation, _number, name) =>
        isCut && operation === "put" && name.startsWith("log/") ? "before" : "none",
      ),
  };
}

async function bringBack(folder: string): Promise<BroughtBackLog> {
  const storage = await openFolderStorage(join(folder, "store"));
  try {
    const unlock = { passphrase: new Secret("correct horse") };
    await using vault = await openVault({ storage, unlock, threads: 0 });
    return await bringBackLog({ folder: join(folder, "data"), group, vault, clock: systemClock, signal });
  } finally {
    await storage.close();
  }
}

interface Lost {
  /** Shipped. */
  readonly kept: DiskMoment;
  /** Captured, and never shipped. */
  readonly lost: DiskMoment;
  readonly uri: string;
}

async function loseTheTail(folder: string): Promise<Lost> {
  const line = cuttable();
  await using process = await openDeskProcess(folder, { make: true, store: line.store });
  const { desk } = process;
  const { uri } = await protect(desk);
  await using host = await copyWhole(
    desk,
    new Map([
      [0, 1],
      [65_536, 7],
    ]),
  );
  await host.write(0, block(2));
  const kept = await desk.moment(group, null, signal);
  await shipped(desk);
  line.cut();
  await host.write(0, block(3));
  const lost = await desk.moment(group, null, signal);
  assert.equal(await readServed(desk, lost), 3);
  return { kept, lost, uri };
}

test("after the folder is lost, nothing is captured over the store's log until it is brought back", () =>
  inFolder(async (folder) => {
    await loseTheTail(folder);
    await rm(join(folder, "data"), { recursive: true });
    await using anew = await openDeskProcess(folder);
    await assert.rejects(protect(anew.desk), {
      code: "vault.damaged",
      message: /understudy vault restore-log shop/u,
    });
  }));

test("what was shipped can be named again, what was not is gone for good, and the disk is copied whole", () =>
  inFolder(async (folder) => {
    const { kept, lost, uri } = await loseTheTail(folder);
    await rm(join(folder, "data"), { recursive: true });
    const back = await bringBack(folder);
    assert.equal(back.putAside, null);
    assert.ok(back.lastMs >= kept.at && back.lastMs <= lost.at);
    let now: DiskMoment;
    {
      await using after = await openDeskProcess(folder);
      const { desk } = after;
      assert.deepEqual(await desk.moment(group, kept.at, signal), kept);
      assert.equal(await readServed(desk, kept), 2);
      await assert.rejects(readServed(desk, lost));
      // The host would send what has changed since: nothing. The vault lacks more than that.
      await assert.rejects(connect(uri));
      const anew = await protect(desk);
      assert.notEqual(anew.uri, uri);
      await assert.rejects(connect(uri), "also when the volume is known again");
      await using _host = await copyWhole(desk, new Map([[0, 4]]));
      now = await desk.moment(group, null, signal);
      assert.ok(now.sequence > 2 ** 32 && now.sequence > lost.sequence);
      assert.equal(await readServed(desk, now), 4);
      const { uri: served } = await desk.serve(group, volume, now, signal);
      await using reader = await connect(served);
      assert.equal((await reader.read(65_536, 1))[0], 0, "nothing of before the loss shines through");
      assert.equal(await readServed(desk, kept), 2);
      await shipped(desk);
    }

    // Once more by another process, and with nothing but the store.
    await using later = await openDeskProcess(folder);
    assert.equal(await readServed(later.desk, now), 4);
    assert.equal(await readServed(later.desk, kept), 2);
    const { storage, keys } = later.vault.context;
    const own = { storage, group, logKey: keys.log, points: vaultPoints(later.vault) };
    await using archive = await openLogArchive(own);
    for (const [moment, fill] of [
      [kept, 2],
      [now, 4],
    ] as const) {
      await using disk = await openMoment(archive, volume, { sequence: moment.sequence });
      assert.equal((await disk.read(0, 1))[0], fill);
    }
    await assert.rejects(openMoment(archive, volume, { sequence: lost.sequence }), { code: "not_found" });
  }));

test("a log is lost twice", () =>
  inFolder(async (folder) => {
    await loseTheTail(folder);
    const moments: DiskMoment[] = [];
    for (const fill of [5, 6]) {
      await rm(join(folder, "data"), { recursive: true });
      await bringBack(folder);
      await using process = await openDeskProcess(folder);
      await using _host = await copyWhole(process.desk, new Map([[0, fill]]));
      moments.push(await process.desk.moment(group, null, signal));
      await shipped(process.desk);
    }
    await using process = await openDeskProcess(folder);
    const [first, second] = moments;
    assert.ok(first !== undefined && second !== undefined);
    assert.ok(second.sequence > first.sequence + 2 ** 31);
    assert.deepEqual([await readServed(process.desk, first), await readServed(process.desk, second)], [5, 6]);
  }));

test("a log that lacks nothing is left as it is; what stands in the way is put aside", () =>
  inFolder(async (folder) => {
    const { kept } = await loseTheTail(folder);
    await assert.rejects(bringBack(folder), { code: "state.conflict", message: /lacks nothing/u });
    // An empty folder, as a process makes it that finds none.
    const home = join(folder, "data", "groups", group);
    await rm(home, { recursive: true });
    await mkdir(join(home, "log"), { recursive: true });
    await writeFile(join(home, "boot-reads"), "of before");
    const { putAside } = await bringBack(folder);
    assert.ok(putAside !== null);
    assert.ok((await readdir(putAside)).includes("boot-reads"));
    await using process = await openDeskProcess(folder);
    assert.equal(await readServed(process.desk, kept), 2);
  }));

test("what was never shipped cannot be brought back", () =>
  inFolder(async (folder) => {
    await (await openDeskProcess(folder, { make: true }))[Symbol.asyncDispose]();
    await assert.rejects(bringBack(folder), { code: "not_found" });
  }));
