// A vault's process, to be killed: a write log of two volumes behind an NBD server, folded, pruned and shipped at a pace that lets a
// kill hit every step. Prints one line when it serves.
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { ExportProvider } from "#nbd/export-provider.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { openVault } from "#vault/open-vault.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { CaptureTarget } from "#vault/write-log/capture-target.ts";
import { LogKeeper } from "#vault/write-log/keep-log.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { LogShipper } from "#vault/write-log/ship-log.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";

export interface ChildOptions {
  readonly logPath: string;
  readonly storePath: string;
  readonly socketPath: string;
  readonly passphrase: string;
  readonly volumes: readonly string[];
  readonly sizeBytes: number;
}

const options = JSON.parse(process.env["WRITE_LOG_CHILD"] ?? "") as ChildOptions;
const storage = await openFolderStorage(options.storePath);
const vault = await openVault({
  storage,
  unlock: { passphrase: new Secret(options.passphrase) },
  threads: 0,
});
const log = await openWriteLog({
  folder: openSegmentFolder(options.logPath),
  group: "g",
  logKey: vault.context.keys.log,
  clock: systemClock,
  points: vaultPoints(vault),
  limits: { segmentBytes: 1_000_000, segmentAgeMs: 100 },
});
const targets = new Map<string, CaptureTarget>();
for (const id of options.volumes) {
  const isNew = !log.volumes().some((volume) => volume.id === id);
  if (isNew) await log.addVolume(id, options.sizeBytes);
  const target = new CaptureTarget(log, id);
  if (target.status.state !== "continuous") await target.completeSynchronisation();
  targets.set(id, target);
}
const shipper = await LogShipper.open(log, storage);
const keeper = new LogKeeper({
  log,
  shipper,
  window: { windowMs: 60_000, windowBytes: 6_000_000 },
  notify: ({ code, raised, detail }) => console.error(code, raised, detail),
});
const provider: ExportProvider = {
  openExport: async (name) => {
    const device = targets.get(name);
    if (device === undefined) return undefined;
    return { writable: true, device, multiConn: true, [Symbol.asyncDispose]: async () => {} };
  },
  listExports: async () => options.volumes.map((name) => ({ name })),
};
await startNbdServer({
  listen: { kind: "unix", path: options.socketPath },
  provider,
  clock: systemClock,
  log: silentLog,
});
console.log(JSON.stringify(keeper.lag()));
// Without pause, so that deaths hit every step of it.
for (;;) {
  await keeper.foldNow();
  await systemClock.sleep(50);
}
