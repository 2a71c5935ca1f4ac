import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import {
  type KeptPoint,
  listKeptPoints,
  packConfiguration,
  unpackConfiguration,
} from "#recovery/kept-points.ts";
import type { KeptPointFacts } from "#recovery/vault-desk.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import {
  block,
  captureWhole,
  type DeskProcess,
  group,
  inFolder,
  leaveBehind,
  openDeskProcess,
  readServed,
  shortWindow,
  signal,
  volume,
} from "./desk.fixture.ts";
import type { DeskRetention } from "./open-desk.ts";

const resources = [{ kind: "volume", id: "vol-east", spec: { sizeGiB: 1 } }];

function openShort(
  folder: string,
  make: boolean,
  retention?: DeskRetention,
  log: Log = silentLog,
): Promise<DeskProcess> {
  return openDeskProcess(folder, {
    make,
    ...shortWindow,
    log,
    ...(retention === undefined ? {} : { retention }),
  });
}

function pointAt(moment: DiskMoment, id: string): KeptPoint {
  const { at, sequence } = moment;
  const facts = { journalPosition: 7, consistency: "crash" as const, site: "east", resources: 1 };
  const configuration = packConfiguration(resources);
  return { id, at, sequence, ...facts, volumes: { "vol-east": volume }, configuration };
}

test("a kept point outlives the log's window and a restart, with its verdict and its configuration", () =>
  inFolder(async (folder) => {
    let kept: DiskMoment;
    let lost: DiskMoment;
    {
      await using opened = await openShort(folder, true);
      const { desk } = opened;
      await using host = await captureWhole(desk);
      await host.write(0, block(2));
      kept = await desk.moment(group, null, signal);
      // Longer ago than its last fold: it is no point of the log's own.
      await host.write(0, block(3));
      await desk.keepPoint(group, pointAt(kept, "point-1"), signal);
      await desk.keepPoint(group, pointAt(kept, "point-1"), signal);
      await host.write(0, block(4));
      lost = await desk.moment(group, null, signal);
      await host.write(0, block(5));
      await leaveBehind(desk, host, lost.sequence);
      assert.equal(await readServed(desk, kept), 2);
      assert.deepEqual(await desk.moment(group, kept.at, signal), kept);
    }
    await using opened = await openShort(folder, false);
    const { desk } = opened;
    assert.equal(await readServed(desk, kept), 2);
    const [point, ...others] = await desk.keptPoints(group, signal);
    assert.deepEqual(
      [point?.id, point?.sequence, point?.verdict, others],
      ["point-1", kept.sequence, null, []],
    );
    await desk.keepVerdict(group, { id: "point-1", at: kept.at }, { at: 5, summary: "whole" }, signal);
    assert.deepEqual((await desk.keptPoints(group, signal))[0]?.verdict, { at: 5, summary: "whole" });
    const packed = await desk.keptConfiguration(group, "point-1", signal);
    assert.deepEqual(unpackConfiguration(packed), resources);
    await assert.rejects(desk.keptConfiguration(group, "point-2", signal), (error) =>
      isOperational(error, "not_found"),
    );
  }));

test("the policy lets go of points, never of what a kept point or the window stands on", () =>
  inFolder(async (folder) => {
    const policy = { keepAllMs: 0, rules: [{ every: "year" as const, forMs: 366 * 86_400_000 }] };
    const retention = { policy, applyEveryMs: 100, collectEveryMs: 1 };
    const moments: DiskMoment[] = [];
    let points = 0;
    {
      await using opened = await openShort(folder, true);
      const { desk, vault } = opened;
      await using host = await captureWhole(desk);
      for (const fill of [11, 12, 13]) {
        await host.write(0, block(fill));
        const moment = await desk.moment(group, null, signal);
        moments.push(moment);
        await desk.keepPoint(group, pointAt(moment, `point-${fill}`), signal);
        await leaveBehind(desk, host, moment.sequence);
      }
      points = (await vault.listPoints(volume)).length;
      assert.ok(points > 3, "the log's own points are there too");
    }
    await using opened = await openShort(folder, false, retention);
    const { desk, vault } = opened;
    const deadline = Date.now() + 20_000;
    for (;;) {
      const kept = await desk.keptPoints(group, signal);
      const left = await vault.listPoints(volume);
      // The year's first and the newest; of the log's own points what these do not hold.
      if (kept.length === 2 && left.length <= 4) break;
      assert.ok(Date.now() < deadline, `${kept.length} points are kept, and ${left.length} of ${points}`);
      await systemClock.sleep(50);
    }
    const kept = await desk.keptPoints(group, signal);
    assert.deepEqual(
      kept.map(({ id }) => id),
      ["point-13", "point-11"],
    );
    const [first, second, third] = moments;
    assert.ok(first !== undefined && second !== undefined && third !== undefined);
    assert.equal(await readServed(desk, first), 11);
    assert.equal(await readServed(desk, third), 13);
    await assert.rejects(readServed(desk, second), (error) => isOperational(error, "not_found"));
    assert.equal(await readServed(desk, await desk.moment(group, null, signal)), 13);
    const report = await vault.verify({ depth: "full" });
    assert.deepEqual([report.findings, report.lost], [[], []]);
  }));

test("a kept point that cannot be read is named, and nothing is let go while it is", () =>
  inFolder(async (folder) => {
    let kept: readonly KeptPointFacts[];
    {
      await using opened = await openShort(folder, true);
      await using host = await captureWhole(opened.desk);
      for (const id of ["point-1", "point-2"]) {
        await host.write(0, block(9));
        await opened.desk.keepPoint(
          group,
          pointAt(await opened.desk.moment(group, null, signal), id),
          signal,
        );
      }
      kept = await opened.desk.keptPoints(group, signal);
    }
    const disks = kept.flatMap((point) => Object.values(point.disks));
    const storage = await openFolderStorage(join(folder, "store"));
    const names: string[] = [];
    for await (const { name } of storage.list("recovery/")) names.push(name);
    const [name = ""] = names;
    const bytes = await storage.get(name);
    bytes[60] = (bytes[60] ?? 0) ^ 1;
    await storage.delete(name);
    await storage.put(name, [bytes]);
    await storage.close();
    const policy = { keepAllMs: 0, rules: [] };
    const tried = Promise.withResolvers<string>();
    const log: Log = { ...silentLog, warn: (_fields, message) => tried.resolve(message), child: () => log };
    const retention = { policy, applyEveryMs: 10, collectEveryMs: 1e9 };
    await using opened = await openShort(folder, false, retention, log);
    const { points, damaged } = await listKeptPoints(opened.vault, group);
    assert.deepEqual(
      [points.map(({ id }) => id), damaged.map(({ object }) => object)],
      [["point-2"], [name]],
    );
    assert.ok((await tried.promise).includes(name));
    const left = new Set((await opened.vault.listPoints(volume)).map(({ id }) => id as string));
    assert.ok(disks.length === 2 && disks.every((id) => left.has(id)));
  }));
