// The thread that commits: it owns the writing connection, runs one batch at a time, flushes the log, and says so. It sleeps on
// a word of shared memory instead of in an event loop, which saves a wake-up for each batch.
import { closeSync, fdatasyncSync, openSync } from "node:fs";
import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import {
  BatchDecoder,
  type BatchMessage,
  type BatchReply,
  encodeResults,
  plainError,
} from "./commit-wire.ts";
import { openWriter } from "./open-writer.ts";
import { BatchFailed, sqliteBatch } from "./sqlite-batch.ts";
import { storeError } from "./sqlite-errors.ts";
import { flushFailed } from "./wal-flush.ts";

export interface CommitWorkerData {
  readonly path: string;
  readonly maxPages: number | undefined;
  readonly checkpointPages: number;
  readonly port: MessagePort;
  /** One 32-bit word: how many messages were sent. */
  readonly sent: Int32Array<SharedArrayBuffer>;
}

/** A batch, or the end. */
export type CommitRequest = BatchMessage | "close";

const { path, maxPages, checkpointPages, port, sent } = workerData as CommitWorkerData;

function serve(): void {
  const writer = openWriter(path, { maxPages, checkpointPages });
  const log = openSync(`${path}-wal`, "r+");
  // Every flush is made below, before a reply.
  writer.exec("pragma synchronous = normal");
  const run = sqliteBatch(writer, path);
  const decoder = new BatchDecoder();
  let broken: BatchReply | undefined;

  const commit = (message: BatchMessage): BatchReply => {
    const calls = decoder.decode(message);
    if (broken !== undefined) return broken;
    let reply: BatchReply;
    try {
      reply = encodeResults(run(calls));
    } catch (error) {
      const reason = error instanceof BatchFailed ? error.error : error;
      return { kind: "failed", error: plainError(reason), lasting: false };
    }
    try {
      fdatasyncSync(log);
    } catch (error) {
      // The system may have dropped the writes: a later flush would prove nothing.
      broken = { kind: "failed", error: plainError(flushFailed(path, error as Error)), lasting: true };
      return broken;
    }
    return reply;
  };

  port.postMessage("open");
  for (let seen = 0; ;) {
    Atomics.wait(sent, 0, seen);
    seen = Atomics.load(sent, 0);
    for (;;) {
      const received: { readonly message: CommitRequest } | undefined = receiveMessageOnPort(port);
      if (received === undefined) break;
      if (received.message === "close") {
        writer.close();
        closeSync(log);
        port.postMessage("closed");
        return;
      }
      port.postMessage(commit(received.message));
    }
  }
}

try {
  serve();
} catch (error) {
  port.postMessage({ kind: "failed", error: plainError(storeError(error, path)), lasting: true });
}
port.close();
