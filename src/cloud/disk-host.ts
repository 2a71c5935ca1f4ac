/**
 * What a cloud's API does not offer for the content of disks, and a host agent of ours beside the site does: capture of every
 * write, a disk that is live before its content has arrived, a quiet moment of a guest's file systems. A site without one has
 * its volumes captured by an agent in the guest, or not at all, which is then a named gap.
 *
 * Guarantees every disk host gives
 * - Each call is idempotent: repeated after a crash of either side, it finishes what was begun and begins nothing twice.
 * - Capture never holds a guest's writes longer than the stall limit: past it, the guest goes on, what it writes is kept track
 *   of on the host, and the state says `interrupted` until the target has caught up. One exception, of QEMU 7.2: over a Unix socket,
 *   large writes (more than some 200 KiB in flight) wait until the target reads again or ends.
 * - `continuous` is said only while the target holds all that the guest was told is done. A disk whose machine went off before that
 *   stays `interrupted`.
 * - A seeded disk that a guest has written to is never thrown away, whatever becomes of its source, unless it is to be replaced.
 */

/** `synchronising`: the target's content is not one moment of the disk yet. `continuous`: each write reaches it before the guest is told. */
export type CaptureState = "synchronising" | "continuous" | "interrupted";

export interface CaptureRequest {
  /** The cloud's own id of the volume. */
  readonly volumeId: string;
  /** Where writes go: an NBD URI (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md) as the host reaches it. */
  readonly uri: string;
  /** A write that the target has held for so long is not waited for any more, in milliseconds. */
  readonly stallLimitMs: number;
}

export interface CaptureStatus {
  readonly volumeId: string;
  readonly uri: string;
  readonly state: CaptureState;
  /** Why content was or is being copied again: first_copy, bitmap, ...; null when nothing was. */
  readonly reason: string | null;
  /** Of the present or last synchronisation, in bytes. */
  readonly copiedBytes: number;
  readonly totalBytes: number;
  /** Milliseconds since the epoch at which the state began. */
  readonly since: number;
}

export interface SeedRequest {
  readonly volumeId: string;
  /** A read-only NBD export of the content wanted, at least as large as the volume's content. */
  readonly uri: string;
  /** Of the background copy; absent: as fast as it goes. */
  readonly bytesPerSecond?: number;
  /**
   * Also a volume that was written to: what it held is given up for the source's content. The text names this one replacement, so
   * that said again it does nothing more.
   */
  readonly replace?: string;
}

/** `copying`: live, its content still comes over. `waiting`: live, its source does not answer now. `done`: the source is let go. */
export type SeedState = "copying" | "waiting" | "done";

export interface SeedStatus {
  readonly volumeId: string;
  readonly uri: string;
  readonly state: SeedState;
  readonly copiedBytes: number;
  readonly totalBytes: number;
}

export interface GuestProgram {
  /** Within the guest. */
  readonly path: string;
  readonly args: readonly string[];
  readonly limitMs: number;
}

export interface GuestExit {
  /** Null: a signal ended it. */
  readonly exitCode: number | null;
  /** What it printed last, on both channels; bounded. */
  readonly output: string;
}

export interface DiskHost extends AsyncDisposable {
  /** Starts it, or goes on with one that is there already. Returns when it is recorded, not when it is continuous. */
  startCapture(request: CaptureRequest, signal: AbortSignal): Promise<CaptureStatus>;
  /** Also for a volume that is not captured. What the target has not seen by then, it never sees. */
  stopCapture(volumeId: string, signal: AbortSignal): Promise<void>;
  captures(signal: AbortSignal): Promise<readonly CaptureStatus[]>;

  /**
   * Makes the volume's content that of the source, at once: reads go to the source until the background copy has them here. The
   * volume must not have been written to, unless it is to be replaced, and no running machine may have it: else `machine.refused`.
   */
  seed(request: SeedRequest, signal: AbortSignal): Promise<SeedStatus>;
  seeds(signal: AbortSignal): Promise<readonly SeedStatus[]>;

  /**
   * A writable NBD export of a volume that no running machine has, for writing a point into it from outside; until `endExport`, a
   * machine that has the volume does not start. Errors: `machine.refused` while one runs with it.
   */
  exportVolume(volumeId: string, signal: AbortSignal): Promise<{ readonly uri: string }>;
  /** Also for a volume that is not exported. What was written is durable when it returns. */
  endExport(volumeId: string, signal: AbortSignal): Promise<void>;

  /** Whether a guest agent answers in the server's guest. */
  agentAnswers(serverId: string, signal: AbortSignal): Promise<boolean>;

  /**
   * Holds the guest's file systems still, at most `limitMs`, whoever dies meanwhile, and answers how many. Errors: `machine.failing`
   * where no guest agent answers, `machine.refused` where it will not.
   */
  freeze(serverId: string, limitMs: number, signal: AbortSignal): Promise<{ readonly fileSystems: number }>;
  /** `held`: until now; else the limit had let go of them before. */
  thaw(serverId: string, signal: AbortSignal): Promise<{ readonly held: boolean }>;

  /** Runs a program in the guest to its end. Errors: as for `freeze`; `machine.failing` too when it does not end in time. */
  exec(serverId: string, program: GuestProgram, signal: AbortSignal): Promise<GuestExit>;

  /** The end of what the machine printed. */
  console(serverId: string, signal: AbortSignal): Promise<string>;
  /** PNG; null: the machine has no display. */
  screenshot(serverId: string, signal: AbortSignal): Promise<Buffer | null>;
}
