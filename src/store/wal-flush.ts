/**
 * The disk flush of SQLite's write-ahead log, run by us instead of by SQLite.
 *
 * With `synchronous = full` SQLite flushes the log inside each commit, and with it stops the event loop for as long as the
 * disk takes. With `synchronous = normal` it writes the same frames and leaves this one flush out (it still flushes around a
 * checkpoint and when the log starts over, https://www.sqlite.org/pragma.html#pragma_synchronous); it is then made here,
 * beside the event loop where the disk is slow, and nobody is told of a commit before it. What remains different: a reader may see a commit some
 * milliseconds before it is durable. Whatever anybody durably concludes from that lies behind it in the same log, so that
 * no crash can keep the conclusion and lose its cause.
 */
import { close, closeSync, fdatasync, fdatasyncSync, fsyncSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { FlushPace } from "./flush-pace.ts";

export interface LogFlush {
  /**
   * Brings all that was written before the call to stable storage: at once where that is quick
   * (`flush-pace.ts`), else when the promise resolves. Fails with `store.failing`, outcome `unknown`: the system may have dropped
   * the writes, so a later flush proves nothing.
   */
  readonly flush: () => Promise<void> | void;
  close(): Promise<void>;
}

/** For an open writer of `path` in WAL mode: the log exists, and stays the same file until the last connection closes. */
export function openWalFlush(path: string, clock: Clock): LogFlush {
  const log = openSync(`${path}-wal`, "r+");
  try {
    fsyncSync(log);
    flushDirectory(dirname(path));
  } catch (error) {
    closeSync(log);
    throw error;
  }
  return { flush: flushOf(log, path, clock), close: () => promisify(close)(log) };
}

/** The flush of one open file; `path` is the one that errors name. */
export function flushOf(log: number, path: string, clock: Clock): LogFlush["flush"] {
  const pace = new FlushPace();
  const flushNow = (from: number): void => {
    try {
      fdatasyncSync(log);
    } catch (error) {
      throw flushFailed(path, error as Error);
    }
    const now = clock.monotonicMs();
    pace.took(now - from, now);
  };
  const flushBeside = (): Promise<void> =>
    new Promise((resolve, reject) => {
      fdatasync(log, (error) => (error === null ? resolve() : reject(flushFailed(path, error))));
    });
  return () => {
    const now = clock.monotonicMs();
    return pace.atOnce(now) ? flushNow(now) : flushBeside();
  };
}

export function flushDirectory(directory: string): void {
  const handle = openSync(directory, "r");
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

export function flushFailed(path: string, cause: Error): OperationalError {
  return new OperationalError(
    "store.failing",
    `the disk under ${path} fails: look at the system log, then restart understudy`,
    { outcome: "unknown", detail: cause.message, cause },
  );
}
