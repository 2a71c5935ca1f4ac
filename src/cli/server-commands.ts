/** Long-lived processes: up, witness, host up, devcloud up. Each runs until it is told to stop. */
import { InvalidArgumentError, Option, type Command } from "commander";
import type { CommandContext, DevcloudFlags, HostFlags } from "#cli/command-context.ts";
import { examples, globalFlags, positiveNumber, wholeNumber } from "#cli/global-flags.ts";

export function addServerCommands(program: Command, context: CommandContext): void {
  program
    .command("up")
    .description("run the control plane: gateway, engine and API")
    .addHelpText("after", examples("understudy up", "understudy up --config /etc/understudy/understudy.yaml"))
    .action(async (_options, command: Command) => {
      const { config, json } = globalFlags(command);
      await context.launchers.up({ config, json }, context.signal);
    });

  program
    .command("witness")
    .description("watch an environment from another place, and report to the control plane")
    .addHelpText(
      "after",
      examples("understudy witness --api http://control:7481 --token-file ./witness-token"),
    )
    .action(async (_options, command: Command) => {
      const { api, tokenFile } = globalFlags(command);
      if (api === undefined || tokenFile === undefined) {
        command.error(
          "understudy: a witness needs --api and --token-file: it shares no folder with the control plane",
        );
      }
      await context.launchers.witness({ api, tokenFile }, context.signal);
    });

  program
    .command("host")
    .description("a host of yours as a site: guests under QEMU")
    .command("up")
    .description("run the host agent of a site with `driver: hypervisor`; its guests outlive it")
    .requiredOption("--site <name>", "the site, as the configuration names it")
    .addOption(
      new Option("--accelerator <name>", "what runs guests, instead of what a timed probe boot says").choices(
        ["tcg", "kvm"],
      ),
    )
    .addHelpText("after", examples("understudy host up --site metal"))
    .action(async (options: Pick<HostFlags, "site" | "accelerator">, command: Command) => {
      const { config, json } = globalFlags(command);
      await context.launchers.hostUp({ ...options, config, json }, context.signal);
    });

  const devcloud = program
    .command("devcloud")
    .description("a small cloud of your own, for trying and testing");
  devcloud
    .command("up")
    .description("run one; it prints its endpoint and credentials when it is ready")
    .addOption(
      new Option("--dialect <name>", "the API that it speaks")
        .choices(["ec2", "openstack"])
        .makeOptionMandatory(),
    )
    .option("--data <folder>", "where it keeps everything", "./devcloud-data")
    .option("--port <number>", "where it listens on 127.0.0.1; 0 takes a free one", portNumber, 0)
    .option("--region <name>", "the region that it says it is")
    .option("--address-base <cidr>", "its servers' addresses, inside 127.0.0.0/8")
    .addOption(
      new Option("--compute <kind>", "its servers: programs on this host, real guests, or nothing")
        .choices(["process", "qemu", "none"])
        .default("process"),
    )
    .option("--latency <ms>", "of every call: 20, or 10-50")
    .option("--rate <calls>", "calls per second before it throttles", positiveNumber)
    .option("--faults <file>", "faults to start with, as JSON")
    .addHelpText(
      "after",
      examples(
        "understudy devcloud up --dialect ec2 --port 4566",
        "understudy devcloud up --dialect openstack --compute none --latency 20",
        "understudy devcloud up --dialect ec2 --compute qemu    # needs QEMU, and script/guest-image once",
      ),
    )
    .action(async (options: DevcloudFlags) => {
      await context.launchers.devcloudUp(options, context.signal);
    });
}

function portNumber(text: string): number {
  const port = wholeNumber(text);
  if (port > 65_535) throw new InvalidArgumentError("A port is at most 65535.");
  return port;
}
