/** Doing: failover, failback, swap, drill, and run show. Each follows its run to the end unless told otherwise. */
import { userInfo } from "node:os";
import type { Command } from "commander";
import type { ApiClient } from "#cli/api-client.ts";
import { confirmTyped, openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment, environmentPath } from "#cli/environment-commands.ts";
import { followCopies } from "#cli/follow-copies.ts";
import { examples, globalFlags, wholeNumber } from "#cli/global-flags.ts";
import { parseMoment } from "#cli/parse-moment.ts";
import { formatDuration, formatTable, formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Run, RunKind } from "#model/run.ts";
import type { RunView } from "#takeover/control.ts";
import type { TimelineEvent } from "#takeover/run-ledger.ts";

interface RunFlags {
  readonly reason?: string;
  readonly force?: boolean;
  readonly confirm?: string;
  readonly at?: string;
  readonly hold?: number;
  readonly wait: boolean;
}

/** Those that are commands of their own; a restore is asked for by its volume. */
type EnvironmentRun = Exclude<RunKind, "restore">;

const kinds: Readonly<Record<EnvironmentRun, { readonly what: string; readonly warning: string | null }>> = {
  failover: {
    what: "move the environment to its standby site",
    warning: "A failover stops what still runs at the active site and moves all users.",
  },
  failback: {
    what: "bring the environment back to the site it came from",
    warning: "A failback moves all users back and removes what the takeover created beyond the reserve.",
  },
  migrate: {
    what: "move the environment for good to its standby site, from one that works: planned, with its disks as last written",
    warning:
      "A migration stops the servers with protected disks for as long as it takes to start them at the standby site, moves all users, and scales the site that they leave down to a reserve.",
  },
  swap: {
    what: "exchange the roles of the two sites",
    warning: "A swap makes the standby site the active one and scales the other down to a reserve.",
  },
  drill: { what: "rehearse a takeover in isolation, and clean up", warning: null },
};

export function addRunCommands(program: Command, context: CommandContext): void {
  for (const kind of ["failover", "failback", "migrate", "swap", "drill"] as const)
    addRunCommand(program, context, kind);
  const run = program.command("run").description("runs: what was or is being done");
  run
    .command("show <run>")
    .description("one run, step by step")
    .addHelpText("after", examples("understudy run show failover-1a2b3c4d"))
    .action(async (id: string, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const view = await api.get<RunView>(`/v1/runs/${encodeURIComponent(id)}`);
      context.terminal.out(flags.json ? JSON.stringify(view) : describeRun(view));
    });
  run
    .command("cancel <run>")
    .description("end a drill, restore, failback or migration on its way, and undo what it did")
    .addHelpText("after", examples("understudy run cancel drill-1a2b3c4d"))
    .action(async (id: string, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const ended = await api.post<Run>(`/v1/runs/${encodeURIComponent(id)}/cancel`, {});
      if (flags.json) context.terminal.out(JSON.stringify(ended));
      else context.terminal.out(`${ended.id} is being undone: understudy run show ${ended.id}`);
    });
  run
    .command("list [environment]")
    .description("the latest runs, newest first")
    .addHelpText("after", examples("understudy run list", "understudy run list shop --json"))
    .action(async (environment: string | undefined, _options, command: Command) => {
      const flags = globalFlags(command);
      const api = await openApi(context, flags);
      const query = environment === undefined ? "" : `?environment=${encodeURIComponent(environment)}`;
      const { runs } = await api.get<{ runs: readonly Run[] }>(`/v1/runs${query}`);
      if (flags.json) {
        context.terminal.out(JSON.stringify({ runs }));
        return;
      }
      const rows = runs.map((one) => [
        one.id,
        one.environment,
        one.state,
        formatTime(one.startedAt),
        took(one),
        one.reason,
      ]);
      context.terminal.out(formatTable(["run", "environment", "state", "begun", "took", "reason"], rows));
    });
}

