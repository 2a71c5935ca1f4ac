/** Parts of passes that the vault has not acknowledged: a bounded folder, in order. */
import { mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "#kernel/durable-file.ts";
import { maxPartBytes } from "#wire/agent/pass-part.ts";

const shape = /^\d{15}\.part$/u;
const fileOf = (number: number): string => `${String(number).padStart(15, "0")}.part`;

interface Waiter {
  readonly isMet: () => boolean;
  readonly resolve: () => void;
}

export class Spool {
  readonly #folder: string;
  readonly limitBytes: number;
  /** Number -> bytes; in order. */
  readonly #parts = new Map<number, number>();
  #waiters: Waiter[] = [];

  private constructor(folder: string, limitBytes: number) {
    this.#folder = folder;
    this.limitBytes = limitBytes;
  }

  static async open(folder: string, limitBytes: number): Promise<Spool> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const spool = new Spool(folder, limitBytes);
    for (const name of (await readdir(folder)).toSorted()) {
      const path = join(folder, name);
      if (shape.test(name)) spool.#parts.set(Number.parseInt(name, 10), (await stat(path)).size);
      // Of a part that was not finished when the process died.
      else if (name.endsWith(".new")) await rm(path, { force: true });
    }
    return spool;
  }

  get numbers(): readonly number[] {
    return [...this.#parts.keys()];
  }

  /** The next to be sent. */
  get oldest(): number | undefined {
    return this.#parts.keys().next().value;
  }

  get bytes(): number {
    let sum = 0;
    for (const size of this.#parts.values()) sum += size;
    return sum;
  }

  /** Whether the largest part there can be would find room. */
  get hasRoom(): boolean {
    return this.bytes + maxPartBytes <= this.limitBytes;
  }

  /** Resolves when there is room. */
  room(signal: AbortSignal): Promise<void> {
    return this.#until(() => this.hasRoom, signal);
  }

  /** Resolves when it is empty, or when `isLongAway`: then what is in it may lie there for hours. Who knows that it is calls `look`. */
  drained(isLongAway: () => boolean, signal: AbortSignal): Promise<void> {
    return this.#until(() => this.#parts.size === 0 || isLongAway(), signal);
  }

  /** What somebody waits for may be so now. */
  look(): void {
    this.#wake();
  }

  /** Resolves when there is something to send. */
  filled(signal: AbortSignal): Promise<void> {
    return this.#until(() => this.#parts.size > 0, signal);
  }

  /** Durable when it returns. Errors: `store.full`, `store.failing`. */
  async add(number: number, part: Buffer): Promise<void> {
    await replaceFile(join(this.#folder, fileOf(number)), part);
    this.#parts.set(number, part.length);
    this.#wake();
  }

  read(number: number): Promise<Buffer> {
    return readFile(join(this.#folder, fileOf(number)));
  }

  /** Parts up to this number have arrived. */
  async drop(through: number): Promise<void> {
    for (const number of this.numbers) {
      if (number > through) break;
      await rm(join(this.#folder, fileOf(number)), { force: true });
      this.#parts.delete(number);
    }
    this.#wake();
  }

  #until(isMet: () => boolean, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error);
      if (isMet()) return resolve();
      const waiter: Waiter = {
        isMet,
        resolve: () => {
          signal.removeEventListener("abort", onAbort);
          resolve();
        },
      };
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((one) => one !== waiter);
        reject(signal.reason as Error);
      };
      signal.addEventListener("abort", onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  #wake(): void {
    const met = this.#waiters.filter(({ isMet }) => isMet());
    this.#waiters = this.#waiters.filter((waiter) => !met.includes(waiter));
    for (const { resolve } of met) resolve();
  }
}
