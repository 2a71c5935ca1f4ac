/** `understudy agent`: on a machine whose disks no host agent of ours captures. */
import type { Command } from "commander";
import type { AgentStatus } from "#agent/agent-status.ts";
import type { CommandContext } from "#cli/command-context.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { formatBytes, formatDuration } from "#cli/table.ts";

const defaultConfig = "understudy-agent.yaml";

export function addAgentCommands(program: Command, context: CommandContext): void {
  const agent = program
    .command("agent")
    .description(`reads this machine's disks for the vault (its configuration: ${defaultConfig})`);

  agent
    .command("run", { isDefault: true })
    .description("read the disks again and again, and send what changed, until it is told to stop")
    .addHelpText(
      "after",
      examples("understudy agent run", "understudy agent --config /etc/understudy/agent.yaml"),
    )
    .action(async (_options, command: Command) => {
      const { json } = globalFlags(command);
      await context.launchers.agent.run({ config: configOf(command), json }, context.signal);
    });

  agent
    .command("status")
    .description("what it does now, what is still to be sent, and the last moment that can be recovered to")
    .addHelpText("after", examples("understudy agent status", "understudy agent status --json"))
    .action(async (_options, command: Command) => {
      const status = await context.launchers.agent.status(configOf(command), context.signal);
      context.terminal.out(globalFlags(command).json ? JSON.stringify(status) : describeAgent(status));
    });
}

/** The control plane's configuration is another one. */
function configOf(command: Command): string {
  const isDefault = command.getOptionValueSourceWithGlobals("config") === "default";
  return isDefault ? defaultConfig : globalFlags(command).config;
}

export function describeAgent(status: AgentStatus): string {
  const { disks, reading, nextPassMs, lastPass, sending, spool, point, problem } = status;
  const lines = [
    `disks    ${disks.map(({ volume, path }) => `${volume} (${path})`).join(", ")}`,
    `now      ${doing(status.state, reading, nextPassMs)}`,
    `spool    ${formatBytes(spool.bytes)} of ${formatBytes(spool.limitBytes)} in ${spool.parts} parts`,
    `network  ${sending.state.replace("_", " ")}, ${formatBytes(sending.sentBytes)} sent${sending.problem === null ? "" : `: ${sending.problem}`}`,
    point === null
      ? "point    none yet: nothing can be recovered to"
      : `point    ${new Date(point.instantMs).toISOString()} (${point.consistency}-consistent), ${formatDuration(status.lagMs ?? 0)} old`,
  ];
  if (lastPass !== null) {
    const what =
      lastPass.consistency === "fuzzy" ? `fuzzy, no point: ${lastPass.reason ?? ""}` : lastPass.consistency;
    const read = `${formatBytes(lastPass.readBytes)} read, ${formatBytes(lastPass.changedBytes)} changed`;
    lines.push(`last     pass ${lastPass.pass}: ${read}, ${what}`);
  }
  if (status.wholeReads !== null) lines.push(`reads    whole disks at each pass: ${status.wholeReads}`);
  if (problem !== null) lines.push(`problem  ${problem}`);
  return lines.join("\n");
}

function doing(
  state: AgentStatus["state"],
  reading: AgentStatus["reading"],
  nextPassMs: number | null,
): string {
  if (state === "beginning") return "asks the vault what it has";
  if (reading !== null) {
    const held = reading.phase === "held" ? ", which are held still" : "";
    return `reads the disks${held}: ${formatBytes(reading.readBytes)} of ${formatBytes(reading.totalBytes)}`;
  }
  return nextPassMs === null ? "waits" : `waits until ${new Date(nextPassMs).toISOString()}`;
}
