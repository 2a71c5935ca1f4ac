// The thread that brings the database up to the redo log: each message names the part of the log that is next.
import { closeSync, openSync, readSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import { type ErrorCode, OperationalError, type Outcome } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { openWriter } from "./open-writer.ts";
import { decodePart, redoCall, redoPathOf } from "./redo-log.ts";
import { BatchFailed, sqliteBatch } from "./sqlite-batch.ts";
import { cannotFollow, storeError } from "./sqlite-errors.ts";

export interface FollowOptions {
  readonly path: string;
  readonly maxPages: number | undefined;
  readonly checkpointPages: number;
}

/** Bytes of the redo log, whole records. From the start of the file on, its statements are numbered anew. */
export interface FollowRequest {
  readonly from: number;
  readonly until: number;
}

/** An `OperationalError`'s parts, since a message carries no classes. */
export interface FollowFailure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly outcome: Outcome;
  readonly detail: string | undefined;
}

export type FollowReply = { readonly until: number } | { readonly failed: FollowFailure };

const { path, ...options } = workerData as FollowOptions;
const port = parentPort;
invariant(port !== null, "this file is a thread's");
const database = openWriter(path, options);
// What is in the redo log is durable there.
database.exec("pragma synchronous = normal");
const run = sqliteBatch(database, path);
const log = openSync(redoPathOf(path), "r");
let texts: string[] = [];

function follow({ from, until }: FollowRequest): void {
  const bytes = Buffer.allocUnsafe(until - from);
  for (let done = 0; done < bytes.length;) {
    const read = readSync(log, bytes, done, bytes.length - done, from + done);
    invariant(read > 0, "the redo log has its full length");
    done += read;
  }
  const known = from === 0 ? [] : [...texts];
  const [refused] = run([redoCall(decodePart(bytes, known))]);
  if (refused !== undefined) throw new BatchFailed(cannotFollow(refused.error));
  texts = known;
}

function failure(error: unknown): FollowFailure {
  const reason = storeError(error instanceof BatchFailed ? error.error : error, path);
  const { code, message, outcome, detail } =
    reason instanceof OperationalError ? reason : cannotFollow(reason);
  return { code, message, outcome, detail };
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
port.postMessage("open");
port.on("message", (request: FollowRequest | "close") => {
  if (request === "close") {
    database.close();
    closeSync(log);
    port.close();
    return;
  }
  let reply: FollowReply;
  try {
    follow(request);
    reply = { until: request.until };
  } catch (error) {
    reply = { failed: failure(error) };
  }
  port.postMessage(reply);
});
