// Tells a load generator when its next request is due, from a thread of its own that sleeps until then. A generator that looks at the clock
// all the time takes a core away from what it measures; a timer's millisecond would send requests in bursts. First it tells when it began,
// in milliseconds since the epoch, then how many are due.
import { parentPort, workerData } from "node:worker_threads";

export interface Pace {
  /** A second. */
  readonly rate: number;
  readonly total: number;
}

const { rate, total } = workerData as Pace;
const never = new Int32Array(new SharedArrayBuffer(4));
const started = performance.now();
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
parentPort?.postMessage(performance.timeOrigin + started);
for (let sent = 0; sent < total;) {
  const waitMs = started + (sent / rate) * 1000 - performance.now();
  if (waitMs > 0) Atomics.wait(never, 0, 0, waitMs);
  const due = Math.min(total, Math.floor(((performance.now() - started) / 1000) * rate) + 1);
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  if (due > sent) parentPort?.postMessage(due);
  sent = Math.max(sent, due);
}
