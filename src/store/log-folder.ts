/**
 * Keeps the write-ahead log short without any commit paying for it. SQLite folds the log into the database inside some caller's
 * commit; here a thread of its own does, while commits go on. It cannot catch up with a log that grows meanwhile, and
 * only a log that is folded whole starts over. So when the log is long, and a pass has left little of it, commits wait for one last,
 * short pass. What a pass does not fold (a reader holds an old snapshot, the disk is full) stays in the log: nothing
 * depends on folding but the log's length.
 */
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import type { Log } from "#kernel/log.ts";
import type { FoldPass, FoldReply } from "./fold-worker.ts";

export interface LogFolderOptions {
  readonly path: string;
  /** The length, in pages, at which the log should start over. */
  readonly pages: number;
  /** Lets the batch under way end, and keeps the next ones back until the result is disposed of. */
  readonly pause: () => Promise<Disposable>;
  readonly log: Log;
}

/** Batches between two passes: some 10 MiB of log from single callers, less where many share a batch. */
const batchesPerPass = 512;
/** What commits may be made to wait for: about a millisecond. */
const shortPass = 512;

/** For a database that stands and is in WAL mode. */
export async function openLogFolder(options: LogFolderOptions): Promise<LogFolder> {
  const worker = new Worker(new URL("./fold-worker.ts", import.meta.url), {
    workerData: options.path,
    execArgv: [],
  });
  await once(worker, "message");
  return new LogFolder(worker, options);
}

export class LogFolder {
  readonly #options: LogFolderOptions;
  readonly #worker: Worker;
  #batches = 0;
  #folding: Promise<void> | undefined;
  #ended = false;

  constructor(worker: Worker, options: LogFolderOptions) {
    this.#options = options;
    this.#worker = worker;
    this.#worker.on("error", (error) => {
      this.#ended = true;
      options.log.error(
        { path: options.path, error },
        "the store's log is no longer folded beside the commits",
      );
    });
    this.#worker.on("exit", () => {
      this.#ended = true;
    });
    this.#worker.unref();
  }

  /** To be told of each batch. */
  committed(): void {
    this.#batches += 1;
    if (this.#batches < batchesPerPass || this.#folding !== undefined || this.#ended) return;
    this.#batches = 0;
    this.#folding = this.#fold().finally(() => {
      this.#folding = undefined;
    });
  }

  /** Resolves when no pass is under way. */
  async idle(): Promise<void> {
    await this.#folding;
  }

  async close(): Promise<void> {
    await this.#folding;
    if (this.#ended) return;
    const gone = once(this.#worker, "exit");
    this.#worker.ref();
    this.#post("close");
    await gone;
  }

  async #fold(): Promise<void> {
    const { pages, pause, log, path } = this.#options;
    try {
      const pass = await this.#pass();
      if (pass === undefined || pass.frames < pages || pass.frames - pass.folded > shortPass) return;
      using _paused = await pause();
      await this.#pass();
    } catch (error) {
      log.warn({ path, error }, "the store's log could not be folded now; it grows until it can");
    }
  }

  /** Undefined: the thread is no more. */
  async #pass(): Promise<FoldPass | undefined> {
    if (this.#ended) return undefined;
    const { promise, resolve } = Promise.withResolvers<FoldReply | undefined>();
    const end = (): void => resolve(undefined);
    this.#worker.once("message", resolve).once("exit", end);
    this.#post("fold");
    const reply = await promise;
    this.#worker.off("exit", end);
    if (reply !== undefined && "failed" in reply) throw new Error(reply.failed);
    return reply;
  }

  #post(request: "fold" | "close"): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#worker.postMessage(request);
  }
}
