import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { appendFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { inspectDisk } from "#hypervisor/create-disk.ts";
import { get, serveFile, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

test(
  "a guest runs at once on an export, which dies for ten seconds in the middle of the copy",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    // A file system with a counter's volume in front of 96 MiB of ballast: what the copy takes its time for.
    const path = stage.dataImage("point.raw", 64);
    for (let part = 0; part < 3; part++) appendFileSync(path, randomBytes(32 * 1024 * 1024));
    const sizeBytes = statSync(path).size;
    // 20 MiB/s.
    await using source = await serveFile(stage, "point.raw", null, ["-r", "--filter=rate"], ["rate=160M"]);
    const host = await stage.openHost();
    const port = await freePort();
    const disks = [{ id: "data", content: { kind: "live", source: source.location, sizeBytes } } as const];
    const machine = await host.create(webGuest("live", port, { disks }));
    const began = performance.now();
    await machine.start(t.signal);
    const copy = await host.disksOf("live").startBackgroundCopy("data");
    // Asked again, also before it has begun: the same one, with the limit of now.
    const asked = { bytesPerSecond: 100 * 1024 * 1024 };
    assert.equal(await host.disksOf("live").startBackgroundCopy("data", asked), copy);
    assert.deepEqual(machine.record.copies["data"], asked);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
    t.diagnostic(`first answer after ${Math.round(performance.now() - began)} ms`);
    assert.match(copy.progress.state, /^(held|copying)$/u);
    assert.ok(copy.progress.doneBytes < sizeBytes / 2, "the guest answers long before its disk is there");

    await source.kill();
    await stage.notice("copy.waiting");
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    assert.notEqual(copy.progress.state, "complete");
    // And an agent that goes in the middle: the next one takes the copy over.
    await stage.closeHost();
    const second = await stage.openHost();
    await second.resumed;
    await source.start();
    await second.disksOf("live").backgroundCopy("data").complete;
    t.diagnostic(`complete after ${Math.round(performance.now() - began)} ms`);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");

    // Nothing of it needs the export any more.
    await source.kill();
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "3");
    const here = second.machine("live");
    await here.stop(10_000);
    const [disk] = machine.spec.disks;
    assert.ok(disk);
    assert.equal((await inspectDisk(machine.folder, disk)).source, undefined);
    await here.start(t.signal);
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "4");
  },
);

test(
  "a machine that goes off, and an agent that goes, while the copy is held: it begins afterwards",
  { skip, timeout: 120_000 },
  async (t) => {
    await using stage = new Stage();
    const path = stage.dataImage("point.raw", 64);
    const sizeBytes = statSync(path).size;
    await using source = await serveFile(stage, "point.raw", null, ["-r", "--filter=rate"], ["rate=80M"]);
    const host = await stage.openHost();
    const port = await freePort();
    const disks = [{ id: "data", content: { kind: "live", source: source.location, sizeBytes } } as const];
    const machine = await host.create(webGuest("live", port, { disks }));
    await machine.start(t.signal);
    const copy = await host.disksOf("live").startBackgroundCopy("data");
    await machine.stop(0);
    assert.equal(copy.progress.state, "waiting");
    await machine.start(t.signal);
    await stage.closeHost();
    const second = await stage.openHost();
    await second.resumed;
    await second.disksOf("live").backgroundCopy("data").complete;
    await source.kill();
    assert.equal(await get(port, "/cgi-bin/count", t.signal), "1");
  },
);
