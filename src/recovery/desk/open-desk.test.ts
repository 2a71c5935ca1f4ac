import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import {
  block,
  connect,
  group,
  inFolder,
  openDeskProcess,
  sessionOf,
  signal,
  sizeBytes,
  volume,
} from "./desk.fixture.ts";

test("what a host writes can be read as it was at any moment, and is no moment before the copy was whole", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    {
      await using host = await connect(uri);
      await host.write(0, block(1));
      await assert.rejects(desk.moment(group, null, signal), (error) => isOperational(error, "not_found"));
      await desk.markWhole(group, volume, await sessionOf(desk), signal);
      const first = await desk.moment(group, null, signal);
      await host.write(0, block(2));
      await host.write(1_000_000, block(3));
      const second = await desk.moment(group, null, signal);
      assert.ok(second.sequence > first.sequence);

      for (const [moment, fill, later] of [
        [first, 1, 0],
        [second, 2, 3],
      ] as const) {
        const served = await desk.serve(group, volume, moment, signal);
        assert.equal(served.sizeBytes, sizeBytes);
        await using reader = await connect(served.uri);
        assert.ok(reader.readOnly);
        assert.ok((await reader.read(0, 4096)).equals(block(fill)));
        assert.ok((await reader.read(1_000_000, 4096)).equals(block(later)));
      }
    }
    const status = await desk.status(group, signal);
    assert.deepEqual(
      status?.volumes.map(({ state }) => state),
      ["continuous"],
    );
  }));

test("a host that comes back synchronises first, and what the log has already is not kept twice", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    {
      await using host = await connect(uri);
      await host.write(0, block(1));
      await desk.markWhole(group, volume, await sessionOf(desk), signal);
    }
    const whole = await desk.moment(group, null, signal);
    await using again = await connect(uri);
    const stale = (await sessionOf(desk)) - 1;
    await again.write(0, block(1));
    await again.write(8192, block(9));
    await desk.markWhole(group, volume, stale, signal);
    assert.deepEqual(await desk.moment(group, null, signal), whole, "nothing newer is offered yet");
    await desk.markWhole(group, volume, await sessionOf(desk), signal);
    const after = await desk.moment(group, null, signal);
    // Two events (synchronising, continuous) and the one block that was new.
    assert.equal(after.sequence, whole.sequence + 3);
  }));

test("a copy that had nothing to write is whole as well: the first write of its guest is no copy", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    for (const fill of [1, 2]) {
      await using host = await connect(uri);
      await desk.markWhole(group, volume, await sessionOf(desk), signal);
      const before = await desk.moment(group, null, signal);
      await host.write(0, block(fill));
      assert.equal((await desk.moment(group, null, signal)).sequence, before.sequence + 1);
    }
  }));

test("under an older epoch nothing comes in any more, also not on a connection that is open", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    await using host = await connect(uri);
    await host.write(0, block(1));
    await desk.markWhole(group, volume, await sessionOf(desk), signal);
    await desk.fence(group, 2, signal);
    const moment = await desk.moment(group, null, signal);
    await assert.rejects(host.write(0, block(2)));
    await assert.rejects(connect(uri));
    await assert.rejects(desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal), (error) =>
      isOperational(error, "state.fenced"),
    );
    assert.deepEqual(await desk.moment(group, null, signal), moment);
    const next = await desk.protect(group, { volume, sizeBytes, epoch: 2 }, signal);
    await using copy = await connect(next.uri);
    await copy.write(0, block(3));
  }));

test("after a restart everything is there: moments that are served, and the epoch", () =>
  inFolder(async (folder) => {
    let served: string;
    {
      await using opened = await openDeskProcess(folder, { make: true });
      const { desk } = opened;
      const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 4 }, signal);
      await using host = await connect(uri);
      await host.write(4096, block(7));
      await desk.markWhole(group, volume, await sessionOf(desk), signal);
      await desk.fence(group, 5, signal);
      served = (await desk.serve(group, volume, await desk.moment(group, null, signal), signal)).uri;
    }
    await using opened = await openDeskProcess(folder);
    const { desk } = opened;
    await using reader = await connect(served);
    assert.ok((await reader.read(4096, 4096)).equals(block(7)));
    assert.equal((await desk.status(group, signal))?.epoch, 5);
  }));

