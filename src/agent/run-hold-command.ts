import { execFile } from "node:child_process";

/** Null: it did what it should. Else what went wrong, with the end of what it said. */
export function runHoldCommand(command: readonly string[], limitMs: number): Promise<string | null> {
  const [program = "", ...args] = command;
  return new Promise((resolve) => {
    execFile(
      program,
      args,
      { timeout: limitMs, killSignal: "SIGKILL", maxBuffer: 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error === null) return resolve(null);
        const said = `${stdout}${stderr}`.trim().slice(-500);
        const why = error.killed === true ? `took longer than ${limitMs} ms` : error.message.split("\n")[0];
        resolve(`${program}: ${why ?? "failed"}${said === "" ? "" : `: ${said}`}`);
      },
    );
  });
}

export function freezeCommand(mountPoint: string): string[] {
  return ["fsfreeze", "--freeze", mountPoint];
}

export function thawCommand(mountPoint: string): string[] {
  return ["fsfreeze", "--unfreeze", mountPoint];
}
