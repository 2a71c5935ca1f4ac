/**
 * The ordered command log of every environment.
 *
 * Guarantees
 * - `recordIntent` and `recordOutcome` resolve only when the record is on stable storage.
 * - `seq` rises by one per intent of an environment; `position` rises by one per outcome and is the order that readers see.
 *   An outcome is never seen before everything that was acknowledged earlier.
 * - An intent under an older fencing epoch than the environment's is refused (`state.fenced`), in the same transaction.
 * - Nothing is ever changed or removed but by `trim`, which keeps what a reader has not passed and what is open.
 */
import type { CommandId, EnvironmentId } from "#kernel/ids.ts";
import type { CommandOutcome, Intent, JournalEntry } from "#model/command.ts";

export interface Journal {
  recordIntent(intent: Intent): Promise<{ readonly seq: number }>;
  /** Rejects with `state.conflict` if that command already has a final outcome. `unknown` may be completed later. */
  recordOutcome(
    environment: EnvironmentId,
    id: CommandId,
    outcome: CommandOutcome,
  ): Promise<{ readonly position: number }>;
  /** Intents whose outcome is missing or `unknown`: ask the cloud about these before anything is repeated. */
  open(environment: EnvironmentId): Promise<readonly JournalEntry[]>;
  /** Entries with `position` greater than `after`, in that order, at most `limit`. */
  read(environment: EnvironmentId, after: number, limit: number): Promise<readonly JournalEntry[]>;
  /** The latest `limit` entries by seq, newest last; `before` pages back. */
  tail(environment: EnvironmentId, limit: number, before?: number): Promise<readonly JournalEntry[]>;
  /** Position of the last recorded outcome; 0 for none. */
  head(environment: EnvironmentId): Promise<number>;
  /** Resolves when `head` exceeds `after` (or the signal aborts): readers wait on this, not on a timer. */
  changed(environment: EnvironmentId, after: number, signal: AbortSignal): Promise<void>;
  counts(
    environment: EnvironmentId,
  ): Promise<{ readonly commands: number; readonly open: number; readonly head: number }>;
}
