import assert from "node:assert/strict";
import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { Machine } from "#hypervisor/machine.ts";
import { get, locationOf, sameContent, skip, Stage, webGuest } from "../hypervisor/stage.ts";
import { group, makeStage, type Served, shipped, volume } from "../vault-cli/vault-stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const sizeBytes = 48 * 1024 * 1024;

/** As the control plane does it: the vault's target to the host, and what the host says to the vault. */
async function protect(
  stage: Stage,
  { desk }: Served,
  signal: AbortSignal,
): Promise<{ readonly kind: string; readonly bytes: number }> {
  const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
  const capture = await stage.host.disksOf("web").startCapture("data", { target: locationOf(uri) });
  const { lastSync } = await capture.reached("continuous", signal);
  const kept = (await desk.volumes(group, signal)).find((one) => one.volume === volume);
  await desk.markWhole(group, volume, kept?.session ?? 0, signal);
  assert.ok(lastSync !== null);
  return lastSync;
}

async function withGuest(
  work: (stage: Stage, machine: Machine, port: number) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  await using stage = new Stage();
  const host = await stage.openHost();
  const port = await freePort();
  const content = {
    kind: "copy",
    path: stage.dataImage("data.raw", sizeBytes / 2 ** 20),
    format: "raw",
  } as const;
  const disks = [{ id: "data", content }];
  const machine = await host.create(webGuest("web", port, { disks }));
  await machine.start(signal);
  assert.equal(await get(port, "/cgi-bin/count", signal), "1");
  await work(stage, machine, port);
}

for (const lost of ["the vault's data folder", "the vault"] as const) {
  test(
    `${lost} is lost while a guest runs: all of its disk is captured anew, not what has changed since`,
    { skip, timeout: 240_000 },
    (t) =>
      withGuest(async (stage, machine, port) => {
        const vault = makeStage(t);
        assert.equal((await vault.vault("init")).code, 0);
        const served = await vault.serve();
        assert.equal((await protect(stage, served, t.signal)).kind, "full");
        assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
        const { at } = await served.desk.moment(group, null, t.signal);
        await shipped(served.desk);
        await served.kill();
        rmSync(join(vault.folder, "vd"), { recursive: true });
        if (lost === "the vault") {
          renameSync(vault.store, join(vault.folder, "gone"));
          assert.equal((await vault.vault("init")).code, 0);
        } else {
          const restored = await vault.vault("restore-log", group, "--json");
          assert.equal(restored.code, 0, restored.stderr);
          assert.deepEqual((JSON.parse(restored.stdout.toString()) as { putAside: null }).putAside, null);
        }
        await using anew = await vault.serve();
        // Its host goes on trying, with what it knows: nothing of that is taken in.
        assert.equal(await get(port, "/cgi-bin/count", t.signal), "3");
        const sync = await protect(stage, anew, t.signal);
        assert.deepEqual([sync.kind, sync.bytes], ["full", sizeBytes]);
        await machine.stop(10_000);
        const output = join(vault.folder, "now.raw");
        await anew.desk.moment(group, null, t.signal);
        await shipped(anew.desk);
        const cat = await vault.vault("cat", "--volume", volume, "--output", output);
        assert.equal(cat.code, 0, cat.stderr);
        await sameContent(join(machine.folder, "disk-data.qcow2"), "qcow2", output, "raw");
        if (lost === "the vault") return;
        const before = ["--volume", volume, "--at", new Date(at).toISOString()];
        const old = await vault.vault("cat", ...before, "--output", join(vault.folder, "then.raw"));
        assert.equal(old.code, 0, old.stderr);
      }, t.signal),
  );
}
