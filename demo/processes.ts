// The demo's cast are processes of their own, so that killing one is the real thing.
import { spawn, type ChildProcess } from "node:child_process";
import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";

const program = join(import.meta.dirname, "..", "bin", "understudy");

export interface Actor {
  readonly name: string;
  /** The line of JSON that it printed when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>;
  /** SIGKILL, at once, as a power cut would. */
  kill(): Promise<void>;
  /** SIGTERM, and wait for an orderly end. */
  stop(): Promise<void>;
}

const running = new Set<ChildProcess>();

/** The last resort when the demo itself ends early: nothing of it stays behind. */
export function killAll(): void {
  for (const child of running) child.kill("SIGKILL");
}

/** Starts `understudy ARGS` and waits for its first line of JSON; its own words go to a log file in `folder`. */
export async function startActor(
  name: string,
  args: readonly string[],
  folder: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<Actor> {
  const child = spawn(program, args, {
    cwd: folder,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...environment },
  });
  running.add(child);
  const log = createWriteStream(join(folder, `${name}.log`), { flags: "a" });
  const lastWords: string[] = [];
  child.stderr.pipe(log, { end: false });
  child.stderr.on("data", (chunk: Buffer) => {
    lastWords.push(chunk.toString("utf8"));
    if (lastWords.length > 20) lastWords.shift();
  });
  const exited = new Promise<number | null>((resolve) => {
    child.once("exit", (code) => {
      running.delete(child);
      resolve(code);
    });
  });
  const lines = createInterface({ input: child.stdout });
  const ready = await Promise.race([
    new Promise<string>((resolve) => {
      lines.once("line", resolve);
    }),
    exited.then((code) => {
      throw new Error(`${name} ended with code ${code} before it was ready:\n${lastWords.join("")}`);
    }),
  ]);
  lines.on("line", (line) => log.write(`${line}\n`));
  return {
    name,
    ready: JSON.parse(ready) as Readonly<Record<string, unknown>>,
    kill: async () => {
      child.kill("SIGKILL");
      await exited;
    },
    stop: async () => {
      child.kill("SIGTERM");
      await exited;
    },
  };
}
