/** A disk out of the vault's running process: also what is in the log's folder only yet. */
import type { ExportedDisk, ExportedDiskView } from "#cli/command-context.ts";
import type { Terminal } from "#cli/terminal.ts";
import { readConfig } from "#config/read-config.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { speakProgress } from "#main/care-for-vault.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import { writeDiskFile } from "#recovery/write-disk-file.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export async function exportDisk(
  terminal: Terminal,
  log: Log,
  { config: path, environment, lineage, atMs, sequence, output }: ExportedDisk,
  signal: AbortSignal,
): Promise<ExportedDiskView> {
  const { config } = readConfig(path);
  if (config.vault === undefined) {
    throw new OperationalError("config.missing", `${path} has no vault: there is no disk to copy`);
  }
  await using desk = connectDesk(config.vault.data);
  const moment =
    sequence !== null && atMs !== null
      ? { sequence, at: atMs }
      : await desk.moment(environment, atMs, signal);
  const { uri } = await desk.serve(environment, lineage, moment, signal);
  const { address, exportName } = parseNbdUri(uri);
  const ports = { clock: systemClock, random: systemRandom, log };
  await using disk = await openNbdClient({ ...ports, address, exportName }, signal);
  const onProgress = speakProgress(terminal, systemClock, "copied");
  await writeDiskFile(disk, output, { signal, onProgress });
  return { volume: lineage, timeMs: moment.at, sequence: moment.sequence, sizeBytes: disk.sizeBytes, output };
}