function addRunCommand(program: Command, context: CommandContext, kind: EnvironmentRun): void {
  const { what, warning } = kinds[kind];
  const command = program
    .command(`${kind} [environment]`)
    .description(what)
    .option("--reason <text>", "kept with the run")
    .option("--no-wait", "begin it and return")
    .addHelpText(
      "after",
      examples(`understudy ${kind} shop --reason "..."`, `understudy ${kind} --no-wait --json`),
    );
  if (warning !== null) command.option("--confirm <environment>", "instead of typing the environment's name");
  if (kind === "failover" || kind === "swap") {
    command.option("--force", "go on although the active site answers and cannot be fenced; needs --reason");
  }
  if (kind === "failback") {
    command.option("--force", "go on although not all that was written is in the vault; needs --reason");
  }
  if (kind === "migrate") {
    command.option("--force", "go on although the content of volumes is not kept; needs --reason");
  }
  if (kind === "failover" || kind === "drill") {
    command.option("--at <time>", 'protected disks as they were then: 2026-03-01T12:00:00Z, or "20s ago"');
  }
  if (kind === "drill") {
    command.option("--hold <seconds>", "leave it standing so long, to look at", wholeNumber);
  }
  command.action(async (name: string | undefined, options: RunFlags, self: Command) => {
    const flags = globalFlags(self);
    if (options.force === true && options.reason === undefined) {
      throw new OperationalError("input.invalid", "--force needs --reason: why is kept with the run");
    }
    const at = options.at === undefined ? {} : { at: parseMoment(options.at, Date.now()) };
    const api = await openApi(context, flags);
    const environment = await chooseEnvironment(api, name);
    if (warning !== null) await confirmTyped(context, environment, warning, options.confirm);
    await beginRun(context, api, environment, {
      body: {
        kind,
        reason: options.reason,
        force: options.force ?? false,
        ...at,
        ...(options.hold === undefined ? {} : { holdMs: options.hold * 1000 }),
      },
      wait: options.wait,
      json: flags.json,
    });
  });
}

export interface BegunRun {
  /** As the API takes it; `reason` absent: who asks. */
  readonly body: { readonly kind: RunKind; readonly reason: string | undefined } & Readonly<
    Record<string, unknown>
  >;
  readonly wait: boolean;
  readonly json: boolean;
  /** Beyond the run's end, until the disks that it made live have all their content. */
  readonly copies?: boolean;
}

/** Begins it, and unless told otherwise follows it to its end, which is then the exit code. */
export async function beginRun(
  context: CommandContext,
  api: ApiClient,
  environment: string,
  { body, wait, json, copies = false }: BegunRun,
): Promise<void> {
  const run = await api.post<Run>(environmentPath(environment, "/runs"), {
    ...body,
    reason: body.reason ?? `asked for by ${userName()}`,
  });
  if (!wait) {
    context.terminal.out(json ? JSON.stringify(run) : `${run.id} has begun: understudy run show ${run.id}`);
    return;
  }
  const view = await followToEnd(context, api, run);
  const serves = view.state === "succeeded" || view.state === "incomplete";
  if (!copies || !serves) {
    context.terminal.out(json ? JSON.stringify(view) : describeRun(view));
    context.exitWith(exitCodeOf(view));
    return;
  }
  if (!json) context.terminal.out(describeRun(view));
  const disks = await followCopies(context, api, environmentPath(environment), view.finishedAt ?? 0);
  context.terminal.out(json ? JSON.stringify({ ...view, disks }) : `${disks.length} disks are whole`);
  context.exitWith(exitCodeOf(view));
}

function exitCodeOf(run: Run): number {
  if (run.state === "succeeded") return 0;
  return run.state === "incomplete" ? 8 : 3;
}

/** A user id without an entry in the password file, as containers have, has no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? "unknown"}`;
  }
}

/** Ctrl-C ends the watching, never the run. */
async function followToEnd(context: CommandContext, api: ApiClient, run: Run): Promise<RunView> {
  try {
    return await followRun(context, api, run);
  } catch (error) {
    if (context.signal.aborted) context.terminal.err(`${run.id} goes on: understudy run show ${run.id}`);
    throw error;
  }
}

/** Prints the run's timeline as it happens. */
async function followRun(context: CommandContext, api: ApiClient, run: Run): Promise<RunView> {
  let after = 0;
  for (;;) {
    context.signal.throwIfAborted();
    const path = environmentPath(run.environment, `/events?after=${after}&limit=500&waitMs=1000`);
    const { events } = await api.get<{ events: readonly TimelineEvent[] }>(path, context.signal);
    for (const event of events) {
      after = Math.max(after, event.ordinal);
      if (event.run === run.id) context.terminal.err(`${formatTime(event.at)}  ${event.message}`);
    }
    const view = await api.get<RunView>(`/v1/runs/${run.id}`, context.signal);
    if (view.state !== "running" && events.length === 0) return view;
  }
}

function took(run: Run): string {
  return run.finishedAt === null ? "under way" : formatDuration(run.finishedAt - run.startedAt);
}

function describeRun(view: RunView): string {
  const head = [
    `${view.id}: ${view.state.replace("_", " ")} (${took(view)})`,
    `  environment ${view.environment}, epoch ${view.epoch}, by ${view.trigger}: ${view.reason}`,
    ...(view.error === null ? [] : [`  ${view.error}`]),
  ];
  const rows = view.steps.map((step) => [
    step.name,
    step.state,
    String(step.attempts),
    step.finishedAt === null ? "" : formatDuration(step.finishedAt - step.startedAt),
    step.summary ?? "",
  ]);
  return `${head.join("\n")}\n\n${formatTable(["step", "state", "tries", "took", "what"], rows)}`;
}
