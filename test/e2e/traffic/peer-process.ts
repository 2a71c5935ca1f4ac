/** For tests: a real server from Debian as a child process on loopback, in a folder of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { accessSync, constants } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin", "/sbin"];

export function findProgram(name: string): string | undefined {
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

/**
 * Options of a suite that needs Debian's programs: skipped by name where one is missing, unless
 * UNDERSTUDY_STRICT=1 asks for every suite; then the suite runs, and fails for want of it.
 */
export function needs(programs: Readonly<Record<string, string>>): { readonly skip?: string } {
  const missing = Object.entries(programs).filter(([program]) => findProgram(program) === undefined);
  if (missing.length === 0) return {};
  const text = missing
    .map(([program, debianPackage]) => `${program} (Debian package ${debianPackage})`)
    .join(", ");
  if (process.env["UNDERSTUDY_STRICT"] === "1") throw new Error(`not installed: ${text}`);
  return { skip: `not installed: ${text}` };
}

export async function temporaryFolder(): Promise<{ readonly path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "understudy-traffic-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

export interface Peer extends AsyncDisposable {
  readonly pid: number;
  readonly process: ChildProcess;
}

/** Starts a program and waits until `ready` holds. Ended by its own pid. */
export async function startPeer(
  program: string,
  args: readonly string[],
  ready: () => Promise<boolean>,
): Promise<Peer> {
  const child = spawn(findProgram(program) ?? program, args, { stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      output = (output + chunk.toString()).slice(-10_000);
    });
  await once(child, "spawn");
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };
  const end = performance.now() + 20_000;
  while (!(await ready())) {
    if (child.exitCode !== null || performance.now() > end) {
      await stop();
      throw new Error(`${program} did not come up:\n${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return { pid: child.pid ?? 0, process: child, [Symbol.asyncDispose]: stop };
}
