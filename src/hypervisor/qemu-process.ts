/** Starting QEMU so that it outlives the agent, and finding it again. */
import { type ChildProcess, spawn } from "node:child_process";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readFileIfAny } from "#kernel/durable-file.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { machineFiles } from "./plan-command-line.ts";
import {
  argumentsOf,
  identifyProcess,
  killProcess,
  type ProcessIdentity,
  stillRuns,
} from "./process-identity.ts";
import { connectQmp, type QmpClient } from "./qmp-client.ts";

export interface RunningQemu {
  readonly identity: ProcessIdentity;
  readonly qmp: QmpClient;
}

export const QEMU = "qemu-system-x86_64";
const POLL_MS = 15;
const LAUNCH_LIMIT_MS = 20_000;
const ADOPT_LIMIT_MS = 5000;
const LOG_TAIL_BYTES = 2000;

/**
 * A QEMU in a session of its own, with its monitor connected. Should one run already in the folder, the new one ends by
 * itself: QEMU holds a lock on its pid file for its life. Errors: `machine.refused` with the end of QEMU's own log when it
 * does not accept its arguments; `machine.failing`.
 */
export async function launchQemu(
  folder: string,
  args: readonly string[],
  { clock, spawned }: { readonly clock: Clock; readonly spawned: () => void },
  signal?: AbortSignal,
): Promise<RunningQemu> {
  const log = await open(join(folder, machineFiles.qemuLog), "w", 0o600);
  let child: ChildProcess;
  try {
    child = spawn(QEMU, args, {
      cwd: folder,
      detached: true,
      stdio: ["ignore", log.fd, log.fd],
      // Nothing else of our own environment: it may hold secrets.
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin", LANG: "C.UTF-8" },
    });
    await started(child);
  } finally {
    await log.close();
  }
  child.unref();
  spawned();
  const deadline = clock.monotonicMs() + LAUNCH_LIMIT_MS;
  for (;;) {
    if (child.exitCode !== null || child.signalCode !== null) throw await refusedToStart(folder);
    if ((await readPid(folder)) === child.pid) {
      const qmp = await tryConnect(folder, deadline - clock.monotonicMs(), signal);
      const identity = await identifyProcess(child.pid ?? 0);
      if (qmp !== null && identity !== null) return { identity, qmp };
      await qmp?.[Symbol.asyncDispose]();
    }
    if (clock.monotonicMs() > deadline || signal?.aborted === true) {
      child.kill("SIGKILL");
      signal?.throwIfAborted();
      throw new OperationalError("machine.failing", `QEMU opened no monitor within ${LAUNCH_LIMIT_MS} ms`);
    }
    await clock.sleep(POLL_MS);
  }
}

/** The QEMU that runs for this machine, whoever started it; null: none. Errors: `machine.failing`: it runs and does not answer. */
export async function adoptQemu(
  folder: string,
  uuid: string,
  signal?: AbortSignal,
): Promise<RunningQemu | null> {
  const identity = await findQemu(folder, uuid);
  if (identity === null) return null;
  const qmp = await tryConnect(folder, ADOPT_LIMIT_MS, signal);
  if (qmp !== null) {
    // QEMU serves one monitor at a time: a connection that was left open would keep every later one out.
    try {
      const answer = (await qmp.execute("query-uuid", undefined, signal)) as { UUID?: string };
      if (answer.UUID === uuid) return { identity, qmp };
      await qmp[Symbol.asyncDispose]();
    } catch (error) {
      await qmp[Symbol.asyncDispose]();
      signal?.throwIfAborted();
      if (await stillRuns(identity)) throw error;
    }
  }
  if (!(await stillRuns(identity))) return null;
  throw new OperationalError(
    "machine.failing",
    `QEMU (process ${identity.pid}) runs, but its monitor does not answer`,
    { outcome: "unknown" },
  );
}

/** The process that its pid file names, if it is a QEMU of this machine. */
export async function findQemu(folder: string, uuid: string): Promise<ProcessIdentity | null> {
  const pid = await readPid(folder);
  if (pid === null) return null;
  const identity = await identifyProcess(pid);
  if (identity === null) return null;
  return (await argumentsOf(pid)).includes(uuid) ? identity : null;
}

/** Returns when it does not run any more. */
export async function endQemu(identity: ProcessIdentity, clock: Clock): Promise<void> {
  await killProcess(identity, "SIGKILL");
  await waitForEnd(identity, clock);
}

export async function waitForEnd(
  identity: ProcessIdentity,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  while (await stillRuns(identity)) await clock.sleep(POLL_MS, signal);
}

/** Whether it ends in that time. */
export async function endsWithin(identity: ProcessIdentity, clock: Clock, ms: number): Promise<boolean> {
  for (const deadline = clock.monotonicMs() + ms; ; await clock.sleep(POLL_MS)) {
    if (!(await stillRuns(identity))) return true;
    if (clock.monotonicMs() > deadline) return false;
  }
}

async function tryConnect(
  folder: string,
  withinMs: number,
  signal: AbortSignal | undefined,
): Promise<QmpClient | null> {
  const limit = AbortSignal.timeout(Math.max(1, Math.round(withinMs)));
  try {
    const both = signal === undefined ? limit : AbortSignal.any([limit, signal]);
    return await connectQmp(join(folder, machineFiles.qmpSocket), both);
  } catch {
    signal?.throwIfAborted();
    return null;
  }
}

async function readPid(folder: string): Promise<number | null> {
  const text = (await readFileIfAny(join(folder, machineFiles.pid)))?.trim();
  return text !== undefined && /^[1-9][0-9]*$/.test(text) ? Number(text) : null;
}

function started(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", (error: NodeJS.ErrnoException) =>
      reject(
        new OperationalError(
          "machine.refused",
          error.code === "ENOENT"
            ? `${QEMU} is missing: apt-get install qemu-system-x86`
            : `${QEMU} could not be started: ${error.message}`,
          { cause: error },
        ),
      ),
    );
  });
}

async function refusedToStart(folder: string): Promise<OperationalError> {
  const text = (await readFile(join(folder, machineFiles.qemuLog), "utf8")).slice(-LOG_TAIL_BYTES).trim();
  return new OperationalError(
    "machine.refused",
    `QEMU did not start: ${text.split("\n").at(-1) || "it ended without a word"}`,
    {
      detail: text,
    },
  );
}
