/** For tests: one end of a connection whose other end is a script. Nothing waits for a real socket. */
import { Duplex } from "node:stream";

export interface ScriptedStream {
  readonly stream: Duplex;
  /** All that was written to it; not more than its first megabyte. */
  readonly written: () => Buffer;
}

/** `pieces` arrive one after the other, then the end. */
export function scriptedStream(pieces: readonly Buffer[]): ScriptedStream {
  const written: Buffer[] = [];
  let kept = 0;
  let next = 0;
  const stream = new Duplex({
    emitClose: true,
    allowHalfOpen: true,
    read() {
      const piece = pieces[next];
      next += 1;
      this.push(piece ?? null);
    },
    write(chunk: Buffer, _encoding, done) {
      if (kept < 1024 * 1024) written.push(chunk);
      kept += chunk.length;
      done();
    },
  });
  return { stream, written: () => Buffer.concat(written) };
}
