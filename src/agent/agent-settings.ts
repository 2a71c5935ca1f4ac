/** What an agent is told to do: made from its configuration by the composition root. */
import type { Secret } from "#kernel/secret.ts";
import type { SendWindow } from "./send-window.ts";

export interface AgentDisk {
  /** Its name in the vault: the id of the volume in its cloud. */
  readonly volume: string;
  /** A block device, or a file that is a disk. */
  readonly path: string;
  /** Where its content stands still while it is held, as the hook makes it; null: `path` itself does. */
  readonly snapshot: string | null;
}

export interface HoldSettings {
  readonly freeze: readonly string[];
  readonly before: readonly string[] | null;
  readonly after: readonly string[] | null;
  /** What the content of a held disk is. */
  readonly gives: "crash" | "application";
  readonly limitMs: number;
  readonly hookLimitMs: number;
}

export interface AgentSettings {
  readonly stateFolder: string;
  readonly vault: {
    readonly url: string;
    readonly key: Secret;
    /** PEM; undefined: the machine's own CAs. */
    readonly ca: string | undefined;
  };
  readonly disks: readonly AgentDisk[];
  /** Null: nothing holds the disks still, and no pass is a moment of them. */
  readonly hold: HoldSettings | null;
  readonly everyMs: number;
  /** At the latest, a pass reads whole disks, although the kernel's trace says what was written. */
  readonly wholeEveryMs: number;
  readonly spoolLimitBytes: number;
  /** Null: as fast as it goes. */
  readonly bytesPerSecond: number | null;
  readonly window: SendWindow;
}
