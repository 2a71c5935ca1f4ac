/** Tells the vault which captures its hosts call continuous: from then on their moments are whole. */
import type { CaptureStatus } from "#cloud/disk-host.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";

export interface SeenCapture {
  readonly lineage: string;
  /** Null: nothing captures it. */
  readonly capture: CaptureStatus | null;
}

/**
 * `kept` must have been asked of the vault before the captures were asked of the host: what a host then says is no older than the
 * session that it is taken for. Answers whether every capture is whole now.
 */
export async function confirmCaptures(
  desk: VaultDesk,
  environment: EnvironmentId,
  kept: readonly KeptVolume[],
  seen: readonly SeenCapture[],
  signal: AbortSignal,
): Promise<boolean> {
  let whole = true;
  for (const { lineage, capture } of seen) {
    const volume = kept.find((one) => one.volume === lineage);
    if (capture?.state !== "continuous" || volume === undefined || volume.session === 0) {
      whole = false;
      continue;
    }
    if (volume.state === "continuous" && volume.confirmed) continue;
    await desk.markWhole(environment, lineage, volume.session, signal);
  }
  return whole;
}
