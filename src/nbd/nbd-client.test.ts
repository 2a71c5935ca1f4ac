import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { type ExportProvider, singleExport } from "./export-provider.ts";
import { MemoryDevice } from "./memory-device.ts";
import { listNbdExports, openNbdClient } from "./nbd-client.ts";
import { startNbdServer } from "./nbd-server.ts";

const folder = mkdtempSync(join(tmpdir(), "understudy-nbd-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let sockets = 0;

async function served(provider: ExportProvider) {
  sockets += 1;
  const listen = { kind: "unix", path: join(folder, `${sockets}.sock`) } as const;
  const server = await startNbdServer({ listen, provider, clock: systemClock, log: silentLog });
  const options = {
    address: listen,
    exportName: "disk",
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  };
  return { server, options };
}

test("what is written through the client is read back, also unaligned and beyond one request", async () => {
  const device = new MemoryDevice({ sizeBytes: 64 * 1024 * 1024 });
  const { server, options } = await served(singleExport("disk", device, { cheapExtents: true }));
  await using _server = server;
  await using client = await openNbdClient({ ...options, connections: 3 });
  assert.equal(client.sizeBytes, device.sizeBytes);
  const data = Buffer.alloc(9 * 1024 * 1024 + 17, "understudy");
  await client.write(12_345, data);
  assert.deepEqual(await client.read(12_345, data.length), data);
  assert.deepEqual(await device.read(12_345, data.length), data);
  await client.zero(20_000, 100);
  await client.flush();
  const around = await client.read(19_990, 120);
  assert.deepEqual(around.subarray(10, 110), Buffer.alloc(100));
  assert.equal(around[9], data[19_999 - 12_345]);
  assert.deepEqual(await client.extents(0, client.sizeBytes), await device.extents(0, device.sizeBytes));
});

test("exports are listed; one that is not there is not found", async () => {
  const device = new MemoryDevice({ sizeBytes: 4096 });
  const { server, options } = await served(singleExport("disk", device, { description: "a disk" }));
  await using _server = server;
  assert.deepEqual(await listNbdExports(options, AbortSignal.timeout(5_000)), [
    { name: "disk", description: "a disk" },
  ]);
  await assert.rejects(openNbdClient({ ...options, exportName: "other" }), { code: "not_found" });
});
