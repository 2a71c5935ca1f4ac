import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import type { BlockDevice } from "#model/block-device.ts";
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
  assertSameBytes(await client.read(12_345, data.length), data);
  assertSameBytes(await device.read(12_345, data.length), data);
  await client.zero(20_000, 100);
  await client.flush();
  const around = await client.read(19_990, 120);
  assertSameBytes(around.subarray(10, 110), Buffer.alloc(100));
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

test("a flush that was waiting when the connection was lost does not vouch for what was written before", async () => {
  const memory = new MemoryDevice({ sizeBytes: 4096 });
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const slow: BlockDevice = {
    sizeBytes: 4096,
    read: async (offset, length) => {
      started.resolve();
      await gate.promise;
      return memory.read(offset, length);
    },
    extents: (offset, length) => memory.extents(offset, length),
    write: (offset, data) => memory.write(offset, data),
    zero: (offset, length) => memory.zero(offset, length),
    trim: (offset, length) => memory.trim(offset, length),
    flush: () => memory.flush(),
    [Symbol.asyncDispose]: async () => {},
  };
  const { server, options } = await served(singleExport("disk", slow));
  await using client = await openNbdClient({ ...options, maxRequests: 1 });
  await client.write(0, Buffer.alloc(4096, 1));
  const read = client.read(0, 1);
  await started.promise;
  // Behind the read: it has not been sent.
  const flushes = [client.flush(), client.flush()];
  const closed = server.close(1);
  for (const flush of flushes) flush.catch(() => {});
  // One that has lost what the other had in memory only.
  const emptied = singleExport("disk", new MemoryDevice({ sizeBytes: 4096 }));
  await using _again = await startNbdServer({
    listen: options.address,
    provider: emptied,
    clock: systemClock,
    log: silentLog,
  });
  await read;
  for (const flush of flushes) await assert.rejects(flush, { code: "nbd.unreachable", outcome: "unknown" });
  gate.resolve();
  await closed;
  await client.write(0, Buffer.alloc(4096, 2));
  await client.flush();
});
