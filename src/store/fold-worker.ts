// The thread that folds the write-ahead log into the database, beside the commits: each message asks for one pass.
import { DatabaseSync } from "node:sqlite";
import { parentPort, workerData } from "node:worker_threads";
import { invariant } from "#kernel/invariant.ts";
import { busyTimeoutMs } from "./open-writer.ts";

/** Frames in the log, and how many of them are in the database too (https://www.sqlite.org/pragma.html#pragma_wal_checkpoint). */
export interface FoldPass {
  readonly frames: number;
  readonly folded: number;
}

/** `failed`: SQLite's own words. */
export type FoldReply = FoldPass | { readonly failed: string };

const path = workerData as string;
const port = parentPort;
invariant(port !== null, "this file is a thread's");
const database = new DatabaseSync(path, { timeout: busyTimeoutMs });
// It flushes the log before it folds, and the database after: what is folded is durable in both.
database.exec("pragma wal_autocheckpoint = 0; pragma synchronous = normal");
// Passive: it waits for nobody, and nobody for it.
const fold = database.prepare("pragma wal_checkpoint(passive)");

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
port.postMessage("open");
port.on("message", (request: "fold" | "close") => {
  if (request === "close") {
    database.close();
    port.close();
    return;
  }
  let reply: FoldReply;
  try {
    const row = fold.get();
    reply = { frames: Number(row?.["log"]), folded: Number(row?.["checkpointed"]) };
  } catch (error) {
    reply = { failed: String(error) };
  }
  port.postMessage(reply);
});
