/** What a machine's capture of a disk says, in the terms of the contract (cloud/disk-host.ts). Pure. */
import type { CaptureState } from "#cloud/disk-host.ts";
import type { CaptureStatus as HypervisorStatus, CaptureSync } from "#hypervisor/capture.ts";

export interface CaptureView {
  readonly state: CaptureState;
  readonly reason: string | null;
  readonly copiedBytes: number;
  readonly totalBytes: number;
  readonly since?: number;
}

/** A guest may write to it already. */
export const behindItsSeed: CaptureView = {
  state: "interrupted",
  reason: "its own content is still being copied in",
  copiedBytes: 0,
  totalBytes: 0,
};

/** The host has nothing to show to the target, or no way there. */
export const unreached = (why: string): CaptureView => ({
  state: "interrupted",
  reason: why,
  copiedBytes: 0,
  totalBytes: 0,
});

/** Undefined: no machine has the volume, or its capture has not begun. */
export function viewCapture(status: HypervisorStatus | undefined, machineIsOn: boolean): CaptureView {
  if (status === undefined) {
    return { state: "synchronising", reason: "not_attached", copiedBytes: 0, totalBytes: 0 };
  }
  const { state, whole, behindSince, pendingBytes, lastSync } = status;
  const last = { copiedBytes: lastSync?.bytes ?? 0, totalBytes: lastSync?.bytes ?? 0 };
  switch (state) {
    case "seeding":
      return { state: "synchronising", reason: "full_copy", copiedBytes: 0, totalBytes: pendingBytes };
    case "resynchronising":
      return { state: "synchronising", reason: "bitmap", copiedBytes: 0, totalBytes: pendingBytes };
    case "continuous":
      // Its mirror has just ended, and nobody has seen to that yet; or QEMU's monitor closed, and whether its guest runs is not known yet.
      if (!whole) return { state: "interrupted", reason: "the target failed", ...last };
      if (!machineIsOn) return { state: "interrupted", reason: "machine_lost", ...last };
      return { state: "continuous", reason: lastSync === null ? null : syncReason(lastSync), ...last };
    case "behind":
      return {
        state: "interrupted",
        reason: status.lastInterruption,
        ...last,
        ...(behindSince !== null && { since: behindSince }),
      };
    case "waiting":
      if (machineIsOn) return { state: "synchronising", reason: "begins", ...last };
      // The machine is off: nobody writes. What was at the target in that moment is all that there is, if it was all then: a machine
      // that went off in the middle of a resynchronisation leaves a target that is old in one place and new in another.
      return whole
        ? { state: "continuous", reason: "machine_off", ...last }
        : { state: "interrupted", reason: "machine_off", ...last };
  }
}

function syncReason({ kind }: CaptureSync): string {
  return kind === "bitmap" ? "bitmap" : "full_copy";
}
