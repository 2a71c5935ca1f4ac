/** One at a time for each name, in the order of asking. */
export class Turns {
  readonly #last = new Map<string, Promise<void>>();

  async take(name: string): Promise<Disposable> {
    const before = this.#last.get(name);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last.set(name, promise);
    await before;
    return {
      [Symbol.dispose]: () => {
        if (this.#last.get(name) === promise) this.#last.delete(name);
        resolve();
      },
    };
  }
}
