/** A process named so that another one with the same number, later, is not taken for it. Linux: proc(5). */
import { readFile } from "node:fs/promises";
import { OperationalError } from "#kernel/errors.ts";

export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after the host's boot; field 22 of /proc/PID/stat. */
  readonly startTicks: string;
  /** Differs after the host was booted again. */
  readonly bootId: string;
}

/**
 * Null when no such process runs (one that has ended and was not waited for does not run). Errors: `machine.failing` when that can't
 * be told: a guest that runs must not be taken for one that ended because this process has no descriptor left to look at it.
 */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | null> {
  const stat = await readOf(pid, "stat", "latin1");
  if (stat === null) return null;
  // The second field, the program's name in brackets, may hold spaces and brackets itself.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const [state, startTicks] = [fields[0], fields[19]];
  if (state === "Z" || state === "X" || startTicks === undefined) return null;
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "latin1")).trim();
  return { pid, startTicks, bootId };
}

export async function stillRuns(known: ProcessIdentity): Promise<boolean> {
  const now = await identifyProcess(known.pid);
  return now !== null && now.startTicks === known.startTicks && now.bootId === known.bootId;
}

/** The arguments it was started with; empty when it does not run or is not ours to look at. Errors: `machine.failing`. */
export async function argumentsOf(pid: number): Promise<string[]> {
  return (await readOf(pid, "cmdline", "utf8"))?.split("\0") ?? [];
}

/** Null: there is no such process, or it is somebody else's and hidden (mount option `hidepid`). */
async function readOf(
  pid: number,
  file: "stat" | "cmdline",
  encoding: BufferEncoding,
): Promise<string | null> {
  try {
    return await readFile(`/proc/${pid}/${file}`, encoding);
  } catch (error) {
    // ESRCH: it ended between the opening and the reading.
    const { code } = error as NodeJS.ErrnoException;
    if (["ENOENT", "ESRCH", "EACCES", "EPERM"].includes(code ?? "")) return null;
    throw new OperationalError("machine.failing", `whether process ${pid} runs cannot be seen now`, {
      outcome: "unknown",
      detail: String(error),
      cause: error,
    });
  }
}

/** Kills that very process, if it still runs. */
export async function killProcess(
  known: ProcessIdentity,
  signal: "SIGTERM" | "SIGKILL" = "SIGKILL",
): Promise<void> {
  if (!(await stillRuns(known))) return;
  try {
    process.kill(known.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
