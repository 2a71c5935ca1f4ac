/** The program: puts everything together, and hands the command line to the CLI. */
import { createInterface } from "node:readline/promises";
import { runCli } from "#cli/program.ts";
import type { Terminal } from "#cli/terminal.ts";
import { createLaunchers } from "#main/launchers.ts";
import { readVersion } from "#main/version.ts";

const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) {
  process.once(name, () => stop.abort(new Error(`stopped by ${name}`)));
}

// A reader that has seen enough (`| head`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
});

const terminal: Terminal = {
  out: (text) => process.stdout.write(`${text}\n`),
  err: (text) => process.stderr.write(`${text}\n`),
  interactive: process.stdin.isTTY && process.stderr.isTTY,
  ask: async (question) => {
    const lines = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return await lines.question(question, { signal: stop.signal });
    } finally {
      lines.close();
    }
  },
};

const version = readVersion();
process.exitCode = await runCli(process.argv.slice(2), {
  terminal,
  launchers: createLaunchers({ terminal, version, environment: process.env }),
  environment: process.env,
  version,
  signal: stop.signal,
});
