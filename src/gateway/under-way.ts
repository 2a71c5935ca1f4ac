interface Command {
  before: Command | undefined;
  after: Command | undefined;
  ended: (() => void)[] | undefined;
}

/** Commands that the cloud may be working on, by operation: from being forwarded until the outcome is recorded. */
export class UnderWay {
  /** The newest of each operation; the others hang on it. An operation stays: there are no more of them than the cloud has. */
  readonly #newest = new Map<string, Command | undefined>();

  async track<T>(operation: string, work: () => Promise<T>): Promise<T> {
    const before = this.#newest.get(operation);
    const command: Command = { before, after: undefined, ended: undefined };
    if (before !== undefined) before.after = command;
    this.#newest.set(operation, command);
    try {
      return await work();
    } finally {
      this.#remove(operation, command);
    }
  }

  /** Resolves when those under way now have ended, well or not. */
  async settled(operation: string): Promise<void> {
    const ends: Promise<void>[] = [];
    for (let one = this.#newest.get(operation); one !== undefined; one = one.before) {
      const { promise, resolve } = Promise.withResolvers<void>();
      (one.ended ??= []).push(resolve);
      ends.push(promise);
    }
    await Promise.all(ends);
  }

  #remove(operation: string, command: Command): void {
    const { before, after } = command;
    if (after === undefined) this.#newest.set(operation, before);
    else after.before = before;
    if (before !== undefined) before.after = after;
    command.before = undefined;
    command.after = undefined;
    for (const tell of command.ended ?? []) tell();
  }
}
