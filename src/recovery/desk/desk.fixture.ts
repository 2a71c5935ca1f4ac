/** A vault's process, as far as its insides go, asked over its socket; and whoever writes and reads there. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "#kernel/clock.ts";
import { type Log, silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { type NbdClient, openNbdClient } from "#nbd/nbd-client.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { initVault, openVault, type Vault } from "#vault/open-vault.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import type { LogWindow } from "#vault/write-log/prune-log.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { type DeskRetention, openDesk } from "./open-desk.ts";
import { connectDesk, serveDesk } from "./serve-desk.ts";

export const { signal } = new AbortController();
export const group = "shop";
export const volume = "vol-0123456789abcdef0";
export const sizeBytes = 4 * 1024 * 1024;
export const block = (fill: number): Buffer => Buffer.alloc(4096, fill);

export interface DeskProcess extends AsyncDisposable {
  readonly desk: VaultDesk;
  readonly vault: Vault;
}

export interface DeskProcessOptions {
  /** The vault is made first. */
  readonly make?: boolean;
  readonly window?: LogWindow;
  readonly foldEveryMs?: number;
  readonly retention?: DeskRetention;
  readonly log?: Log;
  readonly store?: (inner: BlobStorage) => BlobStorage;
}

/** A window so short that a moment is soon behind it. */
export const shortWindow = { window: { windowMs: 1, windowBytes: 2 ** 30 }, foldEveryMs: 100 };

export async function openDeskProcess(
  folder: string,
  options: DeskProcessOptions = {},
): Promise<DeskProcess> {
  const { make = false, log = silentLog, store = (inner) => inner, retention } = options;
  const storage = store(await openFolderStorage(join(folder, "store")));
  const unlock = { passphrase: new Secret("correct horse") };
  const cheap = { N: 1024, r: 8, p: 1 };
  const vault = await (make
    ? initVault({ storage, unlock, threads: 0, scrypt: cheap })
    : openVault({ storage, unlock, threads: 0 }));
  const data = join(folder, "data");
  const desk = await openDesk({
    folder: data,
    vault,
    clock: systemClock,
    log,
    window: options.window ?? { windowMs: 3_600_000, windowBytes: 2 ** 30 },
    foldEveryMs: options.foldEveryMs ?? 3_600_000,
    ...(retention === undefined ? {} : { retention }),
  });
  const served = await serveDesk(desk, data, silentLog);
  const client = connectDesk(data);
  return {
    desk: client,
    vault,
    [Symbol.asyncDispose]: async () => {
      await client[Symbol.asyncDispose]();
      await served[Symbol.asyncDispose]();
      await desk[Symbol.asyncDispose]();
      await vault[Symbol.asyncDispose]();
      await storage.close();
    },
  };
}

export async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "understudy-desk-"));
  try {
    await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Without reconnecting: a connection that ends is an error at once. */
export function connect(uri: string, exportName?: string): Promise<NbdClient> {
  const parsed = parseNbdUri(uri);
  const ports = { clock: systemClock, random: systemRandom, log: silentLog, reconnectMs: 0 };
  return openNbdClient(
    { ...ports, address: parsed.address, exportName: exportName ?? parsed.exportName },
    signal,
  );
}

export async function sessionOf(desk: VaultDesk, id = volume): Promise<number> {
  return (await desk.volumes(group, signal)).find((one) => one.volume === id)?.session ?? 0;
}

/** A host whose first write was captured, and whose copy is whole. */
export async function captureWhole(desk: VaultDesk, id = volume, fill = 1): Promise<NbdClient> {
  const { uri } = await desk.protect(group, { volume: id, sizeBytes, epoch: 1 }, signal);
  const host = await connect(uri);
  await host.write(0, block(fill));
  await desk.markWhole(group, id, await sessionOf(desk, id), signal);
  return host;
}

/** Writes on until the log's window has left the record behind. */
export async function leaveBehind(desk: VaultDesk, host: NbdClient, record: number): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (let fill = 100; ; fill = 100 + ((fill + 1) % 100)) {
    await host.write(65_536, block(fill));
    const oldest = (await desk.status(group, signal))?.oldest;
    if (oldest !== null && oldest !== undefined && oldest.sequence > record) return;
    assert.ok(Date.now() < deadline, "the window moved on");
    await systemClock.sleep(20);
  }
}

/** The first byte of the volume as it was then. */
export async function readServed(desk: VaultDesk, moment: DiskMoment, id = volume): Promise<number> {
  const { uri } = await desk.serve(group, id, moment, signal);
  await using reader = await connect(uri);
  return (await reader.read(0, 1))[0] ?? 0;
}
