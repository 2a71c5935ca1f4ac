/** The vault's commands, put together: a store, a key, and what is asked of them. */
import { mkdir, open } from "node:fs/promises";
import { resolve } from "node:path";
import type { Writable } from "node:stream";
import type { VaultFlags, VaultPointView, VaultTools, VaultVolumeView } from "#cli/command-context.ts";
import type { Terminal } from "#cli/terminal.ts";
import type { VaultConfig } from "#config/config-schema.ts";
import { readConfig } from "#config/read-config.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Secret } from "#kernel/secret.ts";
import type { BlockReader } from "#model/block-device.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { openOverlayDevice } from "#nbd/overlay-device.ts";
import { nbdSocketIn, openDesk } from "#recovery/desk/open-desk.ts";
import { deskSocketIn, serveDesk } from "#recovery/desk/serve-desk.ts";
import { initVault, openVault, type Vault } from "#vault/open-vault.ts";
import type { PointId } from "#vault/point-manifest.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";

interface Place {
  readonly storage: BlobStorage;
  readonly passphrase: Secret;
  /** Undefined where store and key were named on the command line. */
  readonly config: VaultConfig | undefined;
}

async function placeOf(flags: VaultFlags): Promise<Place> {
  if (flags.store !== undefined) {
    if (flags.passphraseFile === undefined) {
      throw new OperationalError(
        "config.missing",
        "--store needs --passphrase-file: the file that the key's passphrase is in",
      );
    }
    const passphrase = resolveSecret({ file: resolve(flags.passphraseFile) }, "/");
    return { storage: await openFolderStorage(resolve(flags.store)), passphrase, config: undefined };
  }
  const { config, folder } = readConfig(flags.config);
  if (config.vault === undefined) {
    throw new OperationalError(
      "config.missing",
      `${flags.config} has no vault: add \`vault\` (store and passphrase), or name one with --store and --passphrase-file`,
    );
  }
  const passphrase = resolveSecret(config.vault.passphrase, folder);
  return { storage: await openFolderStorage(config.vault.store.folder), passphrase, config: config.vault };
}

async function withVault<T>(
  flags: VaultFlags,
  log: Log,
  work: (vault: Vault, place: Place) => Promise<T>,
): Promise<T> {
  const place = await placeOf(flags);
  const { storage, passphrase } = place;
  try {
    await using vault = await openVault({ storage, unlock: { passphrase }, clock: systemClock, log });
    return await work(vault, place);
  } finally {
    await storage.close();
  }
}

export function createVaultTools(terminal: Terminal, openLog: () => Promise<Log>): VaultTools {
  return {
    async init(flags) {
      const { storage, passphrase } = await placeOf(flags);
      try {
        await using vault = await initVault({ storage, unlock: { passphrase } });
        return { id: vault.id, store: storage.description };
      } finally {
        await storage.close();
      }
    },

    serve: async (flags, signal) => serve(terminal, await openLog(), flags, signal),

    status: async (flags, signal) =>
      withVault(flags, await openLog(), async (vault, { storage }) => ({
        id: vault.id,
        store: storage.description,
        volumes: volumesOf(await pointsOf(vault, undefined, signal)),
      })),

    points: async (flags, volume, signal) =>
      withVault(flags, await openLog(), (vault) => pointsOf(vault, volume, signal)),

    cat: async (flags, point, output, signal) =>
      withVault(flags, await openLog(), async (vault) => {
        const id = point as PointId;
        if (output === undefined) {
          await using reader = await vault.openPoint(id, { signal });
          return copyOut(reader, process.stdout, signal);
        }
        await makeNewFile(output);
        await vault.restoreToFile(id, output, { signal });
      }),

    mount: async (flags, point, options, signal) =>
      withVault(flags, await openLog(), async (vault) => {
        await using reader = await vault.openPoint(point as PointId, { signal });
        await mount(terminal, await openLog(), reader, point, options, signal);
      }),
  };
}

async function serve(terminal: Terminal, log: Log, flags: VaultFlags, signal: AbortSignal): Promise<void> {
  await withVault(flags, log, async (vault, { config, storage }) => {
    if (config === undefined) {
      throw new OperationalError(
        "input.invalid",
        "vault serve takes its vault from the configuration, not from --store",
      );
    }
    const { data: folder, window, windowSize, foldEvery } = config;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await using desk = await openDesk({
      folder,
      vault,
      clock: systemClock,
      log,
      window: { windowMs: window, windowBytes: windowSize },
      foldEveryMs: foldEvery,
    });
    await using _served = await serveDesk(desk, folder, log);
    const ready = {
      ready: true,
      store: storage.description,
      desk: deskSocketIn(folder),
      nbd: nbdSocketIn(folder),
    };
    terminal.out(
      flags.json ? JSON.stringify(ready) : `the vault in ${ready.store} takes in writes at ${ready.nbd}`,
    );
    await aborted(signal);
  });
}

async function pointsOf(
  vault: Vault,
  volume: string | undefined,
  signal: AbortSignal,
): Promise<readonly VaultPointView[]> {
  const points: VaultPointView[] = [];
  for (const { id } of await vault.listPoints(volume, signal)) {
    const { volumeId, timeMs, sizeBytes, consistency, attributes } = await vault.pointFacts(id, signal);
    points.push({
      id,
      volume: volumeId,
      timeMs,
      sizeBytes,
      consistency,
      whole: attributes["log.whole"] !== "no",
    });
  }
  return points;
}

/** By name. */
function volumesOf(points: readonly VaultPointView[]): readonly VaultVolumeView[] {
  const byVolume = Map.groupBy(points, ({ volume }) => volume);
  return [...byVolume].map(([volume, own]) => {
    const times = own.map(({ timeMs }) => timeMs);
    return {
      volume,
      points: own.length,
      sizeBytes: own.at(-1)?.sizeBytes ?? 0,
      oldestMs: Math.min(...times),
      newestMs: Math.max(...times),
    };
  });
}

/** Errors: `state.conflict` when it is there: no file is written over. */
async function makeNewFile(path: string): Promise<void> {
  try {
    await (await open(path, "wx", 0o600)).close();
  } catch (cause) {
    const exists = (cause as NodeJS.ErrnoException).code === "EEXIST";
    throw new OperationalError(
      exists ? "state.conflict" : "store.failing",
      exists ? `${path} exists: name another file` : `${path} cannot be made`,
      { cause },
    );
  }
}

const pieceBytes = 1024 * 1024;

async function copyOut(reader: BlockReader, sink: Writable, signal: AbortSignal): Promise<void> {
  for (let at = 0; at < reader.sizeBytes; at += pieceBytes) {
    const piece = await reader.read(at, Math.min(pieceBytes, reader.sizeBytes - at), signal);
    await new Promise<void>((done, failed) => {
      sink.write(piece, (error) => (error ? failed(error) : done()));
    });
  }
}

async function mount(
  terminal: Terminal,
  log: Log,
  reader: BlockReader,
  point: string,
  { socket, writable }: { readonly socket: string; readonly writable?: string },
  signal: AbortSignal,
): Promise<void> {
  const overlay =
    writable === undefined
      ? undefined
      : await openOverlayDevice({ folder: resolve(writable), base: reader, baseId: point });
  try {
    const path = resolve(socket);
    await using _server = await startNbdServer({
      listen: { kind: "unix", path },
      provider: singleExport("", overlay ?? reader, { description: point }),
      clock: systemClock,
      log,
    });
    terminal.out(formatNbdUri({ address: { kind: "unix", path }, exportName: "", tls: false }));
    await aborted(signal);
  } finally {
    await overlay?.[Symbol.asyncDispose]();
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
