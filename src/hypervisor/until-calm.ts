import type { Clock } from "#kernel/clock.ts";

/** A guest that has read, and has not read for so long, has what it starts with. */
const CALM_MS = 2000;
/** Nobody waits longer for that, whatever the guest reads. */
const AT_MOST_MS = 30_000;
const LOOK_EVERY_MS = 100;

/**
 * Returns when a guest's start is over, as far as its reads of a disk tell: it has read something, and then nothing for two seconds;
 * after 30 seconds in any case. A single read that takes longer than two seconds looks the same. `reads`: how many of its reads have ended.
 */
export async function untilCalm(
  reads: () => Promise<number>,
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  const began = clock.monotonicMs();
  let last = 0;
  for (let since = began, now = began; now - began < AT_MOST_MS; now = clock.monotonicMs()) {
    const count = await reads();
    if (count !== last) since = now;
    last = count;
    if (count > 0 && now - since >= CALM_MS) return;
    await clock.sleep(LOOK_EVERY_MS, signal);
  }
}
