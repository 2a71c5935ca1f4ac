/** `understudy point ...`: what an environment can be recovered to. */
import type { Command } from "commander";
import { openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment, environmentPath } from "#cli/environment-commands.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { formatBytes, formatDuration, formatTable, formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { RecoveryPoint } from "#recovery/recovery-points.ts";
import type { GroupStatus } from "#recovery/vault-desk.ts";
import type { PointsView } from "#takeover/control.ts";

export function addPointCommands(program: Command, context: CommandContext): void {
  const point = program.command("point").description("moments that an environment can be recovered to");
  point
    .command("list [environment]")
    .description("the window in which any moment can be named, and the recovery points, newest first")
    .addHelpText("after", examples("understudy point list", "understudy point list shop --json"))
    .action(async (name: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const view = await api.get<PointsView>(environmentPath(environment, "/points"));
      context.terminal.out(flags.json ? JSON.stringify(view) : describePoints(view, Date.now()));
    });
  point
    .command("show <point> [environment]")
    .description("one recovery point: what it ties together, and whether it was booted and probed")
    .addHelpText("after", examples("understudy point show point-1a2b3c4d"))
    .action(async (id: string, name: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const { points } = await api.get<PointsView>(environmentPath(environment, "/points"));
      const found = points.find((one) => one.id === id);
      if (found === undefined) {
        throw new OperationalError(
          "not_found",
          `"${environment}" has no recovery point ${id}: see "understudy point list ${environment}"`,
        );
      }
      context.terminal.out(flags.json ? JSON.stringify(found) : describePoint(found));
    });
}

function describePoints({ group, points }: PointsView, now: number): string {
  const rows = points.map((one) => [
    one.id,
    formatTime(one.at),
    String(one.journalPosition),
    String(one.sequence),
    one.consistency,
    verdictOf(one),
  ]);
  const header = ["point", "time", "commands", "writes", "consistency", "verified"];
  return [...describeWindow(group, now), formatTable(header, rows)].join("\n");
}

function describeWindow(group: GroupStatus | null, now: number): string[] {
  if (group === null) return ["no disk of this environment is captured: see `protect` in understudy.yaml"];
  const disks = group.volumes.map(
    ({ volume, sizeBytes, state, reason }) =>
      `disk    ${volume}, ${formatBytes(sizeBytes)}: ${state}${state === "synchronising" ? ` (${reason})` : ""}`,
  );
  const window =
    group.last === null || group.oldest === null
      ? "window  no moment can be named yet"
      : `window  any moment from ${formatTime(group.oldest.at)} to ${formatTime(group.last.at)} (the last write, ${formatDuration(Math.max(0, now - group.last.at))} ago)`;
  return [window, `store   ${formatDuration(group.shipLagMs)} behind the log`, ...disks];
}

function describePoint(point: RecoveryPoint): string {
  return [
    `${point.id}: ${formatTime(point.at)}, ${point.consistency}-consistent`,
    `  configuration  after command ${point.journalPosition}, ${point.resources} resources at ${point.site}`,
    `  disks          after write ${point.sequence}: ${Object.keys(point.volumes).join(", ")}`,
    `  verified       ${verdictOf(point)}`,
    `  recover        understudy drill --at ${new Date(point.at).toISOString()}`,
  ].join("\n");
}

function verdictOf({ verifiedAt }: RecoveryPoint): string {
  return verifiedAt === null ? "no" : formatTime(verifiedAt);
}
