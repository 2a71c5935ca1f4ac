/** A live disk's content as it comes over, watched until it is all there. The copy itself needs nobody to watch it. */
import type { ApiClient } from "#cli/api-client.ts";
import type { CommandContext } from "#cli/command-context.ts";
import { formatBytes } from "#cli/table.ts";
import type { SeedStatus } from "#cloud/disk-host.ts";
import type { EnvironmentStatus } from "#takeover/control.ts";

const pauseMs = 1000;

type Disk = EnvironmentStatus["disks"][number];

/** `45 % here (460 MiB of 1 GiB)` */
export function copyShare({
  copiedBytes,
  totalBytes,
}: Pick<SeedStatus, "copiedBytes" | "totalBytes">): string {
  const percent = totalBytes === 0 ? 100 : Math.floor((100 * copiedBytes) / totalBytes);
  return `${percent} % here (${formatBytes(copiedBytes)} of ${formatBytes(totalBytes)})`;
}

/** False: something of it was not looked at since, or is not here. */
export function wholeSince(disks: readonly Disk[], afterMs: number): boolean {
  return disks.every(({ copy, seenAt, problem }) => {
    if (seenAt <= afterMs || (problem !== null && copy === null)) return false;
    return copy === null || copy.state === "done";
  });
}

/**
 * Until every disk that the environment has where it is served is whole, as seen after `afterMs`; a line each time that something has
 * changed. Ctrl-C ends the watching, never the copy.
 */
export async function followCopies(
  context: CommandContext,
  api: ApiClient,
  path: string,
  afterMs: number,
): Promise<readonly Disk[]> {
  let last = "";
  for (;;) {
    const { disks } = await api.get<EnvironmentStatus>(path, context.signal);
    if (wholeSince(disks, afterMs)) return disks;
    const seen = disks.filter(({ seenAt }) => seenAt > afterMs);
    const said = seen.map((disk) => `${disk.volumeId}: ${describe(disk)}`).join(", ");
    if (said !== "" && said !== last) context.terminal.err(said);
    last = said;
    await pause(context.signal);
  }
}

function describe({ copy, problem }: Disk): string {
  if (copy === null) return problem ?? "whole";
  if (copy.state === "done") return "whole";
  return copy.state === "waiting" ? `${copyShare(copy)}, waits: the vault does not answer` : copyShare(copy);
}

function pause(signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer);
      reject(signal.reason as Error);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", end);
      resolve();
    }, pauseMs);
    signal.addEventListener("abort", end, { once: true });
  });
}