test("an export that is none of ours, and a volume that was never taken in", () =>
  inFolder(async (folder) => {
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    await assert.rejects(desk.moment(group, null, signal), (error) => isOperational(error, "not_found"));
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    for (const name of ["", "capture", "capture/shop/other/1", "moment/shop/x/99", "point/x", "../../etc"]) {
      await assert.rejects(connect(uri, name), name);
    }
  }));

test("an image of a disk counts when all of it is here, as of its own instant", () =>
  inFolder(async (folder) => {
    const hour = 3_600_000;
    const [firstAt, secondAt] = [Date.now() - 3 * hour, Date.now() - 2 * hour];
    const first = { id: "snap-1", atMs: firstAt, base: null, throughBytes: 0 };
    const second = { id: "snap-2", atMs: secondAt, base: "snap-1", throughBytes: 0 };
    const taken = { volume, epoch: 1 };
    await using opened = await openDeskProcess(folder, { make: true });
    const { desk } = opened;
    await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    await assert.rejects(desk.takeImage(group, { ...taken, image: second }, signal), (error) =>
      isOperational(error, "state.conflict"),
    );
    const { uri } = await desk.takeImage(group, { ...taken, image: first }, signal);
    await using writer = await connect(uri);
    await writer.write(0, block(1));
    await writer.write(1_000_000, block(2));
    await assert.rejects(desk.moment(group, null, signal), (error) => isOperational(error, "not_found"));
    await desk.completeImage(group, { ...taken, image: "snap-1" }, signal);
    await desk.completeImage(group, { ...taken, image: "snap-1" }, signal);
    const whole = await desk.moment(group, null, signal);
    assert.equal(whole.at, firstAt);
    await assert.rejects(writer.write(0, block(9)), "nothing is being brought to an image now");

    await desk.takeImage(group, { ...taken, image: second }, signal);
    await writer.write(0, block(3));
    await desk.takeImage(group, { ...taken, image: { ...second, throughBytes: 512 * 1024 } }, signal);
    assert.deepEqual(
      await desk.moment(group, null, signal),
      { ...whole, sequence: whole.sequence },
      "half an image is no moment: the one before it still is",
    );
    await writer.zero(1_000_000, 4096);
    await desk.completeImage(group, { ...taken, image: "snap-2" }, signal);
    const newest = await desk.moment(group, null, signal);
    assert.equal(newest.at, secondAt);
    assert.deepEqual(await desk.moment(group, secondAt - 1, signal), whole);
    assert.deepEqual(await desk.moment(group, secondAt, signal), newest);
    for (const [moment, fills] of [
      [whole, [1, 2]],
      [newest, [3, 0]],
    ] as const) {
      const served = await desk.serve(group, volume, moment, signal);
      await using reader = await connect(served.uri);
      assert.ok((await reader.read(0, 4096)).equals(block(fills[0])));
      assert.ok((await reader.read(1_000_000, 4096)).equals(block(fills[1])));
    }
  }));

test("how far an image has come outlives the vault's process; a host's own mirror ends it", () =>
  inFolder(async (folder) => {
    const image = { id: "snap-1", atMs: 1000, base: null, throughBytes: 0 };
    const taken = { volume, epoch: 1 };
    {
      await using opened = await openDeskProcess(folder, { make: true });
      const { desk } = opened;
      await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
      const { uri } = await desk.takeImage(group, { ...taken, image }, signal);
      await using writer = await connect(uri);
      await writer.write(0, block(7));
      await desk.takeImage(group, { ...taken, image: { ...image, throughBytes: 4096 } }, signal);
    }
    await using opened = await openDeskProcess(folder);
    const { desk } = opened;
    const [kept] = await desk.volumes(group, signal);
    assert.deepEqual(kept?.image, { ...image, throughBytes: 4096 });
    const further = { ...image, throughBytes: 8192 };
    await desk.takeImage(group, { ...taken, image: further }, signal);
    await desk.fence(group, 2, signal);
    await assert.rejects(desk.takeImage(group, { ...taken, image: further }, signal), (error) =>
      isOperational(error, "state.fenced"),
    );
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 2 }, signal);
    await using host = await connect(uri);
    await host.write(0, block(8));
    assert.equal((await desk.volumes(group, signal))[0]?.image, null);
    await assert.rejects(
      desk.completeImage(group, { ...taken, epoch: 2, image: "snap-1" }, signal),
      (error) => isOperational(error, "state.conflict"),
    );
  }));
