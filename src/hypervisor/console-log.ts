/** What a guest printed on its serial console: a file that QEMU appends to. */
import { open, stat, truncate } from "node:fs/promises";
import type { Clock } from "#kernel/clock.ts";

const POLL_MS = 25;
/** A guest that prints without end fills no host: beyond this, all that it has printed is dropped. */
const LIMIT_BYTES = 8 * 1024 * 1024;

/** The last `tailBytes` of it; empty when nothing was printed yet. */
export async function readConsole(path: string, tailBytes: number): Promise<Buffer> {
  return readFrom(path, (size) => Math.max(0, size - tailBytes));
}

/** Whether the text appeared behind `start` in time. */
export async function waitForConsole(
  path: string,
  start: number,
  wanted: { readonly consoleLine: string; readonly withinMs: number },
  clock: Clock,
  signal?: AbortSignal,
): Promise<boolean> {
  const deadline = clock.monotonicMs() + wanted.withinMs;
  for (;;) {
    const text = (await readFrom(path, () => start)).toString("latin1");
    if (text.includes(wanted.consoleLine)) return true;
    if (clock.monotonicMs() > deadline) return false;
    await clock.sleep(POLL_MS, signal);
  }
}

/** Not while somebody waits for what the guest prints: it may be in what is dropped. */
export async function trimConsole(path: string): Promise<void> {
  const { size } = await stat(path).catch(() => ({ size: 0 }));
  // QEMU appends: it goes on at the new end.
  if (size > LIMIT_BYTES) await truncate(path, 0);
}

async function readFrom(path: string, startOf: (size: number) => number): Promise<Buffer> {
  let file;
  try {
    file = await open(path, "r");
  } catch {
    return Buffer.alloc(0);
  }
  try {
    const { size } = await file.stat();
    const start = Math.min(startOf(size), size);
    const buffer = Buffer.alloc(size - start);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, start);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}
