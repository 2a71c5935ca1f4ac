import type { Duplex } from "node:stream";
import { OperationalError } from "#kernel/errors.ts";

/**
 * The next `length` bytes of a stream that nothing else reads; `length` at most 64 KiB. What comes after them stays in the
 * stream.
 * @throws OperationalError `nbd.unreachable` when the stream ends or fails first; the signal's reason when that aborts first.
 */
export async function readExactly(stream: Duplex, length: number, signal: AbortSignal): Promise<Buffer> {
  if (length === 0) return Buffer.alloc(0);
  for (;;) {
    signal.throwIfAborted();
    const bytes = stream.read(length) as Buffer | null;
    if (bytes !== null) {
      if (bytes.length === length) return bytes;
      throw ended();
    }
    if (stream.readableEnded || stream.destroyed) throw ended();
    await nextChange(stream, signal);
  }
}

function ended(cause?: unknown): OperationalError {
  return new OperationalError("nbd.unreachable", "the peer ended the connection", { cause });
}

/** Resolves when there is more to read or nothing will come; a failure of the stream counts as its end. */
function nextChange(stream: Duplex, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const events = ["readable", "end", "close"] as const;
    const settle = (): void => {
      for (const event of events) stream.off(event, settle);
      stream.off("error", onError);
      signal.removeEventListener("abort", onAbort);
      resolve();
    };
    const onError = (error: Error): void => {
      settle();
      reject(ended(error));
    };
    const onAbort = (): void => {
      settle();
      reject(signal.reason as Error);
    };
    for (const event of events) stream.on(event, settle);
    stream.on("error", onError);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}
