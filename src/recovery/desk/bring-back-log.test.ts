import assert from "node:assert/strict";
import { cp, mkdir, readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { Secret } from "#kernel/secret.ts";
import type { NbdClient } from "#nbd/nbd-client.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { openFromStore } from "#recovery/open-from-store.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { until } from "#testing/until.ts";
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
  await host.zero(0, sizeBytes);
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
    assert.ok(!(await readdir(join(folder, "data"))).includes("coming"), "nothing is left of the try");
  }));

/** The log of a disk that is whole is in the store; nobody writes any more. */
async function shipWhole(folder: string, fill: number): Promise<void> {
  await using process = await openDeskProcess(folder, { make: true });
  await using _host = await copyWhole(process.desk, new Map([[0, fill]]));
  await process.desk.moment(group, null, signal);
  await shipped(process.desk);
}

const away = (inner: BlobStorage): BlobStorage =>
  faultyStorage(inner, (operation, _number, name) =>
    operation === "put" && name.startsWith("log/") ? "before" : "none",
  );

test("an older copy's fencing epoch and served moments count, a lost one's epoch is learnt anew", () =>
  inFolder(async (folder) => {
    const taker = { site: "west", volumeId: "vol-2" };
    let pinned: string;
    {
      await using process = await openDeskProcess(folder, { make: true });
      await using _host = await copyWhole(process.desk, new Map([[0, 3]]));
      const moment = await process.desk.moment(group, null, signal);
      pinned = (await process.desk.pin(group, volume, moment, taker, signal)).uri;
      await process.desk.fence(group, 5, signal);
      await shipped(process.desk);
    }
    await cp(join(folder, "data"), join(folder, "older"), { recursive: true });
    {
      await using process = await openDeskProcess(folder);
      const { uri } = await process.desk.protect(group, { volume, sizeBytes, epoch: 5 }, signal);
      await using host = await connect(uri);
      await host.write(0, block(9));
      await shipped(process.desk);
    }
    await rm(join(folder, "data"), { recursive: true });
    await rename(join(folder, "older"), join(folder, "data"));
    await bringBack(folder);
    {
      await using process = await openDeskProcess(folder);
      await assert.rejects(protect(process.desk), { code: "state.fenced" });
      await using reader = await connect(pinned);
      assert.equal((await reader.read(0, 1))[0], 3, "who reads a moment goes on reading it");
    }
    await rm(join(folder, "data"), { recursive: true });
    await bringBack(folder);
    await using process = await openDeskProcess(folder);
    await process.desk.protect(group, { volume, sizeBytes, epoch: 6 }, signal);
    await assert.rejects(protect(process.desk), { code: "state.fenced" });
  }));

test("the last moment before a loss is what there is, also when the window has left it, until the disk was copied", () =>
  inFolder(async (folder) => {
    await shipWhole(folder, 7);
    await rm(join(folder, "data"), { recursive: true });
    await bringBack(folder);
    const window = { windowMs: 1, windowBytes: 2 ** 30 };
    await using process = await openDeskProcess(folder, { window, foldEveryMs: 100 });
    const { desk, vault } = process;
    const found = async (): Promise<readonly [string, number | undefined]> => {
      await using content = await openFromStore(vault, { volume, atMs: null }, signal);
      return [content.from, (await content.reader.read(0, 1))[0]];
    };
    assert.deepEqual(await found(), ["log", 7], "with nothing but the store");
    await using host = await connect((await protect(desk)).uri);
    for (let fill = 1; fill <= 20; fill += 1) {
      await host.write(65_536 + fill * 4096, block(fill));
      await systemClock.sleep(100);
    }
    assert.equal(await readServed(desk, await desk.moment(group, null, signal)), 7);
  }));

test("no number is given twice by two losses, though nothing was shipped in between", () =>
  inFolder(async (folder) => {
    await shipWhole(folder, 1);
    const sequences: number[] = [];
    for (const fill of [5, 6]) {
      await rm(join(folder, "data"), { recursive: true });
      await bringBack(folder);
      await using process = await openDeskProcess(folder, { store: away });
      await using _host = await copyWhole(process.desk, new Map([[0, fill]]));
      sequences.push((await process.desk.moment(group, null, signal)).sequence);
    }
    const [first = 0, second = 0] = sequences;
    assert.ok(second > first + 2 ** 31, sequences.join(", "));
  }));

