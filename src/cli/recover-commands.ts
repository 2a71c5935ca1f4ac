/** `understudy recover | instantiate | restore | export`, and `point verify`: back to a moment that was named. */
import type { Command } from "commander";
import type { ApiClient } from "#cli/api-client.ts";
import { confirmTyped, openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment, environmentPath } from "#cli/environment-commands.ts";
import { examples, globalFlags, wholeNumber } from "#cli/global-flags.ts";
import { parseMoment } from "#cli/parse-moment.ts";
import { noSuchPoint } from "#cli/point-commands.ts";
import { beginRun } from "#cli/run-commands.ts";
import { formatBytes, formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { EnvironmentStatus, PointsView } from "#takeover/control.ts";

interface MomentFlags {
  readonly at?: string;
  readonly point?: string;
}

interface RunFlags extends MomentFlags {
  readonly reason?: string;
  readonly confirm?: string;
  readonly wait: boolean;
}

/** What the API is told: a point is its write, not its millisecond. */
interface NamedMoment {
  readonly at?: number;
  readonly sequence?: number;
}

const momentHelp = 'as they were then: 2026-03-01T12:00:00Z, or "20s ago"';

export function addRecoverCommands(program: Command, context: CommandContext): void {
  addRecover(program, context);
  addInstantiate(program, context);
  addRestore(program, context);
  addExport(program, context);
  addPointVerify(program, context);
}

function withMoment(command: Command, what: string): Command {
  return command
    .option("--at <time>", `${what} ${momentHelp}`)
    .option("--point <point>", `${what} as at a recovery point: see "understudy point list"`);
}

function withRun(command: Command): Command {
  return command.option("--reason <text>", "kept with the run").option("--no-wait", "begin it and return");
}

/** Errors: `input.invalid` for both or, where one is needed, neither; `not_found`. */
async function momentOf(
  api: ApiClient,
  environment: string,
  { at, point }: MomentFlags,
  needed: boolean,
): Promise<NamedMoment> {
  if (at !== undefined && point !== undefined) {
    throw new OperationalError("input.invalid", "--at and --point both name a moment: give one of them");
  }
  if (at !== undefined) return { at: parseMoment(at, Date.now()) };
  if (point === undefined) {
    if (!needed) return {};
    throw new OperationalError("input.invalid", "name the moment with --at, or with --point");
  }
  const { points } = await api.get<PointsView>(environmentPath(environment, "/points"));
  const found = points.find(({ id }) => id === point);
  if (found === undefined) throw noSuchPoint(environment, point);
  return { at: found.at, sequence: found.sequence };
}

function addRecover(program: Command, context: CommandContext): void {
  const command = program
    .command("recover [environment]")
    .description(
      "move the environment to its standby site, its disks as at a named moment: a failover to a moment",
    )
    .addHelpText(
      "after",
      examples('understudy recover shop --at "20s ago"', "understudy recover shop --point point-1a2b3c4d"),
    )
    .option("--confirm <environment>", "instead of typing the environment's name")
    .option("--force", "go on although the active site answers and cannot be fenced; needs --reason");
  withRun(withMoment(command, "protected disks")).action(
    async (name: string | undefined, options: RunFlags & { readonly force?: boolean }, self: Command) => {
      const flags = globalFlags(self);
      if (options.force === true && options.reason === undefined) {
        throw new OperationalError("input.invalid", "--force needs --reason: why is kept with the run");
      }
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = await momentOf(api, environment, options, true);
      const what = `The environment goes back to ${describe(moment)}: what its disks were given since is not in it, and all users are moved.`;
      await confirmTyped(context, environment, what, options.confirm);
      await beginRun(context, api, environment, {
        body: { kind: "failover", reason: options.reason, force: options.force ?? false, ...moment },
        wait: options.wait,
        json: flags.json,
      });
    },
  );
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
    .addHelpText(
      "after",
      examples(
        'understudy restore vol-0a1b2c3d --at "20s ago"',
        "understudy restore vol-0a1b2c3d shop --point point-1a2b3c4d --confirm vol-0a1b2c3d",
      ),
    );
  withRun(withMoment(command, "the volume")).action(
    async (volume: string, name: string | undefined, options: RunFlags, self: Command) => {
      const flags = globalFlags(self);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = await momentOf(api, environment, options, true);
      const what = `${volume} is written over with its content of ${describe(moment)}, and its servers are stopped for it.`;
      await confirmTyped(context, volume, what, options.confirm);
      await beginRun(context, api, environment, {
        body: { kind: "restore", reason: options.reason, volume, ...moment },
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

function describe({ at, sequence }: NamedMoment): string {
  const time = at === undefined ? "the last moment" : new Date(at).toISOString();
  return sequence === undefined ? time : `${time} (write ${sequence})`;
}
