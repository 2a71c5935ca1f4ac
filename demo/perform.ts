/** A play from its first line to its exit code: a folder of its own, what it found as JSON, and nothing left running. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killAll } from "./processes.ts";
import { say } from "./timeline.ts";

export interface Show<F> {
  /** Short where Unix sockets are to stand in it. */
  readonly folderName: string;
  readonly play: (folder: string) => Promise<F>;
  readonly isWhole: (figures: F) => boolean;
  /** What is said of a whole one. */
  readonly whole: string;
  /** Ends what outlives its starter. */
  readonly leave?: () => void;
}

export interface Audience {
  /** A last line with the figures, on standard output. */
  readonly json: boolean;
  /** Logs and data stay. */
  readonly keep: boolean;
}

/** Exits with 0 only for a whole one. */
export async function perform<F>(show: Show<F>, { json, keep }: Audience): Promise<never> {
  const folder = mkdtempSync(join(tmpdir(), show.folderName));
  const leave = (): void => {
    killAll();
    show.leave?.();
  };
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.once(signal, () => {
      leave();
      rmSync(folder, { recursive: true, force: true });
      process.exit(code);
    });
  }
  let exitCode = 1;
  try {
    const figures = await show.play(folder);
    const whole = show.isWhole(figures);
    say(whole ? show.whole : "NOT whole: see above");
    if (json) process.stdout.write(`${JSON.stringify(figures)}\n`);
    exitCode = whole ? 0 : 1;
  } catch (error) {
    say(`the demo broke off: ${error instanceof Error ? error.message : String(error)}`);
    say(`everyone's logs are in ${folder}`);
  } finally {
    leave();
    if (exitCode === 0 && !keep) rmSync(folder, { recursive: true, force: true });
    else if (keep) say(`logs and data are in ${folder}`);
  }
  process.exit(exitCode);
}
