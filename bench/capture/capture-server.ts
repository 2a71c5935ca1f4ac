// The vault's side of the capture, in a process of its own: `capture-server.ts FOLDER SOCKET SIZE`. A write log with shipping, folding and pruning
// behind an NBD server. A line on its input is answered with what was seen since the last one, as JSON.
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { initVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { CaptureTarget } from "#vault/write-log/capture-target.ts";
import { LogKeeper } from "#vault/write-log/keep-log.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { LogShipper } from "#vault/write-log/ship-log.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";

const [folder, socket, size] = process.argv.slice(2);
if (folder === undefined || socket === undefined)
  throw new Error("usage: capture-server.ts FOLDER SOCKET SIZE");
const storage = await openFolderStorage(join(folder, "store"));
const vault = await initVault({ storage, unlock: { passphrase: new Secret("bench") }, threads: 1 });
const log = await openWriteLog({
  folder: openSegmentFolder(join(folder, "log")),
  group: "bench",
  logKey: vault.context.keys.log,
  clock: systemClock,
  points: vaultPoints(vault),
});
await log.addVolume("disk", Number(size));
const target = new CaptureTarget(log, "disk");
await target.completeSynchronisation();
const shipper = process.env["CAPTURE_SHIP"] === "no" ? undefined : await LogShipper.open(log, storage);
const keeper = new LogKeeper({
  log,
  ...(shipper === undefined ? {} : { shipper }),
  window: { windowMs: 3_600_000, windowBytes: 4 * 1024 ** 3 },
  foldBytes: Number(process.env["CAPTURE_FOLD_BYTES"] ?? 1024 ** 3),
  notify: (notice) => console.error(JSON.stringify(notice)),
});

let lags: number[] = [];
let unshipped: number[] = [];
let mostRss = 0;
let mostQueued = 0;
/** How long each write was not captured yet: from its arrival to the end of the flush that made it durable. */
const timed: BlockDevice = {
  sizeBytes: target.sizeBytes,
  read: (offset, length, signal) => target.read(offset, length, signal),
  extents: (offset, length, signal) => target.extents(offset, length, signal),
  write: async (offset, data, options) => {
    const began = performance.now();
    await target.write(offset, data, options);
    lags.push(performance.now() - began);
  },
  zero: (offset, length, options) => target.zero(offset, length, options),
  trim: (offset, length, options) => target.trim(offset, length, options),
  flush: () => target.flush(),
  [Symbol.asyncDispose]: async () => {},
};
setInterval(() => {
  mostRss = Math.max(mostRss, process.memoryUsage.rss());
  mostQueued = Math.max(mostQueued, log.queuedBytes);
  unshipped.push(keeper.lag().unshippedMs);
}, 20);

const percentile = (values: readonly number[], part: number): number =>
  values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * part)] ?? 0;

await startNbdServer({
  listen: { kind: "unix", path: socket },
  provider: singleExport("disk", timed),
  clock: systemClock,
  log: silentLog,
});
console.log("ready");
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "quit") break;
  const report = {
    writes: lags.length,
    lagP50Ms: percentile(lags, 0.5),
    lagP99Ms: percentile(lags, 0.99),
    lagMaxMs: Math.max(0, ...lags.slice(-100_000)),
    unshippedMs: keeper.lag().unshippedMs,
    unshippedP99Ms: percentile(unshipped, 0.99),
    mostRssMb: mostRss / 1024 ** 2,
    mostQueuedMb: mostQueued / 1024 ** 2,
  };
  [lags, unshipped, mostRss, mostQueued] = [[], [], 0, 0];
  console.log(JSON.stringify(report));
}
await keeper[Symbol.asyncDispose]();
await shipper?.[Symbol.asyncDispose]();
await log.close();
await vault[Symbol.asyncDispose]();
process.exit(0);
