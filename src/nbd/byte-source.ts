import type { Duplex } from "node:stream";
import { OperationalError } from "#kernel/errors.ts";

/**
 * Takes a stream's bytes in the amounts that are asked for: for the handshake, where each message says how long the next is. Holds
 * no more than what was asked for and one piece as it came. Nothing else may read the stream until `release`.
 */
export class ByteSource {
  readonly #stream: Duplex;
  #pieces: Buffer[] = [];
  #buffered = 0;
  #needed = 0;
  #over: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(stream: Duplex) {
    this.#stream = stream;
    // A source that waits for nothing takes nothing: the peer is held back by its own socket.
    stream.pause();
    stream.on("data", this.#onData);
    stream.on("end", this.#onEnd);
    stream.on("close", this.#onEnd);
    stream.on("error", this.#onError);
    if (stream.readableEnded || stream.destroyed) this.#onEnd();
  }

  /** Bytes that are here and were not asked for. */
  get buffered(): number {
    return this.#buffered + this.#stream.readableLength;
  }

  /**
   * The next `length` bytes.
   * @throws OperationalError `nbd.unreachable` when the stream ends or fails first; the signal's reason when that aborts first.
   */
  async read(length: number, signal: AbortSignal): Promise<Buffer> {
    this.#needed = length;
    while (this.#buffered < length) {
      signal.throwIfAborted();
      if (this.#over !== undefined) throw this.#over;
      await this.#more(signal);
    }
    const all =
      this.#pieces.length === 1 ? (this.#pieces[0] ?? Buffer.alloc(0)) : Buffer.concat(this.#pieces);
    const rest = all.subarray(length);
    this.#pieces = rest.length > 0 ? [rest] : [];
    this.#buffered = rest.length;
    return all.subarray(0, length);
  }

  /** Lets go of the stream, which is paused then; answers what was read and not asked for. */
  release(): Buffer {
    this.#stream.pause();
    this.#stream.off("data", this.#onData);
    this.#stream.off("end", this.#onEnd);
    this.#stream.off("close", this.#onEnd);
    this.#stream.off("error", this.#onError);
    return Buffer.concat(this.#pieces);
  }

  /** Resolves when something happened. */
  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        signal.removeEventListener("abort", wake);
        this.#wake = undefined;
        resolve();
      };
      this.#wake = wake;
      signal.addEventListener("abort", wake, { once: true });
      this.#stream.resume();
    });
  }

  readonly #onData = (piece: Buffer): void => {
    this.#pieces.push(piece);
    this.#buffered += piece.length;
    if (this.#buffered < this.#needed) return;
    this.#stream.pause();
    this.#wake?.();
  };

  readonly #onEnd = (): void => this.#onError();

  readonly #onError = (cause?: unknown): void => {
    this.#over ??= new OperationalError("nbd.unreachable", "the peer ended the connection", { cause });
    this.#wake?.();
  };
}
