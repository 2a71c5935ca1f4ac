import { Worker } from "node:worker_threads";
import { OperationalError, type ErrorCode } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import {
  BlockWork,
  type BlocksTask,
  type FinishedPack,
  type PatchesResult,
  type PatchesTask,
  type RestoreTask,
  type SessionStart,
} from "./block-work.ts";
import type { BlobKeys } from "./vault-keys.ts";

export type ThreadMessage =
  | ({ readonly type: "blocks"; readonly task: number } & BlocksTask)
  | ({ readonly type: "patches"; readonly task: number } & PatchesTask)
  | ({ readonly type: "restore"; readonly task: number } & RestoreTask)
  | { readonly type: "start"; readonly task: number; readonly session: SessionStart }
  | { readonly type: "table"; readonly task: number; readonly table: SharedArrayBuffer }
  | { readonly type: "finish"; readonly task: number }
  | { readonly type: "end"; readonly task: number }
  | { readonly type: "recycle"; readonly buffer: Uint8Array<ArrayBuffer> };

export type ThreadAnswer =
  | { readonly type: "done"; readonly task: number; readonly result: unknown }
  | {
      readonly type: "failed";
      readonly task: number;
      readonly code: ErrorCode | undefined;
      readonly system: string | undefined;
      readonly message: string;
    }
  | { readonly type: "pack"; readonly pack: FinishedPack };

interface Thread {
  post(message: ThreadMessage, transfer: readonly ArrayBuffer[]): void;
  close(): Promise<void>;
  /** Tasks sent and not yet answered. */
  load: number;
}

/** More would only wait, with their bytes in memory. */
const TASKS_A_THREAD = 2;

/**
 * The threads that hash, compress and encrypt. With no threads the work is done in place, which is simpler to follow in a test
 * and cheaper for a small point.
 */
export class BlockPool {
  readonly #threads: Thread[] = [];
  readonly #waiting = new Map<number, PromiseWithResolvers<unknown>>();
  readonly #idle: (() => void)[] = [];
  #onPack: ((pack: FinishedPack, recycle: () => void) => void) | undefined;
  #next = 1;
  #broken: Error | undefined;

  constructor(keys: BlobKeys, threads: number) {
    if (threads === 0) this.#threads.push(this.#inPlace(keys));
    for (let n = 0; n < threads; n += 1) this.#threads.push(this.#thread(keys));
  }

  /** A thread has ended by itself, or the pool was closed: no work is done here any more. */
  get isBroken(): boolean {
    return this.#broken !== undefined;
  }

  /** Begins a session on every thread. `onPack` gets each finished pack, and calls back when its bytes are needed no more. */
  async start(
    session: SessionStart,
    onPack: (pack: FinishedPack, recycle: () => void) => void,
  ): Promise<void> {
    this.#onPack = onPack;
    await this.#toAll((task) => ({ type: "start", task, session }));
  }

  /** After the table was replaced by a larger one. */
  async useTable(table: SharedArrayBuffer): Promise<void> {
    await this.#toAll((task) => ({ type: "table", task, table }));
  }

  /** Has every thread close its pack. */
  async finish(): Promise<void> {
    await this.#toAll((task) => ({ type: "finish", task }));
  }

  async end(): Promise<void> {
    await this.#toAll((task) => ({ type: "end", task }));
    this.#onPack = undefined;
  }

  /** `bytes` is moved to the thread: do not use it afterwards. Resolves to what `BlockWork.blocks` gives. */
  async blocks(task: BlocksTask): Promise<Uint8Array> {
    const transfer = task.bytes === undefined ? [] : [task.bytes.buffer as ArrayBuffer];
    return (await this.#run((number) => ({ type: "blocks", task: number, ...task }), transfer)) as Uint8Array;
  }

  async patches(task: PatchesTask): Promise<PatchesResult> {
    const transfer = task.bytes === undefined ? [] : [task.bytes.buffer as ArrayBuffer];
    return (await this.#run(
      (number) => ({ type: "patches", task: number, ...task }),
      transfer,
    )) as PatchesResult;
  }

