/**
 * One create at a time for each token, in this process. OpenStack has no idempotency tokens: a create is found by looking,
 * and a look while the first request is still under way would find nothing. So a second one waits until the first has its answer
 * from the cloud, also when the first one's caller has given up.
 */
import { abandonable } from "./http-client.ts";

export class TokenGate {
  readonly #last = new Map<string, Promise<void>>();

  /**
   * `work` gets whether an earlier one with this token went before it. `settled` ends when nothing of `work` is under
   * way at the cloud any more.
   */
  async run<T>(
    token: string,
    signal: AbortSignal,
    work: (repeated: boolean) => { readonly result: Promise<T>; readonly settled: () => Promise<void> },
  ): Promise<T> {
    const before = this.#last.get(token);
    const { promise: mine, resolve: open } = Promise.withResolvers<void>();
    // A waiter that gives up must not let the next one pass the first.
    const place = before === undefined ? mine : Promise.all([before, mine]).then(() => undefined);
    this.#last.set(token, place);
    const leave = (): void => {
      open();
      void place.then(() => {
        if (this.#last.get(token) === place) this.#last.delete(token);
      });
    };
    try {
      if (before !== undefined) await abandonable(before, signal, false);
    } catch (error) {
      leave();
      throw error;
    }
    const { result, settled } = work(before !== undefined);
    void result.then(settled, settled).then(leave, leave);
    return result;
  }
}
