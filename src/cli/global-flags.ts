import type { Command } from "commander";
import type { TargetFlags } from "#cli/api-client.ts";

export type GlobalFlags = TargetFlags & { readonly json: boolean };

/** The flags that every command has, wherever on the line they stand. */
export function globalFlags(command: Command): GlobalFlags {
  return command.optsWithGlobals<GlobalFlags>();
}

export function examples(...lines: readonly string[]): string {
  return `\nExamples\n${lines.map((line) => `  $ ${line}`).join("\n")}\n`;
}
