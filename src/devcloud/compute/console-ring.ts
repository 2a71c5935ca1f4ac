/** The last bytes of what a server printed. */
export class ConsoleRing {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #size = 0;

  /** `limit` in bytes. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  write(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    // Twice the limit, so that the copy is rare.
    if (this.#size > 2 * this.#limit) this.#chunks = [this.read()];
    if (this.#chunks.length === 1) this.#size = this.#chunks[0]?.length ?? 0;
  }

  /** A line of the cloud's own. */
  line(text: string): void {
    this.write(Buffer.from(`[devcloud] ${text}\n`));
  }

  read(): Buffer {
    const all = Buffer.concat(this.#chunks);
    return Buffer.from(all.subarray(Math.max(0, all.length - this.#limit)));
  }
}