  /** `transfer` are the buffers that hold the stored bytes, moved to the thread. */
  async restore(task: RestoreTask, transfer: readonly ArrayBuffer[]): Promise<Uint8Array[]> {
    return (await this.#run(
      (number) => ({ type: "restore", task: number, ...task }),
      transfer,
    )) as Uint8Array[];
  }

  async close(): Promise<void> {
    this.#broken ??= new OperationalError("aborted", "the vault was closed");
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  async #run(message: (task: number) => ThreadMessage, transfer: readonly ArrayBuffer[]): Promise<unknown> {
    for (;;) {
      if (this.#broken !== undefined) throw this.#broken;
      const thread = this.#threads.reduce((least, one) => (one.load < least.load ? one : least));
      if (thread.load < TASKS_A_THREAD) return this.#send(thread, message, transfer);
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
  }

  async #toAll(message: (task: number) => ThreadMessage): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    await Promise.all(this.#threads.map((thread) => this.#send(thread, message, [])));
  }

  async #send(
    thread: Thread,
    message: (task: number) => ThreadMessage,
    transfer: readonly ArrayBuffer[],
  ): Promise<unknown> {
    const task = this.#next;
    this.#next += 1;
    const answer = Promise.withResolvers<unknown>();
    this.#waiting.set(task, answer);
    thread.load += 1;
    try {
      thread.post(message(task), transfer);
      return await answer.promise;
    } finally {
      thread.load -= 1;
      this.#waiting.delete(task);
      this.#idle.shift()?.();
    }
  }

  #answered(answer: ThreadAnswer, recycle: (buffer: Uint8Array<ArrayBuffer>) => void): void {
    if (answer.type === "pack") {
      this.#onPack?.(answer.pack, () => recycle(answer.pack.buffer));
      return;
    }
    const waiting = this.#waiting.get(answer.task);
    if (answer.type === "done") waiting?.resolve(answer.result);
    else waiting?.reject(failure(answer));
  }

  #fail(error: Error): void {
    this.#broken ??= error;
    for (const waiting of this.#waiting.values()) waiting.reject(this.#broken);
    for (const idle of this.#idle.splice(0)) idle();
  }

  #thread(keys: BlobKeys): Thread {
    const worker = new Worker(new URL("./block-thread.ts", import.meta.url), {
      workerData: { content: keys.content, packs: keys.packs },
    });
    const recycle = (buffer: Uint8Array<ArrayBuffer>): void => {
      if (this.#broken === undefined) worker.postMessage({ type: "recycle", buffer }, [buffer.buffer]);
    };
    worker.on("message", (answer: ThreadAnswer) => this.#answered(answer, recycle));
    worker.on("error", (error) => this.#fail(error as Error));
    worker.on("exit", () => this.#fail(new Error("a thread of the vault ended")));
    return {
      load: 0,
      post(message, transfer) {
        worker.postMessage(message, [...transfer]);
      },
      async close() {
        await worker.terminate();
      },
    };
  }

  #inPlace(keys: BlobKeys): Thread {
    const work: BlockWork = new BlockWork(keys, (pack) =>
      this.#answered({ type: "pack", pack }, (buffer) => work.recycle(buffer)),
    );
    return {
      load: 0,
      post: (message) => {
        invariant(message.type !== "recycle", "buffers of work in place are given back directly");
        this.#waiting.get(message.task)?.resolve(perform(work, message));
      },
      async close() {
        work.end();
      },
    };
  }
}

function perform(work: BlockWork, message: Exclude<ThreadMessage, { type: "recycle" }>): unknown {
  switch (message.type) {
    case "blocks":
      return work.blocks(message);
    case "patches":
      return work.patches(message);
    case "restore":
      return work.restore(message);
    case "start":
      return work.start(message.session);
    case "table":
      return work.useTable(message.table);
    case "finish":
      return work.finishPack();
    case "end":
      return work.end();
  }
}

function failure({ code, system, message }: Extract<ThreadAnswer, { type: "failed" }>): OperationalError {
  if (code !== undefined) return new OperationalError(code, message);
  if (system === "ENOSPC" || system === "EDQUOT")
    return new OperationalError("store.full", `the disk is full: ${message}`, { outcome: "unknown" });
  if (system !== undefined) return new OperationalError("disk.failing", `a disk fails: ${message}`);
  return new OperationalError("internal", `a thread of the vault failed: ${message}`);
}
