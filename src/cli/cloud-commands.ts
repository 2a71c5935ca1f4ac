/** A user's own accounts: cloud verify. */
import type { Command } from "commander";
import type { CommandContext } from "#cli/command-context.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";

export function addCloudCommands(program: Command, context: CommandContext): void {
  const cloud = program.command("cloud").description("the clouds behind the sites");
  cloud
    .command("verify <site>")
    .description("run the driver's conformance suite in the site's own account, and remove all that it made")
    .option("--keep", "leave what it made standing, to look at", false)
    .addHelpText(
      "after",
      examples("understudy cloud verify reserve", "understudy cloud verify reserve --json"),
    )
    .action(async (site: string, options: { keep: boolean }, command: Command) => {
      const { config, json } = globalFlags(command);
      const whole = await context.launchers.verifyCloud(
        { config, site, json, keep: options.keep },
        context.signal,
      );
      if (!whole) context.exitWith(8);
    });
}
