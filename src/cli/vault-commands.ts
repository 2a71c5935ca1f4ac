/** `understudy vault ...`: the repository of disks, with nothing but its store and its key. No control plane is needed. */
import type { Command } from "commander";
import type { CommandContext } from "#cli/command-context.ts";
import { examples, globalFlags } from "#cli/global-flags.ts";
import { parseMoment } from "#cli/parse-moment.ts";
import { formatBytes, formatTable, formatTime } from "#cli/table.ts";
import { addVaultCareCommands } from "#cli/vault-care-commands.ts";
import type { RetentionView, VaultEnvironmentView, VaultFlags, WantedContent } from "#cli/vault-tools.ts";
import { OperationalError } from "#kernel/errors.ts";

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
      .option(
        "--store <store>",
        "a folder, or s3://BUCKET/PREFIX/?endpoint=URL, instead of the configuration's",
      )
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
    "what it holds: points by volume and by environment, and how they thin out",
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
    const parts = [`vault ${status.id} in ${status.store}`];
    if (status.retention !== null) parts.push(describeRetention(status.retention));
    parts.push(table);
    if (status.environments.length > 0) parts.push("", environmentTable(status.environments));
    said(context, command, status, parts.join("\n"));
  });

  add(
    "environments",
    "which environments it keeps recovery points and write logs of",
    "understudy vault environments",
    `understudy vault environments ${example} --json`,
  ).action(async (_options, command: Command) => {
    const environments = await tools.environments(flagsOf(command), context.signal);
    said(context, command, { environments }, environmentTable(environments));
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

  const addContent = (name: string, description: string, ...lines: readonly string[]): Command =>
    add(`${name} [point]`, description, ...lines)
      .option("--volume <volume>", "a volume at a moment, instead of a point")
      .option("--at <time>", 'with --volume: 2026-03-01T12:00:00Z, or "20s ago"; without it the last moment')
      .option(
        "--environment <name>",
        "with --volume: whose write log is meant, where several hold the volume",
      );

  addContent(
    "cat",
    "write a disk, as at a point or at any moment of the write log, into a file or to standard output",
    "understudy vault cat vol-0a1b2c3d/20260301T120000.000Z-0011223344556677 --output disk.raw",
    `understudy vault cat --volume vol-0a1b2c3d --at "20s ago" ${example} --output disk.raw`,
    `understudy vault cat POINT ${example} > disk.raw`,
  )
    .option("--output <file>", "a new file; holes stay holes")
    .action(async (point: string | undefined, options: ContentFlags, command: Command) => {
      const wanted = wantedOf(point, options);
      const written = await tools.cat(flagsOf(command), wanted, options.output, context.signal);
      // Standard output is the disk's, unless there is a file for it.
      if (options.output === undefined) return;
      said(context, command, written, `${options.output} is ${formatBytes(written.sizeBytes)}`);
    });

  addContent(
    "mount",
    "serve a disk, as at a point or at any moment of the write log, by NBD on a Unix socket until it is told to stop",
    "understudy vault mount POINT --socket ./disk.sock",
    `understudy vault mount --volume vol-0a1b2c3d --at 2026-03-01T12:00:00Z ${example} --socket ./disk.sock`,
    "understudy vault mount POINT --socket ./disk.sock --writable ./changes",
  )
    .requiredOption("--socket <path>", "where NBD clients connect")
    .option("--writable <folder>", "take writes, and keep them in this folder; the vault stays as it is")
    .action(
      async (
        point: string | undefined,
        options: ContentFlags & { readonly socket: string; readonly writable?: string },
        command: Command,
      ) => {
        await tools.mount(flagsOf(command), wantedOf(point, options), options, context.signal);
      },
    );

  addVaultCareCommands({ context, add, flagsOf, said });
}

function environmentTable(environments: readonly VaultEnvironmentView[]): string {
  const timeOf = (ms: number | null): string => (ms === null ? "" : new Date(ms).toISOString());
  const rows = environments.map((one) => [
    one.environment,
    String(one.points),
    timeOf(one.oldestMs),
    timeOf(one.newestMs),
    one.log ? "yes" : "no",
    one.damaged === 0 ? "" : `${one.damaged} damaged`,
  ]);
  return formatTable(["environment", "recovery points", "oldest", "newest", "write log", ""], rows);
}

/** `all for 10 min, then one every 10 min for 1 h, ...` */
export function describeRetention({ keepAllMs, rules }: RetentionView): string {
  const spanOf = (ms: number): string => {
    const [count, unit] =
      ms % 86_400_000 === 0
        ? [ms / 86_400_000, "d"]
        : ms % 3_600_000 === 0
          ? [ms / 3_600_000, "h"]
          : [ms / 60_000, "min"];
    return `${count} ${unit}`;
  };
  const parts = rules.map(({ every, forMs }) =>
    typeof every === "string"
      ? `one a ${every} for ${spanOf(forMs)}`
      : `one every ${spanOf(every)} for ${spanOf(forMs)}`,
  );
  return `points are kept: ${[`all for ${spanOf(keepAllMs)}`, ...parts].join(", ")}`;
}

interface ContentFlags {
  readonly volume?: string;
  readonly at?: string;
  readonly environment?: string;
  readonly output?: string;
}

/** Errors: `input.invalid` unless exactly one of the two ways to name a content was taken. */
function wantedOf(point: string | undefined, { volume, at, environment }: ContentFlags): WantedContent {
  if ((point === undefined) === (volume === undefined)) {
    throw new OperationalError(
      "input.invalid",
      'name either a point, or a volume with --volume (and --at): see "understudy vault points"',
    );
  }
  if (point !== undefined) {
    if (at === undefined && environment === undefined) return { point };
    throw new OperationalError("input.invalid", "--at and --environment go with --volume, not with a point");
  }
  const atMs = at === undefined ? null : parseMoment(at, Date.now());
  return { volume: volume ?? "", atMs, environment };
}

export function flagsOf(command: Command): VaultFlags {
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
