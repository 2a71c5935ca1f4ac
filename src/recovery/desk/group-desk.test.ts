import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { faultyStorage } from "#vault/storage/faulty-storage.ts";
import {
  block,
  captureWhole,
  connect,
  group,
  inFolder,
  openDeskProcess,
  readServed,
  sessionOf,
  shortWindow,
  signal,
  sizeBytes,
  volume,
} from "./desk.fixture.ts";

const other = "vol-of-another-disk";
const last = (desk: VaultDesk): Promise<DiskMoment> => desk.moment(group, null, signal);
const stateOf = async (desk: VaultDesk, id: string): Promise<string | undefined> =>
  (await desk.volumes(group, signal)).find((one) => one.volume === id)?.state;

test("a disk that is new, or was released and is taken in again, holds up no other disk's moments", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    await using host = await captureWhole(desk);
    await using second = await connect(
      (await desk.protect(group, { volume: other, sizeBytes, epoch: 1 }, signal)).uri,
    );
    await second.write(0, block(7));
    await host.write(0, block(2));
    const before = await last(desk);
    await host.write(0, block(3));
    assert.ok((await last(desk)).sequence > before.sequence);
    await assert.rejects(desk.serve(group, other, await last(desk), signal), (error) =>
      isOperational(error, "state.conflict"),
    );
    assert.equal(await readServed(desk, before), 2);

    await desk.markWhole(group, other, await sessionOf(desk, other), signal);
    assert.equal(await readServed(desk, await last(desk), other), 7);
    await desk.release(group, other, signal);
    assert.equal(await stateOf(desk, other), undefined);
    await desk.protect(group, { volume: other, sizeBytes, epoch: 1 }, signal);
    assert.equal(await stateOf(desk, other), "synchronising");
    const again = await last(desk);
    await host.write(0, block(4));
    assert.ok((await last(desk)).sequence > again.sequence);
    // Nothing of it has changed: a copy that has nothing to write makes it whole.
    await using _third = await connect(
      (await desk.protect(group, { volume: other, sizeBytes, epoch: 1 }, signal)).uri,
    );
    await desk.markWhole(group, other, await sessionOf(desk, other), signal);
    assert.equal(await readServed(desk, await last(desk), other), 7);
  }));

test("a group that is not whole for longer than its window keeps its last whole moment", () =>
  inFolder(async (folder) => {
    const policy = { keepAllMs: 0, rules: [] };
    const retention = { policy, applyEveryMs: 50, collectEveryMs: 100 };
    let whole: DiskMoment;
    {
      await using opened = await openDeskProcess(folder, { make: true, ...shortWindow, retention });
      const { desk } = opened;
      await using host = await captureWhole(desk, volume, 5);
      await using _second = await captureWhole(desk, other, 6);
      whole = await last(desk);
      // A new connection that writes has missed who knows what: until its copy is whole, no moment is.
      const { uri } = await desk.protect(group, { volume: other, sizeBytes, epoch: 1 }, signal);
      await using third = await connect(uri);
      await third.write(0, block(9));
      const groups = join(folder, "data", "groups", group, "log");
      const segments = async (): Promise<readonly string[]> =>
        (await readdir(groups)).filter((name) => name.endsWith(".seg"));
      const [oldest] = (await segments()).toSorted();
      assert.ok(oldest !== undefined);
      const deadline = Date.now() + 20_000;
      for (let fill = 100; (await segments()).includes(oldest); fill = 100 + ((fill + 1) % 100)) {
        await host.write(65_536, block(fill));
        assert.ok(Date.now() < deadline, "the window moves on");
        await new Promise((resolve) => void setTimeout(resolve, 20));
      }
      assert.deepEqual(await last(desk), whole);
      assert.deepEqual((await desk.status(group, signal))?.last, whole);
      assert.equal(await readServed(desk, whole), 5);
      assert.equal(await readServed(desk, whole, other), 6);
    }
    await using opened = await openDeskProcess(folder, { ...shortWindow, retention });
    const { desk } = opened;
    assert.deepEqual(await last(desk), whole);
    assert.deepEqual(await desk.moment(group, whole.at, signal), whole);
    await assert.rejects(desk.moment(group, whole.at - 1, signal), (error) =>
      isOperational(error, "not_found"),
    );
    assert.equal(await readServed(desk, whole, other), 6);
  }));

test("a recovery point leaves out the disk that was not whole", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    await using _host = await captureWhole(desk);
    await desk.protect(group, { volume: other, sizeBytes, epoch: 1 }, signal);
    const { sequence, at } = await last(desk);
    const volumes = { "vol-a": volume, "vol-b": other, "vol-c": "never-taken-in" };
    const facts = { journalPosition: 1, consistency: "crash", site: "east", resources: 0 } as const;
    const point = { id: "point-1", at, sequence, ...facts, volumes, configuration: "" };
    await desk.keepPoint(group, point, signal);
    const [kept] = await desk.keptPoints(group, signal);
    assert.deepEqual(Object.keys(kept?.disks ?? {}), [volume]);
    const none = { ...point, id: "point-2", volumes: { "vol-b": other } };
    await assert.rejects(desk.keepPoint(group, none, signal), (error) =>
      isOperational(error, "state.conflict"),
    );
  }));

test("both connections of a capture are confirmed: what a guest writes first is no beginning of a copy", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    await using live = await connect(uri);
    await using resync = await connect(uri);
    await resync.write(0, block(1));
    await desk.markWhole(group, volume, await sessionOf(desk), signal);
    const before = await last(desk);
    await live.write(4096, block(2));
    assert.equal(await stateOf(desk, volume), "continuous");
    assert.equal((await last(desk)).sequence, before.sequence + 1);
  }));

