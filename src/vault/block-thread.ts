// The entry of a worker thread: carries out `BlockWork` for messages. Nothing is decided here.
import { parentPort, workerData } from "node:worker_threads";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { BlockWork } from "./block-work.ts";
import type { ThreadAnswer, ThreadMessage } from "./block-pool.ts";
import type { BlobKeys } from "./vault-keys.ts";

const port = parentPort;
invariant(port !== null, "this file is the entry of a thread");

const { content, packs } = workerData as Partial<BlobKeys>;
invariant(content !== undefined && packs !== undefined, "a thread is begun with its keys");

const answer = (message: ThreadAnswer, transfer: ArrayBuffer[] = []): void =>
  port.postMessage(message, transfer);
const work = new BlockWork({ content, packs }, (pack) =>
  answer({ type: "pack", pack }, [pack.buffer.buffer]),
);

port.on("message", (message: ThreadMessage) => {
  if (message.type === "recycle") {
    work.recycle(message.buffer);
    return;
  }
  const task = message.task;
  try {
    if (message.type === "blocks") {
      const result = work.blocks(message);
      answer({ type: "done", task, result }, [result.buffer]);
    } else if (message.type === "patches") {
      answer({ type: "done", task, result: work.patches(message) });
    } else if (message.type === "restore") {
      const result = work.restore(message);
      answer(
        { type: "done", task, result },
        result.map((bytes) => bytes.buffer),
      );
    } else {
      if (message.type === "start") work.start(message.session);
      if (message.type === "table") work.useTable(message.table);
      if (message.type === "finish") work.finishPack();
      if (message.type === "end") work.end();
      answer({ type: "done", task, result: undefined });
    }
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const code = error instanceof OperationalError ? error.code : undefined;
    const system = (error as NodeJS.ErrnoException).code;
    answer({ type: "failed", task, code, system, message: text });
  }
});
