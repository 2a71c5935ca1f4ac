/**
 * The ordered command log of every environment.
 *
 * Guarantees
 * - `recordIntent` and `recordOutcome` resolve only when the record is on stable storage.
 * - `seq` rises with every intent of an environment, in the order of the calls; `position` rises with every final
 *   outcome and is the order that readers see. A number whose record failed may stay unused; none is used twice.
 * - An outcome is never seen before everything that was acknowledged earlier.
 * - An intent under another fencing epoch than the environment's is refused (`state.fenced`), in the same transaction.
 * - Nothing is ever changed or removed but by `trim`, which keeps what a reader has not passed and what is open.
 */
import type { CommandId, EnvironmentId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { CommandOutcome, Intent, JournalEntry } from "#model/command.ts";

/** What one command changed, without the rest of its record. */
export interface PositionedChanges {
  readonly position: number;
  readonly changes: readonly Change[];
}

/** What whoever recorded an intent has in hand, for its outcome. */
export interface RecordedIntent {
  readonly seq: number;
  /** The command is open unless `Store.commits` has gone beyond this; undefined once its outcome was asked for. */
  openSince: number | undefined;
}

export interface Journal {
  /** Errors: `state.fenced`; `not_found` for an environment that the store does not have; `state.conflict` for a used id. */
  recordIntent(intent: Intent): Promise<RecordedIntent>;
  /**
   * Rejects with `state.conflict` if that command already has a final outcome. `unknown` takes no position (null), leaves
   * the command open, and may be completed later. With `recorded`, the answer to that intent, it is quicker.
   */
  recordOutcome(
    environment: EnvironmentId,
    id: CommandId,
    outcome: CommandOutcome,
    recorded?: RecordedIntent,
  ): Promise<{ readonly position: number | null }>;
  /** Intents whose outcome is missing or `unknown`, by seq: ask the cloud about these before anything is repeated. */
  open(environment: EnvironmentId): Promise<readonly JournalEntry[]>;
  /** Entries with `position` greater than `after`, in that order, at most `limit`. */
  read(environment: EnvironmentId, after: number, limit: number): Promise<readonly JournalEntry[]>;
  /** The same, with nothing but what changed: for reducing long queues. Refused commands come with no changes. */
  readChanges(
    environment: EnvironmentId,
    after: number,
    limit: number,
  ): Promise<readonly PositionedChanges[]>;
  /** The latest `limit` entries by seq, newest last; `before` (a seq) pages back. */
  tail(environment: EnvironmentId, limit: number, before?: number): Promise<readonly JournalEntry[]>;
  /** Position of the last recorded outcome; 0 for none. */
  head(environment: EnvironmentId): Promise<number>;
  /** Resolves when `head` exceeds `after` (or the signal aborts): readers wait on this, not on a timer. */
  changed(environment: EnvironmentId, after: number, signal: AbortSignal): Promise<void>;
  /**
   * Calls back with each final outcome of the environment once it is durable, before whoever recorded it is told, and perhaps before reads
   * see it. In the order of positions where one follows the other. Answers with what ends it.
   */
  onOutcome(environment: EnvironmentId, listener: (outcome: PositionedChanges) => void): () => void;
  /** `commands`: seq of the last intent, that is, how many were ever recorded. */
  counts(
    environment: EnvironmentId,
  ): Promise<{ readonly commands: number; readonly open: number; readonly head: number }>;
  /**
   * Removes at most `limit` entries with a position of at most `upTo` that every reader in the `reader` table has passed;
   * returns how many. Open entries, the newest entry and the head stay: numbering goes on from them. Repeat until it
   * returns less than `limit`.
   */
  trim(environment: EnvironmentId, upTo: number, limit: number): Promise<number>;
}
