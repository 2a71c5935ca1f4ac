/** understudy.yaml and the gateway's access keys: init, config check, keys. */
import { writeFileSync } from "node:fs";
import { Option, type Command } from "commander";
import { starterConfig } from "#cli/starter-config.ts";
import type { CommandContext } from "#cli/command-context.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { formatTable } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";

export function addConfigCommands(program: Command, context: CommandContext): void {
  program
    .command("init")
    .description("write an understudy.yaml to begin with")
    .option("--force", "replace one that stands", false)
    .addHelpText("after", examples("understudy init", "understudy init --config ./shop.yaml"))
    .action((options: { force: boolean }, command: Command) => {
      const { config, json } = globalFlags(command);
      writeStarter(config, options.force);
      context.terminal.out(
        json
          ? JSON.stringify({ written: config })
          : `${config} is written: edit it, then "understudy config check" and "understudy up"`,
      );
    });

  const config = program.command("config").description("the configuration");
  config
    .command("check")
    .description("say everything that is wrong with it, each with its line")
    .addHelpText(
      "after",
      examples("understudy config check", "understudy config check --config ./shop.yaml --json"),
    )
    .action(async (_options, command: Command) => {
      const { config: path, json } = globalFlags(command);
      const { checkConfig, readConfigText } = await import("#config/read-config.ts");
      const { formatProblems } = await import("#config/check-document.ts");
      const check = checkConfig(readConfigText(path));
      const problems = check.ok ? check.warnings : check.problems;
      if (json) context.terminal.out(JSON.stringify({ ok: check.ok, problems }));
      else if (problems.length > 0) context.terminal.err(formatProblems(path, problems));
      if (!check.ok) context.exitWith(2);
      else if (!json) context.terminal.out(`${path} is in order`);
    });
  addKeys(program, context);
}

function writeStarter(path: string, replace: boolean): void {
  try {
    writeFileSync(path, starterConfig, { mode: 0o600, flag: replace ? "w" : "wx" });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EEXIST") {
      throw new OperationalError("state.conflict", `${path} exists: edit it, or replace it with --force`);
    }
    throw new OperationalError(
      "input.invalid",
      `cannot write ${path} (${String(code)}): name a place that this user may write to with --config`,
      { cause: error },
    );
  }
}

function addKeys(program: Command, context: CommandContext): void {
  const keys = program.command("keys").description("access keys for the tools that use the gateway");
  keys
    .command("create <environment>")
    .description("make a key; its secret is shown once")
    .addOption(
      new Option("--rights <rights>", "what it may do").choices(["read", "change"]).default("change"),
    )
    .option("--note <text>", "for whom it is", "")
    .addHelpText("after", examples("understudy keys create shop --note deploy-pipeline"))
    .action(
      async (environment: string, options: { rights: "read" | "change"; note: string }, command: Command) => {
        const flags = globalFlags(command);
        const key = await context.launchers.keys.create(flags.config, { environment, ...options });
        context.terminal.out(
          flags.json
            ? JSON.stringify(key)
            : `AWS_ACCESS_KEY_ID=${key.accessKeyId}\nAWS_SECRET_ACCESS_KEY=${key.secretAccessKey}`,
        );
      },
    );
  keys
    .command("list")
    .description("every key, without its secret")
    .addHelpText("after", examples("understudy keys list"))
    .action(async (_options, command: Command) => {
      const flags = globalFlags(command);
      const all = await context.launchers.keys.list(flags.config);
      if (flags.json) {
        context.terminal.out(JSON.stringify({ keys: all }));
        return;
      }
      const rows = all.map((key) => [
        key.accessKeyId,
        key.environment,
        key.rights,
        key.enabled ? "enabled" : "disabled",
        key.note,
      ]);
      context.terminal.out(formatTable(["key", "environment", "rights", "state", "note"], rows));
    });
  keys
    .command("disable <key>")
    .description("refuse a key from now on")
    .addHelpText("after", examples("understudy keys disable AKIA..."))
    .action(async (key: string, _options, command: Command) => {
      const flags = globalFlags(command);
      await context.launchers.keys.disable(flags.config, key);
      context.terminal.out(flags.json ? JSON.stringify({ disabled: key }) : `${key} is disabled`);
    });
}
