/** Real guests behind the EC2 dialect, through the AWS SDK. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import {
  AttachVolumeCommand,
  DeleteVolumeCommand,
  DetachVolumeCommand,
  ModifyVolumeCommand,
} from "@aws-sdk/client-ec2";
import {
  clientOf,
  consoleOf,
  makeVolume,
  openGroup,
  run,
  running,
  serialOf,
  setPort,
  stateReason,
} from "./ec2-calls.ts";
import { get, getOnce, isRunning, servesFrom, skip, Stage, until } from "./stage.ts";

/** For `then`: nothing listens there. */
const refused = [() => false, (error: NodeJS.ErrnoException) => error.code === "ECONNREFUSED"] as const;

test(
  "an instance serves from its volume, over restarts of its cloud",
  { skip, timeout: 300_000 },
  async (t) => {
    const began = performance.now();
    const lap = (what: string): void =>
      t.diagnostic(`${what} after ${Math.round(performance.now() - began)} ms`);
    await using stage = new Stage("ec2", "127.81.0.0/16", 2 * 168);
    let client = clientOf(await stage.start());
    const group = await openGroup(client, [80]);
    const VolumeId = await makeVolume(client);
    const serial = serialOf(VolumeId);
    const first = await run(client, group, servesFrom(serial, "first"));
    await client.send(new AttachVolumeCommand({ VolumeId, InstanceId: first, Device: "/dev/sdf" }));
    const address = await running(client, first, t.signal);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first");
    assert.match(await consoleOf(client, first), /serving from \/dev\/vd/);
    lap("first answer");

    // Grown while it is in use, and reached only as its group says.
    await client.send(new ModifyVolumeCommand({ VolumeId, Size: 2 }));
    await until(() => Promise.resolve(stage.volumeGiB(VolumeId) === 2), t.signal);
    await setPort(client, group, 80, false);
    await until(() => getOnce(`http://${address}/`).then(...refused), t.signal);
    await setPort(client, group, 80, true);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first");
    lap("grown, closed and open again");

    const pid = stage.guestPid(first);
    assert.ok(pid);
    client.destroy();
    await stage.end("SIGKILL");
    assert.equal(
      await get(`http://${address}/cgi-bin/lines`, t.signal),
      "first",
      "it serves without its cloud",
    );
    client = clientOf(await stage.again());
    await running(client, first, t.signal);
    assert.equal(stage.guestPid(first), pid);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, t.signal), "first", "it was not booted again");
    lap("taken over");

    const second = await run(client, group, servesFrom(serial, "second"));
    await get(`http://${address}/cgi-bin/release`, t.signal);
    await until(async () => /released/.test(await consoleOf(client, first)), t.signal);
    await client.send(new DetachVolumeCommand({ VolumeId }));
    const other = await running(client, second, t.signal);
    await client.send(new AttachVolumeCommand({ VolumeId, InstanceId: second, Device: "/dev/sdf" }));
    assert.equal(await get(`http://${other}/cgi-bin/lines`, t.signal), "first\nsecond");
    await assert.rejects(run(client, group, "#!/bin/sh\n"), { name: "InsufficientInstanceCapacity" });
    lap("moved to another guest");
    client.destroy();

    const pids = [stage.guestPid(first), stage.guestPid(second)];
    await stage.end("SIGTERM");
    assert.deepEqual(
      pids.map((each) => each !== null && isRunning(each)),
      [false, false],
      "a clean stop ends its guests",
    );
    client = clientOf(await stage.again());
    assert.equal(await running(client, second, t.signal), other);
    assert.equal(await get(`http://${other}/cgi-bin/lines`, t.signal), "first\nsecond\nsecond");
    lap("clean stop and start");
    await get(`http://${other}/cgi-bin/off`, AbortSignal.timeout(1000)).catch(() => {});
    await until(async () => /Instance initiated shutdown/.test(await stateReason(client, second)), t.signal);
    assert.equal(stage.guestPid(second), null);
    lap("turned off from inside");
    await client.send(new DetachVolumeCommand({ VolumeId }));
    await client.send(new DeleteVolumeCommand({ VolumeId }));
    await until(() => Promise.resolve(!existsSync(stage.volumeFile(VolumeId))), t.signal);
    client.destroy();
  },
);
