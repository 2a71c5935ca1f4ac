// A large disk that holds little: captured, served and live within bounded memory. SPARSE_GIB sets its size: with 1,024 the first copy takes six minutes.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { get, locationOf, skip, Stage, webGuest } from "../hypervisor/stage.ts";
import { group, makeStage, shipped, volume } from "../vault-cli/vault-stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

const sizeGiB = Number(process.env["SPARSE_GIB"] ?? 16);
const sizeBytes = sizeGiB * 2 ** 30;
const mostMiB = 512;

function peakMiB(pid: number): number {
  return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

test(
  `a sparse disk of ${sizeGiB} GiB is captured and is live somewhere else, within ${mostMiB} MiB`,
  { skip, timeout: 120_000 + sizeGiB * 2000 },
  async (t) => {
    const began = performance.now();
    const say = (what: string): void =>
      t.diagnostic(`${((performance.now() - began) / 1000).toFixed(1)} s: ${what}`);
    await using stage = new Stage();
    const host = await stage.openHost();
    const ports = { source: await freePort(), live: await freePort() };
    const path = stage.dataImage("data.raw", sizeGiB * 1024);
    const source = { kind: "copy", path, format: "raw" } as const;
    const machine = await host.create(
      webGuest("web", ports.source, { disks: [{ id: "data", content: source }] }),
    );
    await machine.start(t.signal);
    assert.equal(await get(ports.source, "/cgi-bin/count", t.signal), "1");

    const vault = makeStage(t);
    assert.equal((await vault.vault("init")).code, 0);
    await using served = await vault.serve();
    const { desk } = served;
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, t.signal);
    const capture = await host.disksOf("web").startCapture("data", { target: locationOf(uri) });
    const { lastSync } = await capture.reached("continuous", t.signal);
    assert.equal(lastSync?.bytes, sizeBytes);
    const kept = (await desk.volumes(group, t.signal)).find((one) => one.volume === volume);
    await desk.markWhole(group, volume, kept?.session ?? 0, t.signal);
    say(`captured whole, the first copy took ${lastSync?.tookMs} ms`);
    assert.equal(await get(ports.source, "/cgi-bin/count", t.signal), "2");
    const moment = await desk.moment(group, null, t.signal);
    await shipped(desk);

    const { uri: point } = await desk.serve(group, volume, moment, t.signal);
    const content = { kind: "live", source: locationOf(point), sizeBytes } as const;
    const live = await host.create(webGuest("live", ports.live, { disks: [{ id: "data", content }] }));
    const from = performance.now();
    await live.start(t.signal);
    assert.equal(await get(ports.live, "/cgi-bin/count", t.signal), "3");
    say(`live after ${Math.round(performance.now() - from)} ms`);
    for (const [what, pid] of [
      ["the vault", served.pid],
      ["QEMU, captured", machine.record.process?.pid],
      ["QEMU, live", live.record.process?.pid],
    ] as const) {
      assert.ok(pid !== undefined);
      const peak = peakMiB(pid);
      say(`${what}: ${Math.round(peak)} MiB at most`);
      assert.ok(peak < mostMiB, `${what}: ${peak} MiB`);
    }
  },
);
