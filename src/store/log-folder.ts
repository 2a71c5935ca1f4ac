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

/**
 * A pass begins when about this part of the length has been written since the last one. Each ends with a flush of the database, which
 * commits' own flushes may have to wait for on the same disk: few passes.
 */
const passAfter = 0.5;
/** From this part of the length on the log starts over: the second pass is the one, also where what was written is counted wrong. */
const startOverAt = 0.75;
/** What a batch adds to the log beside a page for each of its calls. SQLite tells the log's length only when it folds. */
const pagesPerBatch = 3;
/** What appended calls add that are brought over together: records of the journal lie side by side (measured: 6 pages for 8 calls, 15 for 250). */
const pagesPerFollow = 6;
const callsPerPage = 25;
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
  /** Written since the last pass, about. */
  #pages = 0;
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

  /** To be told of each batch, and of how many calls. */
  committed(calls: number): void {
    this.#wrote(pagesPerBatch + calls);
  }

  /** To be told of each time that appended calls were brought over, and of how many. */
  followed(calls: number): void {
    this.#wrote(pagesPerFollow + calls / callsPerPage);
  }

  #wrote(pages: number): void {
    this.#pages += pages;
    const enough = this.#pages >= this.#options.pages * passAfter;
    if (!enough || this.#folding !== undefined || this.#ended) return;
    this.#pages = 0;
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
      const long = pass !== undefined && pass.frames >= pages * startOverAt;
      if (!long || pass.frames - pass.folded > shortPass) return;
      // What was written during the first one, so that little is left for the one that commits wait for.
      await this.#pass();
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
