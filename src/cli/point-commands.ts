/** `understudy point ...`: what an environment can be recovered to. */
import type { Command } from "commander";
import type { ApiClient } from "#cli/api-client.ts";
import { openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment, environmentPath } from "#cli/environment-commands.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { describeEvidence, saveScreenshot } from "#cli/show-evidence.ts";
import { formatBytes, formatDuration, formatTable, formatTime } from "#cli/table.ts";
import { flagsOf } from "#cli/vault-commands.ts";
import type { VaultRecoveryPointsView, VaultRecoveryPointView } from "#cli/vault-tools.ts";
import type { Evidence } from "#model/evidence.ts";
import { errorCodes, isOperational, OperationalError } from "#kernel/errors.ts";
import type { RecoveryPoint } from "#recovery/recovery-points.ts";
import type { GroupStatus } from "#recovery/vault-desk.ts";
import type { PointsView } from "#takeover/control.ts";

export function addPointCommands(program: Command, context: CommandContext): void {
  const point = program.command("point").description("moments that an environment can be recovered to");
  point
    .command("list [environment]")
    .description("the window in which any moment can be named, and the recovery points, newest first")
    .option("--store <store>", "as the vault there keeps them, without any control plane")
    .option("--passphrase-file <file>", "the key's passphrase, with --store")
    .addHelpText(
      "after",
      examples(
        "understudy point list",
        "understudy point list shop --json",
        "understudy point list shop --store /srv/vault --passphrase-file ./vault-passphrase",
      ),
    )
    .action(async (name: string | undefined, options: StoreFlags, command: Command) => {
      const flags = globalFlags(command);
      if (options.store !== undefined) {
        const view = await context.launchers.vault.recoveryPoints(flagsOf(command), name, context.signal);
        context.terminal.out(flags.json ? JSON.stringify(view) : describeStored(view));
        if (view.damaged.length > 0) context.exitWith(errorCodes["vault.damaged"].exit);
        return;
      }
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const view = await api.get<PointsView>(environmentPath(environment, "/points"));
      context.terminal.out(flags.json ? JSON.stringify(view) : describePoints(view, Date.now()));
    });
  point
    .command("create [environment]")
    .description("a recovery point of now: the configuration and all protected disks at one instant")
    .option(
      "--consistent",
      "hold the guests' file systems still for the instant; exits 8 if that could not be had",
    )
    .addHelpText(
      "after",
      examples("understudy point create shop", "understudy point create shop --consistent --json"),
    )
    .action(
      async (name: string | undefined, options: { readonly consistent?: boolean }, command: Command) => {
        const flags = globalFlags(command);
        const api = await openApi(context, flags);
        const environment = await chooseEnvironment(api, name);
        const consistency = options.consistent === true ? "application" : "crash";
        const made = await api.post<RecoveryPoint>(environmentPath(environment, "/points"), { consistency });
        context.terminal.out(flags.json ? JSON.stringify(made) : describePoint(made));
        if (made.consistency !== consistency && consistency === "application") context.exitWith(8);
      },
    );
  point
    .command("show <point> [environment]")
    .description("one recovery point: what it ties together, and whether it was booted and probed")
    .option("--store <store>", "as the vault there keeps it, without any control plane")
    .option("--passphrase-file <file>", "the key's passphrase, with --store")
    .addHelpText(
      "after",
      examples(
        "understudy point show point-1a2b3c4d",
        "understudy point show point-1a2b3c4d --screenshot db-1.png --server db-1",
        "understudy point show point-1a2b3c4d --store /srv/vault --passphrase-file ./vault-passphrase --json",
      ),
    )
    .option("--screenshot <file>", "write what a server's display showed when it was booted: a PNG")
    .option("--server <server>", "with --screenshot: whose, by id or name")
    .action(async (id: string, name: string | undefined, options: ShowFlags, command: Command) => {
      const flags = globalFlags(command);
      if (options.store !== undefined) {
        const view = await context.launchers.vault.recoveryPoints(flagsOf(command), name, context.signal);
        const found = view.points.find((one) => one.id === id);
        if (found === undefined) throw noSuchPoint(view.environment, id);
        context.terminal.out(flags.json ? JSON.stringify(found) : describeStoredPoint(found));
        return;
      }
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const { points } = await api.get<PointsView>(environmentPath(environment, "/points"));
      const found = points.find((one) => one.id === id);
      if (found === undefined) throw noSuchPoint(environment, id);
      const evidence = await evidenceOf(api, environment, id);
      if (options.screenshot !== undefined)
        await saveScreenshot(evidence, options.server, options.screenshot);
      const shown = flags.json
        ? JSON.stringify({ ...found, evidence })
        : [describePoint(found), ...describeEvidence(evidence)].join("\n");
      context.terminal.out(shown);
    });
}

interface ShowFlags extends StoreFlags {
  readonly screenshot?: string;
  readonly server?: string;
}

/** Null: it was never booted. */
async function evidenceOf(api: ApiClient, environment: string, id: string): Promise<Evidence | null> {
  try {
    return await api.get<Evidence>(
      environmentPath(environment, `/points/${encodeURIComponent(id)}/evidence`),
    );
  } catch (error) {
    if (isOperational(error, "not_found")) return null;
    throw error;
  }
}

interface StoreFlags {
  readonly store?: string;
}

export function noSuchPoint(environment: string, id: string): OperationalError {
  return new OperationalError(
    "not_found",
    `"${environment}" has no recovery point ${id}: see "understudy point list ${environment}"`,
  );
}

function describeStored({ environment, points, damaged }: VaultRecoveryPointsView): string {
  const rows = points.map((one) => [
    one.id,
    new Date(one.at).toISOString(),
    String(one.journalPosition),
    String(one.sequence),
    one.consistency,
    one.verifiedAt === null ? "no" : new Date(one.verifiedAt).toISOString(),
  ]);
  const header = ["point", "time", "commands", "writes", "consistency", "verified"];
  return [
    `${environment}, as the vault keeps it`,
    formatTable(header, rows),
    ...damaged.map(({ object, problem }) => `damaged: ${object}: ${problem}`),
  ].join("\n");
}

function describeStoredPoint(point: VaultRecoveryPointView): string {
  return [
    `${point.id}: ${new Date(point.at).toISOString()}, ${point.consistency}-consistent`,
    `  configuration  after command ${point.journalPosition}, ${point.resources} resources at ${point.site}: see --json`,
    `  verified       ${point.verifiedAt === null ? "no" : new Date(point.verifiedAt).toISOString()}`,
    ...Object.entries(point.disks).map(
      ([volume, id]) => `  disk           ${volume}: understudy vault cat ${id}`,
    ),
  ].join("\n");
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
    ...(point.consistencyNote === null ? [] : [`  no more, since ${point.consistencyNote}`]),
    `  configuration  after command ${point.journalPosition}, ${point.resources} resources at ${point.site}`,
    `  disks          after write ${point.sequence}: ${Object.keys(point.volumes).join(", ")}`,
    `  verified       ${verdictOf(point)}`,
    `  recover        understudy drill --at ${new Date(point.at).toISOString()}`,
  ].join("\n");
}

function verdictOf({ verifiedAt }: RecoveryPoint): string {
  return verifiedAt === null ? "no" : formatTime(verifiedAt);
}
