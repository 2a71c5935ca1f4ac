/** The vault's desk: every group that has a log here, served by NBD on a Unix socket. */
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ExportProvider, NbdExport } from "#nbd/export-provider.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { PointId } from "#vault/point-manifest.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { LogWindow } from "#vault/write-log/prune-log.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";
import { decodeExportName, encodeExportName, type ExportName } from "./export-name.ts";
import { GroupDesk } from "./group-desk.ts";

export interface DeskOptions {
  /** Logs and sockets; made if absent, used by one process at a time. */
  readonly folder: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  readonly window: LogWindow;
  readonly foldEveryMs: number;
}

/** Where the desk's NBD server is found. */
export function nbdSocketIn(folder: string): string {
  return join(folder, "nbd.sock");
}

/** Errors: `vault.damaged` for a log that is not what was written, `config.invalid` for a folder whose name is too long. */
export async function openDesk(options: DeskOptions): Promise<VaultDesk> {
  const { folder, vault, clock, log, window, foldEveryMs } = options;
  const groupsFolder = join(folder, "groups");
  await mkdir(groupsFolder, { recursive: true, mode: 0o700 });
  const groups = new Map<string, Promise<GroupDesk>>();
  const openGroup = (group: string): Promise<GroupDesk> => {
    const present = groups.get(group);
    if (present !== undefined) return present;
    const opened = GroupDesk.open({
      group,
      folder: join(groupsFolder, group),
      vault,
      clock,
      log,
      window,
      foldEveryMs,
    });
    groups.set(group, opened);
    opened.catch(() => groups.delete(group));
    return opened;
  };
  await Promise.all((await readdir(groupsFolder)).map(openGroup));

  const provider: ExportProvider = {
    openExport: async (name, { signal }) => {
      const wanted = decodeExportName(name);
      return wanted === undefined ? undefined : openExport(wanted, signal);
    },
    // What there is to read would be every moment: nobody wants that list.
    listExports: async () => [],
  };

  async function openExport(wanted: ExportName, signal: AbortSignal): Promise<NbdExport | undefined> {
    switch (wanted.kind) {
      case "capture":
        return (await groups.get(wanted.group))?.openCapture(wanted.volume, wanted.epoch);
      case "moment":
        return (await groups.get(wanted.group))?.openMomentExport(wanted.volume, wanted.sequence);
      case "point": {
        const device = await vault.openPoint(wanted.point as PointId, { signal });
        return {
          writable: false,
          device,
          multiConn: true,
          cheapExtents: true,
          [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
        };
      }
    }
  }

  const path = nbdSocketIn(folder);
  const server = await startNbdServer({
    listen: { kind: "unix", path },
    provider,
    clock,
    log,
    maxConnections: 1024,
  });
  const uriOf = (name: ExportName): string =>
    formatNbdUri({ address: { kind: "unix", path }, exportName: encodeExportName(name), tls: false });

  async function known(group: string): Promise<GroupDesk> {
    const desk = await groups.get(group);
    if (desk !== undefined) return desk;
    throw new OperationalError("not_found", `no disk of "${group}" was ever captured`);
  }

  return {
    async protect(group, { volume, sizeBytes, epoch }) {
      await (await openGroup(group)).protect(volume, sizeBytes, epoch);
      return { uri: uriOf({ kind: "capture", group, volume, epoch }) };
    },
    release: async (group, volume) => (await known(group)).release(volume),
    fence: async (group, epoch) => (await openGroup(group)).fence(epoch),
    markWhole: async (group, volume, session) => (await known(group)).markWhole(volume, session),
    volumes: async (group) => (await groups.get(group))?.volumes() ?? [],
    status: async (group, signal) => (await groups.get(group))?.status(signal),
    moment: async (group, atMs, signal) => (await known(group)).moment(atMs, signal),
    async serve(group, volume, moment, signal) {
      const { sequence } = moment;
      const sizeBytes = await (await known(group)).serve(volume, sequence, signal);
      return { uri: uriOf({ kind: "moment", group, volume, sequence }), sizeBytes };
    },
    async [Symbol.asyncDispose]() {
      await server.close();
      for (const group of groups.values()) await (await group)[Symbol.asyncDispose]();
    },
  };
}
