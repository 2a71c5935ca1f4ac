/** What the cloud's host offers for the content of volumes, over its socket: capture, seed, export. */
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  AttachVolumeCommand,
  DetachVolumeCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
} from "@aws-sdk/client-ec2";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { isOperational } from "#kernel/errors.ts";
import { clientOf, makeVolume, openGroup, run, running, serialOf, stateReason } from "./ec2-calls.ts";
import { get, servesFrom, skip, Stage, until } from "./stage.ts";

interface Served extends AsyncDisposable {
  readonly uri: string;
}

/** A raw file as an NBD export, by QEMU's own server. */
async function serve(path: string, ...options: string[]): Promise<Served> {
  const socket = `${path}.sock`;
  const args = ["--persistent", "--shared=8", "--format=raw", `--socket=${socket}`, ...options, path];
  const child: ChildProcess = spawn("qemu-nbd", args, { stdio: ["ignore", "ignore", "inherit"] });
  const gone = once(child, "exit");
  await until(() => Promise.resolve(existsSync(socket)), AbortSignal.timeout(5000));
  return {
    uri: `nbd+unix:///?socket=${socket}`,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await gone.catch(() => {});
    },
  };
}

test(
  "a volume is captured, and another one is live from what was captured",
  { skip, timeout: 300_000 },
  async (t) => {
    const { signal } = t;
    const began = performance.now();
    const lap = (what: string): void =>
      t.diagnostic(`${what} after ${Math.round(performance.now() - began)} ms`);
    await using stage = new Stage("ec2", "127.83.0.0/16", 2 * 168);
    const ready = await stage.start();
    let client = clientOf(ready);
    const host = openHostClient({ socketPath: ready.hostSocket });
    const group = await openGroup(client, [80]);
    const copy = join(stage.data, "copy.raw");
    execFileSync("truncate", ["-s", "1G", copy]);
    const source = await makeVolume(client);

    // Asked for before the volume is anybody's.
    await using target = await serve(copy);
    const wish = { volumeId: source, uri: target.uri, stallLimitMs: 3000 };
    assert.equal((await host.startCapture(wish, signal)).state, "synchronising");
    const first = await run(client, group, servesFrom(serialOf(source), "first"));
    await client.send(new AttachVolumeCommand({ VolumeId: source, InstanceId: first, Device: "/dev/sdf" }));
    const address = await running(client, first, signal);
    assert.equal(await get(`http://${address}/cgi-bin/lines`, signal), "first");
    const captured = await until(async () => {
      const [status] = await host.captures(signal);
      return status?.state === "continuous" && status;
    }, signal);
    assert.equal(captured.volumeId, source);
    assert.ok(captured.copiedBytes > 0);
    assert.match(await host.console(first, signal), /serving from/);

    lap("captured");
    assert.equal(await host.agentAnswers(first, signal), true);
    assert.deepEqual(await host.freeze(first, 60_000, signal), { fileSystems: 1 });
    const appended = get(`http://${address}/cgi-bin/append`, signal);
    assert.equal(await Promise.race([appended, sleep(500, "held")]), "held");
    assert.deepEqual(await host.thaw(first, signal), { held: true });
    assert.equal(await appended, "appended");
    // Whoever froze it and forgot it, or died, or took the agent with it: the guest goes on.
    await host.freeze(first, 1500, signal);
    assert.equal(await get(`http://${address}/cgi-bin/append`, signal), "appended");
    assert.deepEqual(await host.thaw(first, signal), { held: false });
    await host.freeze(first, 3_600_000, signal);
    await stage.end("SIGKILL");
    client.destroy();
    const waiting = get(`http://${address}/cgi-bin/append`, signal);
    assert.equal(await Promise.race([waiting, sleep(500, "held")]), "held");
    client = clientOf(await stage.again());
    assert.equal(await waiting, "appended");
    lap("frozen and thawed");
    const program = { path: "/bin/sh", args: ["-c", "cat /disks/*/lines; exit 3"], limitMs: 20_000 };
    const counted = await host.exec(first, program, signal);
    // One that waits too long for its answer is asked for again, and appended twice.
    const written = counted.output.trim();
    assert.equal(counted.exitCode, 3);
    assert.match(written, /^first(\nmore){3,}$/u);
    await assert.rejects(host.exec(first, { path: "/bin/sleep", args: ["60"], limitMs: 2500 }, signal), {
      code: "machine.failing",
      message: /did not end within 2500 ms/u,
    });
    assert.equal(await host.screenshot(first, signal), null, "it has no display");
    await until(async () => (await host.captures(signal))[0]?.state === "continuous", signal);
    await client.send(new StopInstancesCommand({ InstanceIds: [first] }));
    await until(() => Promise.resolve(stage.guestPid(first) === null), signal);
    await host.stopCapture(source, signal);
    await target[Symbol.asyncDispose]();
    const volumeFile = stage.volumeFile(source);
    execFileSync("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", volumeFile, copy], { stdio: "pipe" });

    lap("stopped, compared");
    // A disk that is live at once.
    await using exported = await serve(copy, "--read-only");
    const other = await makeVolume(client);
    const seed = { volumeId: other, uri: exported.uri, bytesPerSecond: 128 * 1024 * 1024 };
    assert.equal((await host.seed(seed, signal)).state, "copying");
    assert.equal((await host.seed(seed, signal)).state, "copying", "asked again it goes on");
    await assert.rejects(host.seed({ ...seed, volumeId: source }, signal), (error) => {
      assert.ok(isOperational(error, "machine.refused"), String(error));
      return true;
    });
    const second = await run(client, group, servesFrom(serialOf(other), "second"));
    await client.send(new AttachVolumeCommand({ VolumeId: other, InstanceId: second, Device: "/dev/sdf" }));
    const there = await running(client, second, signal);
    assert.equal(await get(`http://${there}/cgi-bin/lines`, signal), `${written}\nsecond`);
    assert.equal(
      (await host.seeds(signal))[0]?.state,
      "copying",
      "the guest serves before its disk is there",
    );
    lap("serves from its source");
    const again = join(stage.data, "again.raw");
    execFileSync("truncate", ["-s", "1G", again]);
    await using elsewhere = await serve(again);
    await host.startCapture({ volumeId: other, uri: elsewhere.uri, stallLimitMs: 3000 }, signal);
    const [behind] = await host.captures(signal);
    assert.equal(
      behind?.state,
      "interrupted",
      "what the guest writes meanwhile is nowhere else, and that is said",
    );
    client.destroy();
    await stage.end("SIGKILL");
    client = clientOf(await stage.again());
    await until(async () => (await host.seeds(signal))[0]?.state === "done", signal);
    await until(async () => (await host.captures(signal))[0]?.state === "continuous", signal);
    await host.stopCapture(other, signal);
    lap("copied and captured");
    await exported[Symbol.asyncDispose]();
    assert.equal(await get(`http://${there}/cgi-bin/lines`, signal), `${written}\nsecond`);

    lap("source gone");
    // Written to from outside, while no machine has it.
    await assert.rejects(host.exportVolume(other, signal), /runs with volume/);
    await client.send(new TerminateInstancesCommand({ InstanceIds: [second] }));
    lap("terminating");
    const { uri } = await until(() => host.exportVolume(other, signal).catch(() => false as const), signal);
    lap("exported");
    assert.deepEqual(await host.exportVolume(other, signal), { uri });
    execFileSync("qemu-io", ["-f", "raw", "-c", "write -P 7 512M 64k", uri], { stdio: "pipe" });
    await client.send(new DetachVolumeCommand({ VolumeId: source, InstanceId: first }));
    await client.send(new AttachVolumeCommand({ VolumeId: other, InstanceId: first, Device: "/dev/sdg" }));
    await client.send(new StartInstancesCommand({ InstanceIds: [first] }));
    await until(async () => /being written to/.test(await stateReason(client, first)), signal);
    lap("refused to start");
    await host.endExport(other, signal);
    await host.endExport(other, signal);
    const file = stage.volumeFile(other);
    execFileSync("qemu-io", ["-r", "-f", "qcow2", "-c", "read -P 7 512M 64k", file], { stdio: "pipe" });
    assert.deepEqual(await host.captures(signal), []);
    client.destroy();
  },
);
