import type { Duplex } from "node:stream";

/**
 * Joins two connections, both ways, with backpressure and half-close: the end of one side's bytes becomes the end
 * of the other's, and the way back stays open. `whenDone` is called once, when both are closed.
 */
export function joinConnections(a: Duplex, b: Duplex, idleMs: number, whenDone: () => void): { cut(): void } {
  let open = 2;
  const cut = (): void => {
    a.destroy();
    b.destroy();
  };
  const idle = setTimeout(cut, idleMs);
  idle.unref();
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.on("error", cut);
    from.on("data", () => idle.refresh());
    from.on("close", () => {
      // Closed before its end was read and its bytes written: the other side must not take this for an end.
      if (!from.readableEnded || !from.writableFinished) to.destroy();
      open -= 1;
      if (open > 0) return;
      clearTimeout(idle);
      whenDone();
    });
    from.pipe(to);
  }
  // Either may have closed before this was called.
  if (a.destroyed || b.destroyed) cut();
  return { cut };
}
