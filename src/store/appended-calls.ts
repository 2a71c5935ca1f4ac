/**
 * Calls that are durable in the redo log and not yet in the database. A thread brings them over, read from the log: when there are
 * many, when the first has waited for a while, before any other commit, and before whoever wants to read them.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Statement } from "./contract.ts";
import type { FollowOptions, FollowReply, FollowRequest } from "./follow-worker.ts";
import type { RedoLog } from "./redo-log.ts";
import { isSystemError } from "./sqlite-errors.ts";
import { flushFailed, type LogFlush } from "./wal-flush.ts";

const most = 256;
/** How far the database, for other processes that read it, may be behind. */
const waitMs = 50;
/** After a failure: what keeps the database from following may pass by itself. */
const retryMs = 1_000;

export interface AppendedCallsOptions {
  readonly redo: RedoLog;
  readonly flush: LogFlush["flush"];
  /** Told of each time that the database has followed, with the number of calls that it got. */
  readonly onShown: (calls: number) => void;
  readonly log: Log;
}

export class AppendedCalls {
  readonly #options: AppendedCallsOptions;
  readonly #thread: Worker;
  /** Bytes of the redo log: what its callers were told of, and what the database has. */
  #landed = 0;
  #shown = 0;
  #calls = 0;
  #timer: NodeJS.Timeout | undefined;
  #following: Promise<void> | undefined;
  /** The database could not follow. Nothing more is appended until it can. */
  #stuck: OperationalError | undefined;
  #gate: Promise<void> | undefined;
  #ended = false;
  #closed = false;

  private constructor(thread: Worker, options: AppendedCallsOptions) {
    this.#thread = thread;
    this.#options = options;
    thread.on("error", (error) => {
      options.log.error({ error }, "the thread that brings commands into the database has failed");
    });
    thread.on("exit", () => (this.#ended = true));
    thread.unref();
  }

  static async open(database: FollowOptions, options: AppendedCallsOptions): Promise<AppendedCalls> {
    const thread = new Worker(new URL("./follow-worker.ts", import.meta.url), {
      workerData: database,
      execArgv: [],
    });
    await once(thread, "message");
    return new AppendedCalls(thread, options);
  }

  /** Whether something is durable that the database has not got. */
  get behind(): boolean {
    return this.#shown < this.#landed;
  }

  /**
   * Writes one batch. False if it cannot be appended now: nothing was written then. Throws `store.failing`, outcome unknown, if the system
   * fails.
   */
  write(calls: readonly (readonly Statement[])[]): boolean {
    if (this.#stuck !== undefined) return false;
    try {
      return this.#options.redo.write(calls);
    } catch (error) {
      throw isSystemError(error) ? flushFailed(this.#options.redo.path, error) : error;
    }
  }

  /** For what was written. */
  flush(): Promise<void> | void {
    return this.#options.flush();
  }

  /** To be told when the batch that was written last is durable. */
  landed(calls: number): void {
    this.#landed = this.#options.redo.end;
    this.#calls += calls;
    this.#schedule();
  }

  /** Resolves when the database has everything that is durable now. Errors: `store.full`, `store.failing`; nothing is lost then. */
  async catchUp(): Promise<void> {
    for (const until = this.#landed; this.behind && this.#shown < until;) {
      this.#follow();
      await this.#following;
      if (this.#stuck !== undefined) throw this.#stuck;
    }
  }

  /** Once the database has everything, durably. */
  startOver(): void {
    this.#options.redo.startOver();
    this.#landed = 0;
    this.#shown = 0;
  }

  /** Keeps the thread off the database until the result is disposed of. One at a time. */
  async pause(): Promise<Disposable> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#following;
    this.#gate = promise;
    await before;
    return {
      [Symbol.dispose]: () => {
        this.#gate = undefined;
        resolve();
      },
    };
  }

  /** What the database does not get now it gets from whoever opens it next. */
  async close(): Promise<void> {
    try {
      await this.catchUp();
    } catch (error) {
      this.#options.log.error({ error }, "the database does not have all that is in the redo log yet");
    }
    this.#closed = true;
    clearTimeout(this.#timer);
    if (!this.#ended) {
      const gone = once(this.#thread, "exit");
      this.#thread.ref();
      this.#post("close");
      await gone;
    }
    this.#options.redo.close();
  }

  #schedule(): void {
    if (this.#closed) return;
    if (this.#calls >= most && this.#stuck === undefined) {
      this.#follow();
      return;
    }
    const wait = this.#stuck === undefined ? waitMs : retryMs;
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#follow();
    }, wait).unref();
  }

  #follow(): void {
    if (this.#following !== undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#following = this.#bringOver().finally(() => {
      this.#following = undefined;
      if (this.behind) this.#schedule();
    });
  }

  async #bringOver(): Promise<void> {
    await this.#gate;
    const { log, onShown } = this.#options;
    const calls = this.#calls;
    const reply = await this.#ask({ from: this.#shown, until: this.#landed });
    if ("failed" in reply) {
      const { code, message, outcome, detail } = reply.failed;
      const error = new OperationalError(code, message, {
        outcome,
        ...(detail === undefined ? {} : { detail }),
      });
      if (message !== this.#stuck?.message) {
        log.error({ error }, "the database cannot take what is in the redo log");
      }
      this.#stuck = error;
      return;
    }
    if (this.#stuck !== undefined) log.info({}, "the database takes what is in the redo log again");
    this.#stuck = undefined;
    this.#shown = reply.until;
    this.#calls -= calls;
    onShown(calls);
  }

  async #ask(part: FollowRequest): Promise<FollowReply> {
    if (this.#ended) return { failed: threadEnded() };
    const { promise, resolve } = Promise.withResolvers<FollowReply>();
    const end = (): void => resolve({ failed: threadEnded() });
    this.#thread.once("message", resolve).once("exit", end);
    this.#post(part);
    const reply = await promise;
    this.#thread.off("message", resolve).off("exit", end);
    return reply;
  }

  #post(request: FollowRequest | "close"): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#thread.postMessage(request);
  }
}

function threadEnded(): OperationalError {
  return new OperationalError(
    "store.failing",
    "the thread that brings commands into the database has ended: look at the log, then restart understudy",
  );
}
