/** `understudy vault verify | gc | restore-log | repair`: whether the repository is whole, and what can be done where it is not. */
import type { Command } from "commander";
import type { CommandContext } from "#cli/command-context.ts";
import { formatBytes, formatTable } from "#cli/table.ts";
import type {
  LostRangeView,
  RestoredLogView,
  VaultFlags,
  VaultGarbageView,
  VaultRepairView,
  VaultVerifyView,
} from "#cli/vault-tools.ts";
import { errorCodes, OperationalError } from "#kernel/errors.ts";

interface VaultCareParts {
  readonly context: CommandContext;
  readonly add: (name: string, description: string, ...lines: readonly string[]) => Command;
  readonly flagsOf: (command: Command) => VaultFlags;
  readonly said: (context: CommandContext, command: Command, value: object, text: string) => void;
}

const damagedExit = errorCodes["vault.damaged"].exit;
/** Of what cannot be read, people are shown so many lines; `--json` has all of them. */
const shownLines = 50;

export function addVaultCareCommands({ context, add, flagsOf, said }: VaultCareParts): void {
  const tools = context.launchers.vault;

  add(
    "verify",
    "read all of it, and name what is damaged and which points it costs; exit code 9 if anything is",
    "understudy vault verify",
    "understudy vault verify --quick --json",
  )
    .option("--quick", "that everything is there and has its structure, without reading every byte", false)
    .action(async (options: { readonly quick: boolean }, command: Command) => {
      const depth = options.quick ? "quick" : "full";
      const report = await tools.verify(flagsOf(command), depth, context.signal);
      said(context, command, report, describeVerification(report));
      if (!report.whole) context.exitWith(damagedExit);
    });

  add(
    "gc",
    "free the space of what no point needs: condemned by one run, deleted by a later one",
    "understudy vault gc",
    "understudy vault gc --json",
  ).action(async (_options, command: Command) => {
    const collected = await tools.collectGarbage(flagsOf(command), context.signal);
    said(context, command, collected, describeCollection(collected));
  });

  add(
    "restore-log <environment>",
    "bring an environment's write log back from the store, after the vault's data folder was lost or is an older copy; not while the vault serves it",
    "understudy vault restore-log shop",
  ).action(async (environment: string, _options, command: Command) => {
    const restored = await tools.restoreLog(flagsOf(command), environment, context.signal);
    said(context, command, restored, describeRestoredLog(restored));
  });

  add(
    "repair [volume]",
    "mend what can be mended, with --from out of a disk that still has it; exit code 9 if something stays lost",
    "understudy vault repair",
    "understudy vault repair vol-0a1b2c3d --from ./disk.raw",
    'understudy vault repair vol-0a1b2c3d --from "nbd://10.0.0.7/vol-0a1b2c3d"',
  )
    .option(
      "--from <disk>",
      "a file, a block device or an NBD URI that may still hold what is lost of the volume",
    )
    .action(async (volume: string | undefined, options: { readonly from?: string }, command: Command) => {
      const { from } = options;
      if ((volume === undefined) !== (from === undefined)) {
        throw new OperationalError(
          "input.invalid",
          "--from goes with the volume whose content it is: understudy vault repair VOLUME --from DISK",
        );
      }
      const source = volume === undefined || from === undefined ? undefined : { volume, from };
      const report = await tools.repair(flagsOf(command), source, context.signal);
      said(context, command, report, describeRepair(report));
      if (report.lost.length > 0) context.exitWith(damagedExit);
    });
}

function describeRestoredLog({ environment, segments, lastMs, putAside }: RestoredLogView): string {
  const lines = [
    segments === 0
      ? `nothing of the write log of "${environment}" was in the store: a new one is begun, and its points are as they were`
      : `the write log of "${environment}" is back: ${segments} segments, up to ${new Date(lastMs).toISOString()}`,
    "what was captured after that is lost; every disk is copied whole when the vault serves again",
  ];
  if (putAside !== null) lines.push(`what stood there is in ${putAside}`);
  return lines.join("\n");
}

function describeVerification(report: VaultVerifyView): string {
  const { findings, points, packs, bytes, logs, depth } = report;
  const read = `${points} points, ${packs} packs, ${logs.length} write logs, ${formatBytes(bytes)}`;
  if (report.whole) {
    return depth === "full" ? `whole, down to the bit: ${read}` : `whole, as far as structure goes: ${read}`;
  }
  return [
    `damaged: ${findings.length} findings in ${read}`,
    ...cut(findings.map(({ object, problem }) => `  ${object}: ${problem}`)),
    ...describeLost(report.lost),
  ].join("\n");
}

function describeLost(lost: readonly LostRangeView[]): string[] {
  if (lost.length === 0) return ["no point has lost anything by it"];
  const rows = cut(lost).map((one) =>
    typeof one === "string" ? [one] : [one.point, String(one.offset), formatBytes(one.length), one.object],
  );
  return [
    `${new Set(lost.map(({ point }) => point)).size} points cannot be read in full:`,
    formatTable(["point", "offset", "length", "because of"], rows),
  ];
}

function cut<T>(lines: readonly T[]): (T | string)[] {
  if (lines.length <= shownLines) return [...lines];
  return [...lines.slice(0, shownLines), `  ... and ${lines.length - shownLines} more: see --json`];
}

function describeCollection(collected: VaultGarbageView): string {
  const { condemnedPacks, compactedPacks, deletedPacks, deletedBytes, waiting } = collected;
  return [
    `${deletedPacks} packs deleted (${formatBytes(deletedBytes)}), ${condemnedPacks} condemned for a later run, ${compactedPacks} emptied`,
    ...waiting.map((why) => `  waits: ${why}`),
  ].join("\n");
}

function describeRepair(report: VaultRepairView): string {
  const { repairedBlobs, lostBlobs, reindexedPacks, removed, findings, lost } = report;
  if (findings.length === 0) return "nothing was damaged";
  return [
    `${repairedBlobs} pieces are whole again, ${lostBlobs} are lost; ${reindexedPacks} packs named anew, ${removed.length} objects removed`,
    ...cut(findings.map(({ object, problem }) => `  ${object}: ${problem}`)),
    ...(lost.length === 0 ? ["every point can be read in full"] : describeLost(lost)),
  ].join("\n");
}
