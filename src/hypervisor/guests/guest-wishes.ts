/** What guests and disks there are to be, as those know it who keep the records: a cloud, or the host's own site. */
import type { ForwardRule } from "./forwards.ts";

export interface VolumeWish {
  readonly id: string;
  readonly sizeGiB: number;
  /** What its own writes are over; absent: it reads as zeroes until it is written to. */
  readonly image?: { readonly path: string; readonly format: "raw" | "qcow2" };
}

export interface GuestWishes {
  volumes(): Iterable<VolumeWish>;
  volume(id: string): VolumeWish | undefined;
  volumesOf(serverId: string): readonly VolumeWish[];
  /** No server of this id is to have a machine any more. */
  isGone(serverId: string): boolean;
  /** Where a server is reached, and what its groups let in; undefined: there is no such server. */
  inletsOf(
    serverId: string,
  ): { readonly addresses: readonly string[]; readonly rules: readonly ForwardRule[] } | undefined;
  /** All that is on record now is certain to be there after a crash. */
  durable(): Promise<void>;
  /** Called once: whenever something changed that concerns guests. */
  onChange(listener: () => void): void;
  /** Nobody asked for it: the guest turned itself off, or its QEMU died. */
  ended(serverId: string, how: "turned_off" | "died"): void;
}

/** A server as it is to be booted. */
export interface GuestStart {
  readonly id: string;
  /** Rises with each boot that was asked for: a machine that runs and is of this boot is left as it is. */
  readonly boot: number;
  /** For its console. */
  readonly address: string;
}
