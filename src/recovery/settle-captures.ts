/** Waits for what guests wrote last to be captured; says of which disks it never will be, rather than waiting for those. */
import type { CaptureStatus, DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId, ResourceId } from "#kernel/ids.ts";
import { confirmCaptures } from "#recovery/confirm-captures.ts";
import type { Settled } from "#recovery/disk-mover.ts";
import type { KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";

export interface SettlePorts {
  readonly environment: EnvironmentId;
  readonly desk: VaultDesk;
  readonly host: DiskHost;
  readonly clock: Clock;
}

export interface SettlingDisk {
  readonly volumeId: ResourceId;
  readonly lineage: string;
}

/** What guests wrote last takes a moment to be captured; more than this means that capture does not work, in milliseconds. */
const settleWithinMs = 20_000;
const pauseMs = 50;

/** `waits`: the capture may still get there. `never`: nobody runs with the disk who could bring it there. */
type Standing = "settled" | { readonly outlook: "waits" | "never"; readonly problem: string };

/** Errors: those of the vault. A host that does not answer is named in the result. */
export async function settleCaptures(
  { environment, desk, host, clock }: SettlePorts,
  disks: readonly SettlingDisk[],
  signal: AbortSignal,
): Promise<Settled> {
  const until = clock.monotonicMs() + settleWithinMs;
  for (;;) {
    // First the vault, then the host: see confirmCaptures.
    const kept = await desk.volumes(environment, signal);
    const seen = await lookAt(host, signal);
    const late = clock.monotonicMs() >= until;
    if ("silence" in seen) {
      const { silence } = seen;
      if (late) return { behind: disks.map(({ volumeId }) => ({ volumeId, problem: silence })), silence };
    } else {
      const standings = disks.map((disk) => ({
        ...disk,
        capture: seen.captures.find(({ volumeId }) => volumeId === disk.volumeId) ?? null,
        arrives: seen.seeds.some(({ volumeId, state }) => volumeId === disk.volumeId && state !== "done"),
      }));
      await confirmCaptures(desk, environment, kept, standings, signal);
      const behind = standings.flatMap(({ volumeId, lineage, capture, arrives }) => {
        const standing = standingOf(
          capture,
          arrives,
          kept.find(({ volume }) => volume === lineage),
        );
        return standing === "settled" ? [] : [{ volumeId, ...standing }];
      });
      if (late || behind.every(({ outlook }) => outlook === "never")) {
        return { behind: behind.map(({ volumeId, problem }) => ({ volumeId, problem })), silence: null };
      }
    }
    await clock.sleep(pauseMs, signal);
  }
}

interface SeenAtHost {
  readonly captures: readonly CaptureStatus[];
  readonly seeds: readonly SeedStatus[];
}

async function lookAt(
  host: DiskHost,
  signal: AbortSignal,
): Promise<SeenAtHost | { readonly silence: string }> {
  try {
    return { captures: await host.captures(signal), seeds: await host.seeds(signal) };
  } catch (error) {
    signal.throwIfAborted();
    if (!isOperational(error)) throw error;
    return { silence: publicMessage(error) };
  }
}

function standingOf(capture: CaptureStatus | null, arrives: boolean, kept: KeptVolume | undefined): Standing {
  if (capture === null) return { outlook: "waits", problem: "it is not captured" };
  const { state, reason } = capture;
  if (arrives) {
    // Nothing that was written to it since it is live is captured before its own content is here.
    const outlook = reason === "not_attached" || reason === "machine_off" ? "never" : "waits";
    return { outlook, problem: "its own content still comes over, while its server runs" };
  }
  const inVault = kept?.state === "continuous";
  if (state === "continuous") {
    // Without a connection since the vault's process began, nothing was written since either, unless a machine runs.
    if (inVault && (kept.session > 0 || reason === "machine_off")) return "settled";
    const outlook = reason === "machine_off" ? "never" : "waits";
    return { outlook, problem: "its capture has only begun" };
  }
  if (reason === "not_attached") {
    if (inVault) return "settled";
    return {
      outlook: "never",
      problem: "no machine has it, so that its first copy does not go on: attach it to a server that runs",
    };
  }
  if (reason === "machine_off") {
    const problem = "its server is off, and was not captured to the last write: start the server for that";
    return { outlook: "never", problem };
  }
  return { outlook: "waits", problem: `its capture is ${state}` };
}
