/** Our side of the thread that commits (`commit-worker.ts`). */
import { once } from "node:events";
import { MessageChannel, type MessagePort, Worker } from "node:worker_threads";
import { OperationalError } from "#kernel/errors.ts";
import type { Statement } from "./contract.ts";
import { BatchEncoder, type BatchReply, decodeReply, errorOf } from "./commit-wire.ts";
import type { CommitRequest, CommitWorkerData } from "./commit-worker.ts";
import { BatchFailed, type CallResult } from "./sqlite-batch.ts";

export interface CommitThread {
  /**
   * Commits a batch; it is on stable storage when the promise resolves. One at a time. Rejects with `BatchFailed` if nothing
   * of it is recorded.
   */
  run(calls: readonly (readonly Statement[])[]): Promise<readonly CallResult[]>;
  close(): Promise<void>;
}

/** For a database that stands and is in WAL mode. Errors: `store.*`. */
export async function openCommitThread(
  options: Pick<CommitWorkerData, "path" | "maxPages" | "checkpointPages">,
): Promise<CommitThread> {
  const { port1: port, port2 } = new MessageChannel();
  const sent = new Int32Array(new SharedArrayBuffer(4));
  const data: CommitWorkerData = { ...options, port: port2, sent };
  const worker = new Worker(new URL("./commit-worker.ts", import.meta.url), {
    workerData: data,
    transferList: [port2],
    // Flags of the process (a script of its own, a profiler's) are not for this thread.
    execArgv: [],
  });
  const thread = new RunningThread(worker, port, sent);
  await thread.opened();
  return thread;
}

class RunningThread implements CommitThread {
  readonly #worker: Worker;
  readonly #port: MessagePort;
  readonly #sent: Int32Array<SharedArrayBuffer>;
  readonly #encoder = new BatchEncoder();
  #waiting: ((reply: BatchReply | string) => void) | undefined;
  /** Why the thread is no more. */
  #ended: Error | undefined;

  constructor(worker: Worker, port: MessagePort, sent: Int32Array<SharedArrayBuffer>) {
    this.#worker = worker;
    this.#port = port;
    this.#sent = sent;
    port.on("message", (reply: BatchReply | string) => this.#take(reply));
    worker.on("error", (error: Error) => this.#end(error));
    worker.on("exit", () => this.#end(new Error("the committing thread has ended")));
    // An open store alone keeps no process alive; a commit under way does.
    worker.unref();
  }

  async opened(): Promise<void> {
    const reply = await this.#reply();
    this.#port.unref();
    if (typeof reply !== "string") throw failureOf(reply);
  }

  async run(calls: readonly (readonly Statement[])[]): Promise<readonly CallResult[]> {
    if (this.#ended !== undefined) throw new BatchFailed(lost(this.#ended), true);
    const reply = this.#reply();
    this.#send(this.#encoder.encode(calls));
    this.#port.ref();
    const got = await reply;
    this.#port.unref();
    return decodeReply(got as BatchReply, calls);
  }

  async close(): Promise<void> {
    if (this.#ended !== undefined) return;
    const gone = once(this.#worker, "exit");
    this.#worker.ref();
    this.#send("close");
    await gone;
  }

  #send(request: CommitRequest): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a port between threads, not a window
    this.#port.postMessage(request);
    Atomics.add(this.#sent, 0, 1);
    Atomics.notify(this.#sent, 0);
  }

  #reply(): Promise<BatchReply | string> {
    return new Promise((resolve) => {
      this.#waiting = resolve;
    });
  }

  #take(reply: BatchReply | string): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.(reply);
  }

  #end(error: Error): void {
    this.#ended ??= error;
    const { message, stack } = lost(error);
    this.#take({
      kind: "failed",
      lasting: true,
      error: { code: "store.failing", outcome: "unknown", message, detail: error.message, stack },
    });
  }
}

function failureOf(reply: BatchReply): Error {
  return reply.kind === "failed"
    ? errorOf(reply.error)
    : new Error("the committing thread answered out of turn");
}

function lost(cause: Error): OperationalError {
  return new OperationalError("store.failing", "the store's thread has ended: restart understudy", {
    outcome: "unknown",
    detail: cause.message,
    cause,
  });
}
