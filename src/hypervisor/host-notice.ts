/** What the host agent tells whoever watches it, beside what it answers to calls. */
export type HostNoticeCode =
  /** QEMU ended though nobody asked for it. */
  | "machine.died"
  /** The guest turned itself off. */
  | "machine.turned_off"
  /** It did not show that it is ready in time, and was started again. */
  | "machine.boot_hung"
  /** Its monitor does not answer. */
  | "machine.unreachable"
  /** The guest is paused because a disk, or what stands below it, does not serve. Nothing is lost; it goes on when that is back. */
  | "disk.waiting"
  | "disk.serving"
  /** Writes are not captured at once any more: they are remembered in the bitmap, and the lag grows. */
  | "capture.behind"
  /** Every write is at the target before the guest is told that it is done. */
  | "capture.continuous"
  /** The background copy goes on later: its source does not serve. */
  | "copy.waiting"
  | "copy.complete"
  /** Something happened to it that could not be written down or followed up yet: it is tried again until it is. */
  | "machine.not_recorded"
  /** What was asked for could not be brought about after the agent's restart. */
  | "machine.not_resumed";

export interface HostNotice {
  readonly code: HostNoticeCode;
  readonly machine: string;
  readonly disk?: string;
  /** For people. */
  readonly message: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}
