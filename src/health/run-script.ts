/** A user's own program as a judge: its exit code is the verdict. It gets what it needs to know by its environment, and no secret of ours. */
import { spawn } from "node:child_process";
import { dirname } from "node:path";

export interface ScriptRun {
  /** A program, by an absolute path. */
  readonly path: string;
  readonly variables: Readonly<Record<string, string>>;
  readonly limitMs: number;
}

export interface ScriptVerdict {
  /** Null: it said yes. */
  readonly problem: string | null;
  /** What it printed last, on both channels. */
  readonly output: string;
}

const outputBytes = 16_384;
const leftOpenMs = 1000;

/**
 * Runs it to its end, or to the limit, at which everything that it has started is ended. Never throws for what the program does;
 * rejects only with the signal's reason.
 */
export async function runScript(
  { path, variables, limitMs }: ScriptRun,
  signal: AbortSignal,
): Promise<ScriptVerdict> {
  signal.throwIfAborted();
  const { PATH = "/usr/bin:/bin", HOME = "/", LANG = "C.UTF-8" } = process.env;
  const child = spawn(path, [], {
    cwd: dirname(path),
    env: { PATH, HOME, LANG, ...variables },
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own: what it starts ends with it.
    detached: true,
  });
  let tail = Buffer.alloc(0);
  const keep = (bytes: Buffer): void => {
    tail = Buffer.concat([tail, bytes]).subarray(-outputBytes);
  };
  child.stdout.on("data", keep);
  child.stderr.on("data", keep);
  let late = false;
  const end = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
  };
  const timer = setTimeout(() => {
    late = true;
    end();
  }, limitMs);
  signal.addEventListener("abort", end, { once: true });
  const ended = Promise.withResolvers<string | null>();
  const closed = new Promise((resolve) => child.once("close", resolve));
  child.once("error", (error) => ended.resolve(`it can't be started: ${error.message}`));
  // `exit`, not `close`: what it left behind in the background may hold its channels open.
  child.once("exit", (code, by) => {
    end();
    if (late) ended.resolve(`it did not end within ${limitMs} ms`);
    else if (code === 0) ended.resolve(null);
    else ended.resolve(code === null ? `${by ?? "a signal"} ended it` : `it ended with ${code}`);
  });
  const problem = await ended.promise;
  clearTimeout(timer);
  signal.removeEventListener("abort", end);
  signal.throwIfAborted();
  // What it printed right before its end is still on its way; what has left its group may hold the channels open.
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, leftOpenMs).unref())]);
  child.stdout.destroy();
  child.stderr.destroy();
  return { problem, output: tail.toString("utf8") };
}