test("evidence of before a restart proves nothing after it", () =>
  inFolder(async (folder) => {
    let before: number;
    {
      await using opened = await openDeskProcess(folder, { make: true });
      await using _host = await captureWhole(opened.desk);
      before = await sessionOf(opened.desk);
    }
    await using opened = await openDeskProcess(folder);
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    await using host = await connect(uri);
    await host.write(0, block(9));
    await desk.markWhole(group, volume, before, signal);
    assert.equal(await stateOf(desk, volume), "synchronising");
    assert.ok((await sessionOf(desk)) > before);
  }));

test("of two fences at once the higher one stays", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    await Promise.all([desk.fence(group, 6, signal), desk.fence(group, 5, signal)]);
    assert.equal((await desk.status(group, signal))?.epoch, 6);
    const record = await readFile(join(folder, "data", "groups", group, "group.json"), "utf8");
    assert.equal((JSON.parse(record) as { epoch: number }).epoch, 6);
  }));

test("a pin is kept over a restart of the vault's process, until it is ended", () =>
  inFolder(async (folder) => {
    const taker = { site: "west", volumeId: "vol-w" };
    let moment: DiskMoment;
    let uri: string;
    {
      await using opened = await openDeskProcess(folder, { make: true });
      const { desk } = opened;
      await using _host = await captureWhole(desk);
      moment = await last(desk);
      ({ uri } = await desk.pin(group, volume, moment, taker, signal));
      assert.equal((await desk.pin(group, volume, moment, taker, signal)).uri, uri);
    }
    await using opened = await openDeskProcess(folder);
    const { desk } = opened;
    const { sequence } = moment;
    const [pin, ...others] = await desk.pins(group, signal);
    const { since: _since, ...facts } = pin ?? { since: 0 };
    assert.deepEqual([facts, others], [{ volume, sequence, taker, uri }, []]);
    await using reader = await connect(uri);
    assert.equal((await reader.read(0, 1))[0], 1);
    await desk.unpin(group, { volume, sequence, taker }, signal);
    assert.deepEqual(await desk.pins(group, signal), []);
    assert.deepEqual(await desk.pins("nobody", signal), []);
  }));

test("a group whose log is damaged keeps no other from being captured and served, and says so itself", () =>
  inFolder(async (folder) => {
    {
      await using opened = await openDeskProcess(folder, { make: true });
      await using _host = await captureWhole(opened.desk);
      await opened.desk.protect("sick", { volume, sizeBytes, epoch: 1 }, signal);
    }
    const groups = join(folder, "data", "groups");
    await writeFile(join(groups, "sick", "group.json"), "{");
    await mkdir(join(groups, "lost+found"));
    await writeFile(join(groups, "a-file"), "");
    const policy = { keepAllMs: 0, rules: [] };
    const collected = Promise.withResolvers<void>();
    const log: Log = {
      ...silentLog,
      info: (_fields, message) => void (/collected/u.test(message) && collected.resolve()),
      child: () => log,
    };
    await using opened = await openDeskProcess(folder, {
      log,
      retention: { policy, applyEveryMs: 20, collectEveryMs: 20 },
    });
    const { desk } = opened;
    assert.equal(await readServed(desk, await last(desk)), 1);
    for (const call of [
      () => desk.protect("sick", { volume, sizeBytes, epoch: 1 }, signal),
      () => desk.moment("sick", null, signal),
      () => desk.volumes("sick", signal),
    ])
      await assert.rejects(call(), (error) => isOperational(error, "vault.damaged"));
    await collected.promise;
  }));

test("a group that the store kept from opening is opened when it answers again", () =>
  inFolder(async (folder) => {
    {
      await using opened = await openDeskProcess(folder, { make: true });
      await using _host = await captureWhole(opened.desk);
    }
    let down = false;
    await using opened = await openDeskProcess(folder, {
      store: (inner) => {
        down = true;
        return faultyStorage(inner, (operation, _number, name) =>
          down && operation === "list" && name.startsWith("log/") ? "before" : "none",
        );
      },
    });
    const { desk } = opened;
    await assert.rejects(desk.moment(group, null, signal), (error) =>
      isOperational(error, "vault.unreachable"),
    );
    down = false;
    const deadline = Date.now() + 20_000;
    for (;;) {
      // Nothing of the first try is in its way.
      const moment = await last(desk).catch((error: unknown) => {
        if (!isOperational(error, "vault.unreachable")) throw error;
      });
      if (moment !== undefined) break;
      assert.ok(Date.now() < deadline, "it is tried again");
      await new Promise((resolve) => void setTimeout(resolve, 100));
    }
  }));

test("names that lead out of the desk's folder are refused at the door", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const refused = (error: unknown): boolean =>
      error instanceof OperationalError && error.code === "input.invalid";
    for (const name of ["../../escaped", "..", "a/b", "", "x".repeat(101)])
      await assert.rejects(desk.protect(name, { volume, sizeBytes, epoch: 1 }, signal), refused, name);
    for (const name of ["a/b", "", "x".repeat(65), "a\u0000b"])
      await assert.rejects(desk.protect(group, { volume: name, sizeBytes, epoch: 1 }, signal), refused, name);
    const spaced = "disk of nobody";
    const { uri } = await desk.protect(group, { volume: spaced, sizeBytes, epoch: 1 }, signal);
    await using _host = await connect(uri);
  }));
