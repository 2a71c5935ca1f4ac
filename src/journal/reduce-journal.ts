import type { EnvironmentId } from "#kernel/ids.ts";
import type { Journal } from "./contract.ts";
import type { Before, ReducedQueue } from "./reduce.ts";
import { startReduction } from "./reduce.ts";

/** Entries read at a time: the thread is held for some milliseconds a page. */
const pageEntries = 2_000;

export interface ReduceJournalRequest {
  readonly environment: EnvironmentId;
  /** The position that the reader has reached. */
  readonly after: number;
  /** Where to stop; default: what the head was when the reduction began. */
  readonly upTo?: number;
  /** The state at `after`, where the caller has it (see `startReduction`). */
  readonly before?: Before;
  readonly signal: AbortSignal;
}

/** Reduces what a reader has before it, page by page. `through` is 0 if there was no change in it. */
export async function reduceJournal(journal: Journal, request: ReduceJournalRequest): Promise<ReducedQueue> {
  const upTo = request.upTo ?? (await journal.head(request.environment));
  const reduction = startReduction(request.before);
  let { after } = request;
  while (after < upTo) {
    request.signal.throwIfAborted();
    const page = await journal.readChanges(request.environment, after, pageEntries);
    const last = page.at(-1);
    if (last === undefined) break;
    for (const { position, changes } of page) {
      if (position > upTo) break;
      for (const change of changes) reduction.add({ position, change });
    }
    after = last.position;
    // The reads are synchronous underneath; others get their turn between pages.
    await new Promise(setImmediate);
  }
  return reduction.result();
}
