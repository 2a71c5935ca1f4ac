/** `understudy vault ...`: the repository of disks, with nothing but its store and its key. No control plane is needed. */
import type { Command } from "commander";
import type { CommandContext, VaultFlags } from "#cli/command-context.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { formatBytes, formatTable, formatTime } from "#cli/table.ts";

const example = "--store /srv/vault --passphrase-file ./vault-passphrase";

export function addVaultCommands(program: Command, context: CommandContext): void {
  const vault = program
    .command("vault")
    .description("the repository of disks: needs its store and its key, and nothing else");
  const tools = context.launchers.vault;

  const add = (name: string, description: string, ...lines: readonly string[]): Command =>
    vault
      .command(name)
      .description(description)
      .option("--store <folder>", "the repository's folder, if not the one that the configuration names")
      .option("--passphrase-file <file>", "the key's passphrase, with --store")
      .addHelpText("after", examples(...lines));

  add("init", "make an empty one", "understudy vault init", `understudy vault init ${example}`).action(
    async (_options, command: Command) => {
      const made = await tools.init(flagsOf(command));
      said(
        context,
        command,
        made,
        `the vault ${made.id} is in ${made.store}: keep its passphrase safe, without it nothing can be read`,
      );
    },
  );

  add(
    "serve",
    "take in the writes of protected disks, and serve their moments, until it is told to stop",
    "understudy vault serve",
  ).action(async (_options, command: Command) => {
    await tools.serve(flagsOf(command), context.signal);
  });

  add(
    "status",
    "what it holds: points by volume",
    "understudy vault status",
    `understudy vault status ${example} --json`,
  ).action(async (_options, command: Command) => {
    const status = await tools.status(flagsOf(command), context.signal);
    const rows = status.volumes.map((one) => [
      one.volume,
      String(one.points),
      formatBytes(one.sizeBytes),
      formatTime(one.oldestMs),
      formatTime(one.newestMs),
    ]);
    const table = formatTable(["volume", "points", "size", "oldest", "newest"], rows);
    said(context, command, status, `vault ${status.id} in ${status.store}\n${table}`);
  });

  add(
    "points [volume]",
    "every point, oldest first",
    "understudy vault points",
    "understudy vault points vol-0a1b2c3d",
  ).action(async (volume: string | undefined, _options, command: Command) => {
    const points = await tools.points(flagsOf(command), volume, context.signal);
    const rows = points.map((one) => [
      one.id,
      formatTime(one.timeMs),
      formatBytes(one.sizeBytes),
      one.consistency,
      one.whole ? "whole" : "a base only",
    ]);
    said(
      context,
      command,
      { points },
      formatTable(["point", "time", "size", "consistency", "content"], rows),
    );
  });

  add(
    "cat <point>",
    "write a point's disk into a file, or to standard output",
    "understudy vault cat vol-0a1b2c3d/1767225600000-1f2e3d --output disk.raw",
    `understudy vault cat POINT ${example} > disk.raw`,
  )
    .option("--output <file>", "a new file; holes stay holes")
    .action(async (point: string, options: { readonly output?: string }, command: Command) => {
      await tools.cat(flagsOf(command), point, options.output, context.signal);
    });

  add(
    "mount <point>",
    "serve a point's disk by NBD on a Unix socket, until it is told to stop",
    "understudy vault mount POINT --socket ./disk.sock",
    "understudy vault mount POINT --socket ./disk.sock --writable ./changes",
  )
    .requiredOption("--socket <path>", "where NBD clients connect")
    .option("--writable <folder>", "take writes, and keep them in this folder; the point stays as it is")
    .action(
      async (
        point: string,
        options: { readonly socket: string; readonly writable?: string },
        command: Command,
      ) => {
        await tools.mount(flagsOf(command), point, options, context.signal);
      },
    );
}

function flagsOf(command: Command): VaultFlags {
  const { config, json } = globalFlags(command);
  const { store, passphraseFile } = command.opts<{ store?: string; passphraseFile?: string }>();
  return {
    config,
    json,
    ...(store === undefined ? {} : { store }),
    ...(passphraseFile === undefined ? {} : { passphraseFile }),
  };
}

function said(context: CommandContext, command: Command, value: object, text: string): void {
  context.terminal.out(globalFlags(command).json ? JSON.stringify(value) : text);
}
