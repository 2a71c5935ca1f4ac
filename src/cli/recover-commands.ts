/** `understudy recover | instantiate | restore | export`, and `point verify`: back to a moment that was named. */
import type { Command } from "commander";
import type { ApiClient } from "#cli/api-client.ts";
import { confirmTyped, openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment, environmentPath } from "#cli/environment-commands.ts";
import { examples, globalFlags, wholeNumber } from "#cli/global-flags.ts";
import {
  describeMoment,
  momentOf,
  type MomentFlags,
  type RunFlags,
  withMoment,
  withRun,
} from "#cli/moment-flags.ts";
import { addRecover } from "#cli/recover-command.ts";
import { beginRun } from "#cli/run-commands.ts";
import { formatBytes, formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { EnvironmentStatus } from "#takeover/control.ts";

export function addRecoverCommands(program: Command, context: CommandContext): void {
  addRecover(program, context);
  addInstantiate(program, context);
  addRestore(program, context);
  addExport(program, context);
  addPointVerify(program, context);
}

function addInstantiate(program: Command, context: CommandContext): void {
  const command = program
    .command("instantiate [environment]")
    .description(
      "a copy of the environment in isolation, as at a moment, to be looked at; removed after it: a held drill",
    )
    .requiredOption("--hold <seconds>", "leave it standing so long", wholeNumber)
    .addHelpText(
      "after",
      examples(
        "understudy instantiate shop --point point-1a2b3c4d --hold 600",
        'understudy instantiate shop --at "5m ago" --hold 600 --no-wait',
      ),
    );
  withRun(withMoment(command, "protected disks")).action(
    async (name: string | undefined, options: RunFlags & { readonly hold: number }, self: Command) => {
      const flags = globalFlags(self);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = await momentOf(api, environment, options, false);
      await beginRun(context, api, environment, {
        body: { kind: "drill", reason: options.reason, holdMs: options.hold * 1000, ...moment },
        wait: options.wait,
        json: flags.json,
      });
    },
  );
}

function addPointVerify(program: Command, context: CommandContext): void {
  const point = program.commands.find((one) => one.name() === "point") ?? program.command("point");
  const command = point
    .command("verify <point> [environment]")
    .description(
      "boot and probe the environment in isolation at exactly this point; the verdict is kept with it",
    )
    .addHelpText(
      "after",
      examples(
        "understudy point verify point-1a2b3c4d",
        "understudy point verify point-1a2b3c4d shop --json",
      ),
    );
  withRun(command).action(async (id: string, name: string | undefined, options: RunFlags, self: Command) => {
    const flags = globalFlags(self);
    const api = await openApi(context, flags);
    const environment = await chooseEnvironment(api, name);
    const moment = await momentOf(api, environment, { point: id }, true);
    const reason = options.reason ?? `to verify ${id}`;
    await beginRun(context, api, environment, {
      body: { kind: "drill", reason, ...moment },
      wait: options.wait,
      json: flags.json,
    });
  });
}

function addRestore(program: Command, context: CommandContext): void {
  const command = program
    .command("restore <volume> [environment]")
    .description(
      "write a volume back to a moment, in place; its servers are stopped for it, and started again",
    )
    .option("--confirm <volume>", "instead of typing the volume's name")
    .option(
      "--as-it-is",
      "instead of a moment: what a restore that broke off has left, part old and part new, is believed, and its servers start",
    )
    .addHelpText(
      "after",
      examples(
        'understudy restore vol-0a1b2c3d --at "20s ago"',
        "understudy restore vol-0a1b2c3d shop --point point-1a2b3c4d --confirm vol-0a1b2c3d",
        'understudy restore vol-0a1b2c3d --as-it-is --reason "the vault is gone for good"',
      ),
    );
  withRun(withMoment(command, "the volume")).action(
    async (
      volume: string,
      name: string | undefined,
      options: RunFlags & { readonly asItIs?: boolean },
      self: Command,
    ) => {
      const { asItIs = false } = options;
      if (asItIs && (options.at !== undefined || options.point !== undefined)) {
        throw new OperationalError("input.invalid", "--as-it-is goes without a moment: nothing is written");
      }
      const flags = globalFlags(self);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = asItIs ? { asItIs } : await momentOf(api, environment, options, true);
      const what =
        "asItIs" in moment
          ? `${volume} is taken as it is, part old and part new, and its servers start with that.`
          : `${volume} is written over with its content of ${describeMoment(moment)}, and its servers are stopped for it.`;
      await confirmTyped(context, volume, what, options.confirm);
      await beginRun(context, api, environment, {
        body: { kind: "restore", reason: options.reason, volumes: [volume], ...moment },
        wait: options.wait,
        json: flags.json,
      });
    },
  );
}

function addExport(program: Command, context: CommandContext): void {
  const command = program
    .command("export <volume> [environment]")
    .description("copy a kept volume, as at a moment, into a file; where the vault's process runs")
    .requiredOption("--output <file>", "a new file; holes stay holes")
    .addHelpText(
      "after",
      examples(
        'understudy export vol-0a1b2c3d --at "1h ago" --output disk.raw',
        "understudy export vol-0a1b2c3d shop --point point-1a2b3c4d --output disk.raw --json",
      ),
    );
  withMoment(command, "the volume").action(
    async (
      volume: string,
      name: string | undefined,
      options: MomentFlags & { readonly output: string },
      self: Command,
    ) => {
      const flags = globalFlags(self);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = await momentOf(api, environment, options, false);
      const lineage = await lineageOf(api, environment, volume);
      const { at: atMs = null, sequence = null } = moment;
      const wanted = { config: flags.config, environment, lineage, atMs, sequence, output: options.output };
      const done = await context.launchers.exportDisk(wanted, context.signal);
      const text = `${done.output} is ${volume} as at ${formatTime(done.timeMs)} (write ${done.sequence}), ${formatBytes(done.sizeBytes)}`;
      context.terminal.out(flags.json ? JSON.stringify({ ...done, volume }) : text);
    },
  );
}

/** The vault's name of a volume that the environment has now. Errors: `not_found`. */
async function lineageOf(api: ApiClient, environment: string, volume: string): Promise<string> {
  const { disks } = await api.get<EnvironmentStatus>(environmentPath(environment));
  const found = disks.find((disk) => disk.volumeId === volume || disk.lineage === volume);
  if (found !== undefined) return found.lineage;
  const names = disks.map(({ volumeId }) => volumeId).join(", ");
  throw new OperationalError(
    "not_found",
    `"${volume}" is no volume of "${environment}" whose content is kept; those are: ${names === "" ? "none" : names}`,
  );
}
