/** Snapshots of a real guest's volumes, read block by block through the driver: what was written before the call is in them, and no more. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { AttachVolumeCommand } from "@aws-sdk/client-ec2";
import type { DiskSnapshot, SnapshotSource } from "#cloud/snapshot-source.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import { clientOf, makeVolume, openGroup, run, running, serialOf } from "./ec2-calls.ts";
import { get, type Ready, servesFrom, skip, Stage, until } from "./stage.ts";

function cloudOf({ endpoint, accessKeyId, secretAccessKey }: Ready) {
  const credentials = { accessKeyId, secretAccessKey: new Secret(secretAccessKey) };
  return openEc2Cloud({ endpoint, region: "us-east-1", credentials, clock: systemClock, log: silentLog });
}

async function complete(source: SnapshotSource, id: string, signal: AbortSignal): Promise<DiskSnapshot> {
  return until(async () => {
    const found = (await source.list({ set: "one" }, signal)).find((one) => one.id === id);
    assert.notEqual(found?.state, "failed");
    return found?.state === "complete" && found;
  }, signal);
}

/** The snapshot's content as a raw file; answers how many blocks were fetched. */
async function fetchInto(
  source: SnapshotSource,
  { id, sizeBytes }: DiskSnapshot,
  base: string | null,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const file = openSync(path, base === null ? "w" : "r+");
  let blocks = 0;
  ftruncateSync(file, sizeBytes);
  for await (const page of source.changes({ id, base, fromBytes: 0 }, signal)) {
    for (const { offset, length, content } of page) {
      blocks += 1;
      const data =
        content.kind === "zero"
          ? Buffer.alloc(length)
          : await source.read(id, { offset, length, token: content.token }, signal);
      writeSync(file, data, 0, data.length, offset);
    }
  }
  closeSync(file);
  return blocks;
}

/** The guest's file, after what a mount would do first: its journal is played back. */
function linesIn(path: string, copy: string): string {
  const env = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  execFileSync("cp", ["--sparse=always", path, copy]);
  try {
    execFileSync("e2fsck", ["-fp", copy], { env, stdio: "ignore" });
  } catch (error) {
    // 1: errors were corrected, the journal among them.
    assert.equal((error as { status?: number }).status, 1);
  }
  return execFileSync("debugfs", ["-R", "cat /lines", copy], { env, encoding: "utf8", stdio: "pipe" }).trim();
}

test(
  "a snapshot of a guest's volume is the disk at the instant of the call, and the next one costs what changed",
  { skip, timeout: 180_000 },
  async (t) => {
    await using stage = new Stage("ec2", "127.94.0.0/16", 168);
    const ready = await stage.start();
    const client = clientOf(ready);
    let cloud = cloudOf(ready);
    const group = await openGroup(client, [80]);
    const VolumeId = await makeVolume(client);
    const InstanceId = await run(client, group, servesFrom(serialOf(VolumeId), "first"));
    await client.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device: "/dev/sdf" }));
    const address = await running(client, InstanceId, t.signal);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first");

    const take = async (): Promise<string> => {
      const source = cloud.snapshots;
      assert.ok(source !== undefined);
      const [taken] = await source.take({ volumeIds: [VolumeId], tags: { set: "one" } }, t.signal);
      assert.ok(taken !== undefined && taken.volumeId === VolumeId);
      return taken.id;
    };
    await get(`http://${address}/cgi-bin/append`, t.signal);
    const first = await take();
    await get(`http://${address}/cgi-bin/append`, t.signal);
    const second = await take();
    await get(`http://${address}/cgi-bin/append`, t.signal);

    // Snapshots outlive the cloud's process.
    await stage.end("SIGKILL");
    await cloud.close();
    const again = await stage.again();
    cloud = cloudOf(again);
    const source = cloud.snapshots as SnapshotSource;

    const raw = join(stage.data, "fetched.raw");
    const one = await complete(source, first, t.signal);

    const whole = await fetchInto(source, one, null, raw, t.signal);
    assert.equal(linesIn(raw, `${raw}.copy`), "first\nmore");

    const two = await complete(source, second, t.signal);
    const changed = await fetchInto(source, two, first, raw, t.signal);
    assert.equal(linesIn(raw, `${raw}.copy`), "first\nmore\nmore");
    t.diagnostic(`${whole} blocks for the first, ${changed} for the second`);
    assert.ok(changed > 0 && changed < whole, `${changed} of ${whole}`);
    assert.equal(
      await get(`http://${address}/cgi-bin/lines`, t.signal),
      "first\nmore\nmore\nmore",
      "it goes on",
    );

    await source.remove(first, t.signal);
    await source.remove(first, t.signal);
    assert.deepEqual(
      (await source.list({ set: "one" }, t.signal)).map(({ id }) => id),
      [second],
    );
    const missing = source.changes({ id: second, base: first, fromBytes: 0 }, t.signal);
    await assert.rejects(missing[Symbol.asyncIterator]().next(), (error) =>
      isOperational(error, "cloud.not_found"),
    );
    const forged = { offset: 0, length: 524_288, token: "1999999999999-AAAA" };
    await assert.rejects(source.read(second, forged, t.signal), (error) =>
      isOperational(error, "cloud.conflict"),
    );
    await cloud.close();
    client.destroy();
  },
);
