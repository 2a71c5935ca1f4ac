import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import type { MachineSpec } from "#hypervisor/machine-spec.ts";
import { saveTemplate } from "#hypervisor/template.ts";
import { get, skip, Stage, webGuest } from "./stage.ts";
import { freePort } from "../../../demo/free-ports.ts";

test(
  "machines go on from a kept one in well under a second, each for itself, and always from the same moment",
  { skip, timeout: 90_000 },
  async (t) => {
    await using stage = new Stage();
    const host = await stage.openHost();
    const ports = [await freePort(), await freePort(), await freePort()] as const;
    const content = { kind: "copy", path: stage.dataImage("data.raw", 64), format: "raw" } as const;
    const first = await host.create(webGuest("first", ports[0], { disks: [{ id: "data", content }] }));
    const cold = performance.now();
    await first.start(t.signal);
    assert.equal(await get(ports[0], "/cgi-bin/count", t.signal), "1");
    const coldMs = performance.now() - cold;
    const folder = join(stage.folder, "template");
    await saveTemplate(first, folder, t.signal);
    assert.equal(await get(ports[0], "/cgi-bin/count", t.signal), "2");
    await assert.rejects(saveTemplate(first, folder), { code: "state.conflict" });

    const times: number[] = [];
    for (const port of [ports[1], ports[2]]) {
      const forward = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: port, guestPort: 80 } as const;
      const networks: MachineSpec["networks"] = [{ kind: "user", forwards: [forward], outbound: false }];
      const machine = await host.createFromTemplate(folder, { id: `tier-${port}`, networks });
      for (let start = 0; start < 2; start++) {
        const began = performance.now();
        await machine.start(t.signal);
        assert.equal(await get(port, "/cgi-bin/count", t.signal), "2");
        times.push(Math.round(performance.now() - began));
        await machine.stop(0);
      }
      await machine.start(t.signal);
    }
    t.diagnostic(`first answers after ${times.join(", ")} ms; after a boot ${Math.round(coldMs)} ms`);
    assert.equal(await get(ports[0], "/cgi-bin/count", t.signal), "3");
    const median = times.toSorted((a, b) => a - b)[2] ?? Infinity;
    assert.ok(median < coldMs * 0.7, `${median} ms against ${Math.round(coldMs)} ms for a boot`);
  },
);