test("a point of lost records is no base of what is known from before them", () =>
  inFolder(async (folder) => {
    const line = cuttable();
    let kept: DiskMoment;
    {
      await using process = await openDeskProcess(folder, {
        make: true,
        store: line.store,
        foldEveryMs: 100,
      });
      await using host = await copyWhole(process.desk, new Map([[0, 1]]));
      kept = await process.desk.moment(group, null, signal);
      await shipped(process.desk);
      line.cut();
      await host.write(0, block(2));
      const { sequence } = await process.desk.moment(group, null, signal);
      await until("a point of it", async () =>
        ((await process.desk.status(group, signal))?.foldedSequence ?? 0) >= sequence ? true : undefined,
      );
    }
    await rm(join(folder, "data"), { recursive: true });
    await bringBack(folder);
    await using process = await openDeskProcess(folder);
    const { storage, keys } = process.vault.context;
    const own = { storage, group, logKey: keys.log, points: vaultPoints(process.vault) };
    await using archive = await openLogArchive(own);
    await using then = await openMoment(
      archive,
      volume,
      { timeMs: kept.at + 60_000 },
      { evenIncomplete: true },
    );
    assert.equal((await then.read(0, 1))[0], 1);
    await using _host = await copyWhole(process.desk, new Map([[0, 3]]));
    assert.equal(await readServed(process.desk, await process.desk.moment(group, null, signal)), 3);
  }));

test("where the store has points and nothing of the log, a log is begun after them", () =>
  inFolder(async (folder) => {
    {
      await using process = await openDeskProcess(folder, { make: true, store: away, foldEveryMs: 100 });
      await using _host = await copyWhole(process.desk, new Map([[0, 1]]));
      const { sequence } = await process.desk.moment(group, null, signal);
      await until("a point of it", async () =>
        ((await process.desk.status(group, signal))?.foldedSequence ?? 0) >= sequence ? true : undefined,
      );
    }
    await rm(join(folder, "data"), { recursive: true });
    {
      await using process = await openDeskProcess(folder);
      await assert.rejects(protect(process.desk), { message: /understudy vault restore-log shop/u });
    }
    assert.equal((await bringBack(folder)).segments, 0);
    for (const fill of [2, 3]) {
      await using process = await openDeskProcess(folder);
      await using _host = await copyWhole(process.desk, new Map([[0, fill]]));
      assert.equal(await readServed(process.desk, await process.desk.moment(group, null, signal)), fill);
      await shipped(process.desk);
    }
  }));

test("a vault that serves is not robbed of its folder", () =>
  inFolder(async (folder) => {
    await using process = await openDeskProcess(folder, { make: true });
    await using _host = await copyWhole(process.desk, new Map([[0, 1]]));
    await shipped(process.desk);
    await assert.rejects(bringBack(folder), { code: "state.conflict", message: /stop it first/u });
  }));

test("a folder of a version without histories keeps its captures", () =>
  inFolder(async (folder) => {
    await shipWhole(folder, 1);
    await rm(join(folder, "data", "groups", group, "group.json"));
    await using process = await openDeskProcess(folder);
    assert.match((await protect(process.desk)).uri, new RegExp(`capture/${group}/${volume}/1\\?`, "u"));
  }));

test("wherever it was killed, it is begun again and comes to its end", () =>
  inFolder(async (folder) => {
    const { kept } = await loseTheTail(folder);
    const data = join(folder, "data");
    const home = join(data, "groups", group);
    const deaths: readonly (() => Promise<void>)[] = [
      // While it fetched.
      async () => {
        await rm(home, { recursive: true });
        await mkdir(join(data, "coming", group, "log"), { recursive: true });
        await writeFile(join(data, "coming", group, "log", "0000000001.seg"), "half of it");
      },
      // Between the two moves, when a vault has begun an empty log meanwhile.
      async () => {
        await rename(home, join(data, "coming", group));
        await mkdir(join(home, "log"), { recursive: true });
      },
      async () => rename(home, join(data, "coming", group)),
    ];
    for (const death of deaths) {
      await rm(join(data, "coming"), { recursive: true, force: true });
      await mkdir(join(data, "coming"));
      await death();
      await bringBack(folder);
      await using process = await openDeskProcess(folder);
      assert.equal(await readServed(process.desk, kept), 2);
    }
  }));
