/** `understudy <noun> <verb>`: the whole command line, put together from one file a topic. */
import { Command, CommanderError } from "commander";
import { addAgentCommands } from "#cli/agent-commands.ts";
import type { CommandContext } from "#cli/command-context.ts";
import { addConfigCommands } from "#cli/config-commands.ts";
import { addCloudCommands } from "#cli/cloud-commands.ts";
import { addEnvironmentCommands } from "#cli/environment-commands.ts";
import { addPointCommands } from "#cli/point-commands.ts";
import { addRecoverCommands } from "#cli/recover-commands.ts";
import { addRunCommands } from "#cli/run-commands.ts";
import { addServerCommands } from "#cli/server-commands.ts";
import { addVaultCommands } from "#cli/vault-commands.ts";
import { errorCodes, isOperational, publicMessage } from "#kernel/errors.ts";

const exitCodeHelp = `
Exit codes
  0  done, and everything is as it should be
  1  internal error, or the data folder cannot be used
  2  usage, input or configuration is wrong
  3  refused: the state, a policy or a missing confirmation forbids it
  4  not found
  5  authentication or rights
  6  the other side does not answer or fails
  7  a limit: disk, quota or size
  8  done, but the environment is not whole; the output names what is missing
  9  stored data is damaged; the output names it
  130  interrupted
`;

export function buildProgram(context: CommandContext, asJson = false): Command {
  const { terminal } = context;
  const program = new Command("understudy")
    .description("Keeps cloud environments alive when their cloud is not.")
    .version(context.version, "-V, --version")
    .option("-c, --config <file>", "the configuration", "understudy.yaml")
    .option("--api <url>", "the control plane, if not the one that the configuration names")
    .option("--token-file <file>", "its API token, if not the one in the data folder")
    .option("--json", "machine-readable output", false)
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.out(text.trimEnd()),
      writeErr: (text) => terminal.err(text.trimEnd()),
      outputError: (text, write) => write(asJson ? usageAsJson(text) : text),
    })
    .addHelpText("after", exitCodeHelp);
  addConfigCommands(program, context);
  addServerCommands(program, context);
  addEnvironmentCommands(program, context);
  addRunCommands(program, context);
  addCloudCommands(program, context);
  addPointCommands(program, context);
  addRecoverCommands(program, context);
  addVaultCommands(program, context);
  addAgentCommands(program, context);
  inheritSettings(program);
  return program;
}

function usageAsJson(text: string): string {
  const message = text.replace(/^error: /u, "").trim();
  return JSON.stringify({ error: { code: "input.invalid", message } });
}

/** Commander copies these to subcommands only at creation by `.command()`; ours are made in several ways. */
function inheritSettings(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    inheritSettings(child);
  }
}

/** Runs one command line; resolves to the exit code and never rejects. */
export async function runCli(
  argv: readonly string[],
  ports: Omit<CommandContext, "exitWith">,
): Promise<number> {
  let exitCode = 0;
  const context: CommandContext = {
    ...ports,
    exitWith: (code) => {
      exitCode = code;
    },
  };
  const asJson = argv.includes("--json");
  const program = buildProgram(context, asJson);
  try {
    await program.parseAsync(argv, { from: "user" });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    if (context.signal.aborted && !isOperational(error)) return errorCodes.aborted.exit;
    if (isOperational(error)) {
      const { code, message } = error;
      context.terminal.err(asJson ? JSON.stringify({ error: { code, message } }) : `understudy: ${message}`);
      return errorCodes[code].exit;
    }
    context.terminal.err(`understudy: ${publicMessage(error)}`);
    if (error instanceof Error && error.stack !== undefined) context.terminal.err(error.stack);
    return errorCodes.internal.exit;
  }
}
