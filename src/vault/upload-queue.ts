/** Carries out uploads side by side, up to a limit; the first failure is everyone's. */
export class UploadQueue {
  readonly #limit: number;
  readonly #room: (() => void)[] = [];
  readonly #idle: (() => void)[] = [];
  #running = 0;
  #failure: { readonly error: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Begins at once: the caller asks for room before it makes work. */
  add(upload: () => Promise<void>): void {
    this.#running += 1;
    const done = (): void => {
      this.#running -= 1;
      if (this.#running < this.#limit) this.#room.shift()?.();
      if (this.#running === 0) for (const idle of this.#idle.splice(0)) idle();
    };
    upload().then(done, (error: unknown) => {
      this.#failure ??= { error };
      done();
      for (const room of this.#room.splice(0)) room();
    });
  }

  /** Resolves when fewer than the limit are under way; throws what an upload threw. */
  async room(): Promise<void> {
    while (this.#running >= this.#limit && this.#failure === undefined)
      await new Promise<void>((resolve) => this.#room.push(resolve));
    this.throwFailure();
  }

  /** Resolves when nothing is under way any more; throws what an upload threw. */
  async settled(): Promise<void> {
    while (this.#running > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.throwFailure();
  }

  throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}
