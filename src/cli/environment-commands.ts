/** Looking: status, env show, journal tail, pairs, gaps. */
import type { Command } from "commander";
import { openApi, type CommandContext } from "#cli/command-context.ts";
import type { ApiClient } from "#cli/api-client.ts";
import { examples, globalFlags, wholeNumber } from "#cli/global-flags.ts";
import { formatDuration, formatTable, formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { JournalEntry } from "#model/command.ts";
import type { Gap } from "#model/gap.ts";
import type { ResourceKind, Tags } from "#model/resource.ts";
import { copyShare } from "#cli/follow-copies.ts";
import type { EnvironmentStatus, PairingView } from "#takeover/control.ts";

/** The environment named on the line, or the only one there is. */
export async function chooseEnvironment(api: ApiClient, name: string | undefined): Promise<string> {
  if (name !== undefined) return name;
  const { environments } = await api.get<{ environments: readonly EnvironmentStatus[] }>("/v1/environments");
  const [only, ...others] = environments.map((environment) => environment.id);
  if (only !== undefined && others.length === 0) return only;
  if (only === undefined) throw new OperationalError("not_found", "the configuration names no environment");
  throw new OperationalError(
    "input.invalid",
    `name the environment, one of: ${[only, ...others].join(", ")}`,
  );
}

export function environmentPath(environment: string, part = ""): string {
  return `/v1/environments/${encodeURIComponent(environment)}${part}`;
}

export function addEnvironmentCommands(program: Command, context: CommandContext): void {
  addStatus(program, context);
  addEnvShow(program, context);
  addJournalTail(program, context);
  addPairs(program, context);
  addGaps(program, context);
}

function addStatus(program: Command, context: CommandContext): void {
  program
    .command("status")
    .description("where every environment stands; exits 8 unless all are ready")
    .addHelpText(
      "after",
      examples("understudy status", "understudy status --json | jq '.environments[].health'"),
    )
    .action(async (_options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const { environments } = await api.get<{ environments: readonly EnvironmentStatus[] }>(
        "/v1/environments",
      );
      if (flags.json) context.terminal.out(JSON.stringify({ environments }));
      else if (environments.length === 0) context.terminal.out("the configuration names no environment");
      else context.terminal.out(environments.map(describeStatus).join("\n\n"));
      if (environments.some((one) => one.health === "unprotected" || one.health === "degraded"))
        context.exitWith(8);
    });
}

export function describeStatus(status: EnvironmentStatus): string {
  const { queue, gaps, behind } = status;
  const work = queue.creates + queue.updates + queue.deletes;
  const lines = [
    `${status.id}: ${status.health} (${status.phase.replaceAll("_", " ")}, epoch ${status.epoch})`,
    `  serving    ${status.servingSite}   active ${status.activeSite}, standby ${status.standbySite}`,
    `  servers    ${status.servers.active} active, ${status.servers.reserve} in reserve`,
    `  journal    ${status.journal.commands} commands, ${status.journal.open} open; ${behind.state} not yet folded, reserve ${behind.standby} behind`,
    `  takeover   ${work} calls left (${queue.creates} create, ${queue.updates} change, ${queue.deletes} delete), about ${formatDuration(queue.estimatedSeconds * 1000)}`,
    `  gaps       ${gaps.lost} lost, ${gaps.degraded} degraded, ${gaps.note} notes`,
    ...status.routes.map(
      (route) =>
        `  route      ${route.route} -> ${route.site ?? "nowhere"} (${route.backends} servers${route.missing > 0 ? `, ${route.missing} not ready` : ""}${route.error === null ? "" : `; ${route.error}`})`,
    ),
    ...status.disks.map(
      (disk) =>
        `  disk       ${disk.volumeId} at ${disk.site}: ${disk.problem ?? describeImages(disk) ?? disk.capture?.state ?? "not captured"}${describeCopy(disk)}`,
    ),
    ...status.witnesses
      .filter((one) => one.raised)
      .map(
        (one) =>
          `  notice     ${one.witness} sees ${one.code} (${one.probe}) since ${formatTime(one.since)}: ${one.detail}`,
      ),
    ...status.findings.map((finding) => `  ${finding.severity.padEnd(9)}  ${finding.message}`),
    ...(status.run === null
      ? []
      : [`  run        ${status.run.kind} is under way: understudy run show ${status.run.id}`]),
  ];
  return lines.join("\n");
}

/** Null: each write is captured, or nothing is. */
function describeImages({ snapshot, passes }: EnvironmentStatus["disks"][number]): string | null {
  if (passes !== null) {
    const { agent, at } = passes;
    return at === null
      ? `a pass of agent ${agent} comes in`
      : `as it was at ${formatTime(at)}, by agent ${agent}`;
  }
  if (snapshot === null) return null;
  const { at, everyMs, state, copiedBytes, totalBytes } = snapshot;
  const share = totalBytes === 0 ? 0 : Math.floor((100 * copiedBytes) / totalBytes);
  const coming = state === "copying" ? `; the next one comes over, ${share} %` : "";
  return `as it was at ${at === null ? "no time yet" : formatTime(at)}, a snapshot every ${formatDuration(everyMs)}${coming}`;
}

function describeCopy({ copy }: EnvironmentStatus["disks"][number]): string {
  if (copy === null || copy.state === "done") return "";
  return `; live, ${copyShare(copy)}${copy.state === "waiting" ? ", the vault does not answer" : ""}`;
}

interface ResourceRow {
  readonly kind: ResourceKind;
  readonly id: string;
  readonly tags: Tags;
  readonly spec: object;
}

function addEnvShow(program: Command, context: CommandContext): void {
  const env = program.command("env").description("the environment that is protected");
  env
    .command("show [environment]")
    .description("its status and everything that it is made of")
    .addHelpText("after", examples("understudy env show", "understudy env show shop --json"))
    .action(async (name: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const status = await api.get<EnvironmentStatus>(environmentPath(environment));
      const { resources } = await api.get<{ resources: readonly ResourceRow[] }>(
        environmentPath(environment, "/resources"),
      );
      if (flags.json) {
        context.terminal.out(JSON.stringify({ status, resources }));
        return;
      }
      const rows = resources.map((one) => [one.kind, one.id, one.tags["Name"] ?? "", summarise(one.spec)]);
      context.terminal.out(
        `${describeStatus(status)}\n\n${formatTable(["kind", "id", "name", "what"], rows)}`,
      );
    });
}

function summarise(spec: object): string {
  return Object.entries(spec)
    .filter(
      ([key, value]) => key !== "userData" && value !== "" && !(Array.isArray(value) && value.length === 0),
    )
    .map(([key, value]) => `${key}=${typeof value === "object" ? JSON.stringify(value) : String(value)}`)
    .join(" ")
    .slice(0, 160);
}

function addJournalTail(program: Command, context: CommandContext): void {
  const journal = program.command("journal").description("the intercepted commands");
  journal
    .command("tail [environment]")
    .description("the latest commands, newest last")
    .option("-n, --lines <count>", "how many", wholeNumber, 20)
    .addHelpText("after", examples("understudy journal tail", "understudy journal tail shop -n 100 --json"))
    .action(async (name: string | undefined, options: { lines: number }, command: Command) => {
      const flags = globalFlags(command);
      if (options.lines < 1 || options.lines > 1000) {
        throw new OperationalError("input.invalid", "--lines takes a whole number from 1 to 1000");
      }
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const path = environmentPath(environment, `/journal?limit=${options.lines}`);
      const { entries } = await api.get<{ entries: readonly JournalEntry[] }>(path);
      if (flags.json) {
        context.terminal.out(JSON.stringify({ entries }));
        return;
      }
      const rows = entries.map(({ seq, intent, outcome }) => [
        String(seq),
        formatTime(intent.at),
        intent.principal,
        `${intent.service}:${intent.operation}`,
        outcome === null ? "open" : outcome.result,
        outcome === null
          ? ""
          : [outcome.errorCode ?? "", ...outcome.changes.map(describeChange)]
              .filter(Boolean)
              .join(", ")
              .slice(0, 100),
      ]);
      context.terminal.out(formatTable(["seq", "time", "by", "command", "result", "effect"], rows));
    });
}

function describeChange(change: {
  readonly type: string;
  readonly kind: string;
  readonly id: string;
}): string {
  return `${change.type} ${change.kind} ${change.id}`;
}

function addPairs(program: Command, context: CommandContext): void {
  program
    .command("pairs [environment]")
    .description("which standby resource stands for which active one")
    .addHelpText("after", examples("understudy pairs", "understudy pairs shop --json"))
    .action(async (name: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const { pairings } = await api.get<{ pairings: readonly PairingView[] }>(
        environmentPath(environment, "/pairings"),
      );
      if (flags.json) {
        context.terminal.out(JSON.stringify({ pairings }));
        return;
      }
      const rows = pairings.map((one) => [
        one.scope,
        one.kind,
        one.activeId,
        one.standbyId ?? "-",
        one.state,
      ]);
      context.terminal.out(formatTable(["scope", "kind", "active", "standby", "state"], rows));
    });
}

function addGaps(program: Command, context: CommandContext): void {
  program
    .command("gaps [environment]")
    .description("what is not protected, and why; exits 8 if anything would be lost")
    .addHelpText("after", examples("understudy gaps", "understudy gaps shop --json"))
    .action(async (name: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const { gaps } = await api.get<{ gaps: readonly Gap[] }>(environmentPath(environment, "/gaps"));
      if (flags.json) context.terminal.out(JSON.stringify({ gaps }));
      else if (gaps.length === 0)
        context.terminal.out("no gaps: everything recorded has a counterpart on the standby");
      else {
        const rows = gaps.map((gap) => [
          gap.severity,
          gap.code,
          gap.resource === undefined ? (gap.operation ?? "") : `${gap.resource.kind} ${gap.resource.id}`,
          gap.message,
        ]);
        context.terminal.out(formatTable(["severity", "code", "about", "what and what to do"], rows));
      }
      if (gaps.some((gap) => gap.severity === "lost")) context.exitWith(8);
    });
}
